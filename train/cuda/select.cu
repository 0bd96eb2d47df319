// The k largest of each row, and distances from products.
#include "device.cuh"

// Scores as numbers that compare as they should: NaN below minus infinity, both zeros alike, of equal scores the lower index
// above. No two keys are equal, and none is 0.
__device__ __forceinline__ u64 key_of(float score, int index) {
    u32 bits = __float_as_uint(score == 0.0f ? 0.0f : score);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    if (is_nan(score)) bits = 0;
    return (u64)bits << 32 | (0xffffffffu - (u32)index);
}

// The largest key below `limit` among every 256th score from `first` on, or 0.
__device__ __forceinline__ u64 best_below(const float* row, int first, int cols, u64 limit) {
    u64 best = 0;
#pragma unroll 8
    for (int i = first; i < cols; i += BLOCK) {
        const u64 key = key_of(row[i], i);
        if (key < limit && key > best) best = key;
    }
    return best;
}

// The k largest of each row, descending; equal ones by index, NaN last. A block per row: each thread offers the best of its
// share, and whose offer was taken looks for its next one.
// Bytes: 4 rows cols from memory, k times 4 / 256 of that more from cache; operations: 4 rows (cols + k (cols / 256 + 13)).
KERNEL top_k(const float* scores, i64 stride, int rows, int cols, int k, float* values, u32* indices) {
    // Two sets, so that a round may write while another warp still reads the last one's.
    __shared__ u64 offers[2][WARPS];
    const i64 row = blockIdx.x;
    if (row >= rows) return;
    const float* from = scores + row * stride;
    u64 own = best_below(from, threadIdx.x, cols, ~0ull);
    for (int rank = 0; rank < k; rank++) {
        u64 best = own;
#pragma unroll
        for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
            const u64 other = __shfl_xor_sync(0xffffffffu, best, lanes);
            best = other > best ? other : best;
        }
        if (threadIdx.x % WARP == 0) offers[rank & 1][threadIdx.x / WARP] = best;
        __syncthreads();
#pragma unroll
        for (int w = 0; w < WARPS; w++) best = offers[rank & 1][w] > best ? offers[rank & 1][w] : best;
        if (own == best) {
            const u32 index = 0xffffffffu - (u32)best;
            values[row * k + rank] = from[index];
            indices[row * k + rank] = index;
            own = best_below(from, threadIdx.x, cols, best);
        }
    }
}

template <int V>
__device__ __forceinline__ void squared_distances_of(float* products, const float* a, const float* b, i64 rows,
                                                     i64 cols) {
    for (i64 at = first_item() * V; at < rows * cols; at += item_stride() * V) {
        i64 row = at;
        const i64 col = split(row, cols);
        float d[V], w[V];
        load<V>(products + at, d);
        load<V>(b + col, w);
        const float own = a[row];
#pragma unroll
        for (int i = 0; i < V; i++) d[i] = positive(own + w[i] - 2.0f * d[i]);
        store<V>(products + at, d);
    }
}

// |a - b|^2 = |a|^2 + |b|^2 - 2 a b in place of the products, not below 0. Bytes: 8 rows cols; FLOPs: 4 rows cols.
KERNEL squared_distances(float* products, const float* a, const float* b, i64 rows, i64 cols) {
    if (cols % 4 == 0 && aligned(products, b))
        squared_distances_of<4>(products, a, b, rows, cols);
    else
        squared_distances_of<1>(products, a, b, rows, cols);
}
