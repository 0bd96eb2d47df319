// Batch normalisation of rows of channels, forward and backward. A group is `rows` consecutive rows with statistics of their
// own; it is read in chunks, whose results are merged in order.
#include "device.cuh"

// The part of the map a block of 32 channel lanes x 8 row lanes reads: V channels per lane, one chunk of one group.
template <int V>
struct Chunk {
    int lane, line, c, rows;
    i64 first;  // row
    bool inside;

    __device__ __forceinline__ Chunk(i64 group_rows, int width, int chunk_rows) {
        lane = threadIdx.x % WARP;
        line = threadIdx.x / WARP;
        c = (blockIdx.x * WARP + lane) * V;
        inside = c < width;
        const i64 begin = (i64)blockIdx.y * chunk_rows;
        const i64 left = group_rows - begin;
        rows = (int)(left < chunk_rows ? left : chunk_rows);
        first = (i64)blockIdx.z * group_rows + begin;
    }
    // Rows of row lane `line`.
    __device__ __forceinline__ int rows_of(int line) const { return (rows - line + WARPS - 1) / WARPS; }
    // Where results of this chunk begin: two rows of `width` floats for each chunk of each group.
    __device__ __forceinline__ i64 result(int width) const {
        return ((i64)blockIdx.z * gridDim.y + blockIdx.y) * 2 * width;
    }
};

// Rows a lane reads at once, so that enough loads are under way.
constexpr int DEEP = 4;

// Moments of `count` values joined with those of `n` more (Chan et al. 1983).
__device__ __forceinline__ void merge(float& mean, float& squares, float count, float more_mean, float more_squares,
                                      float n) {
    const float delta = more_mean - mean;
    const float share = n / (count + n);
    mean += delta * share;
    squares += more_squares + delta * delta * (count * share);
}

// Four rows at a time give their own mean and deviations, which are merged: as accurate as two passes whatever the mean.
template <class T, int V>
__device__ __forceinline__ void norm_moments(const T* x, float* moments, i64 group_rows, int width, int chunk_rows) {
    __shared__ float means[WARPS][V][WARP], deviations[WARPS][V][WARP];
    const Chunk<V> chunk(group_rows, width, chunk_rows);
    float mean[V], squares[V];
#pragma unroll
    for (int i = 0; i < V; i++) mean[i] = squares[i] = 0.0f;
    if (chunk.inside) {
        const T* p = x + (chunk.first + chunk.line) * width + chunk.c;
        const i64 down = (i64)WARPS * width;
        const int rows = chunk.rows_of(chunk.line);
        int row = 0;
        for (; row + DEEP <= rows; row += DEEP, p += DEEP * down) {
            float v[DEEP][V];
#pragma unroll
            for (int r = 0; r < DEEP; r++) load<V>(p + r * down, v[r]);
            const float share = (float)DEEP / (float)(row + DEEP), spread = (float)row * share;
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float own = 0.25f * ((v[0][i] + v[1][i]) + (v[2][i] + v[3][i]));
                float sum = 0.0f;
#pragma unroll
                for (int r = 0; r < DEEP; r++) {
                    const float d = v[r][i] - own;
                    sum += d * d;
                }
                const float delta = own - mean[i];
                mean[i] += delta * share;
                squares[i] += sum + delta * delta * spread;
            }
        }
        for (; row < rows; row++, p += down) {
            float v[V];
            load<V>(p, v);
#pragma unroll
            for (int i = 0; i < V; i++) merge(mean[i], squares[i], (float)row, v[i], 0.0f, 1.0f);
        }
    }
#pragma unroll
    for (int i = 0; i < V; i++) {
        means[chunk.line][i][chunk.lane] = mean[i];
        deviations[chunk.line][i][chunk.lane] = squares[i];
    }
    __syncthreads();
    // One thread per channel: row lane `line` takes the channels `line` of each V.
    if (chunk.inside && chunk.line < V) {
        float m = means[0][chunk.line][chunk.lane], s = deviations[0][chunk.line][chunk.lane];
        float count = (float)chunk.rows_of(0);
        for (int from = 1; from < WARPS; from++) {
            const float n = (float)chunk.rows_of(from);
            if (n > 0.0f) merge(m, s, count, means[from][chunk.line][chunk.lane], deviations[from][chunk.line][chunk.lane], n);
            count += n;
        }
        float* out = moments + chunk.result(width) + chunk.c + chunk.line;
        out[0] = m;
        out[width] = s;
    }
}

// Mean and sum of squared deviations of each chunk. Grid: (width / V / 32, chunks, groups), rounded up.
// Twin: cpu/norm.rs `moments`. Bytes: n sizeof(T) + 8 groups chunks width, n = groups rows width; FLOPs: about 5 n.
#define NORM_MOMENTS(NAME, T, V)                                                                \
    KERNEL NAME(const T* x, float* moments, i64 rows, int width, int chunk_rows) {              \
        norm_moments<T, V>(x, moments, rows, width, chunk_rows);                                \
    }
NORM_MOMENTS(norm_moments_f32_1, float, 1)
NORM_MOMENTS(norm_moments_f32_4, float, 4)
NORM_MOMENTS(norm_moments_bf16_1, bf16, 1)
NORM_MOMENTS(norm_moments_bf16_8, bf16, 8)

// Merges chunks in order, in double: first the mean, then deviations from it, so that nothing is divided per chunk.
// Twin: cpu/norm.rs `forward`, `affine_of`. Bytes: 12 groups chunks width + 28 groups width; FLOPs: 7 groups chunks width.
KERNEL norm_moments_end(const float* moments, int chunks, i64 rows, int chunk_rows, int width, int groups, double eps,
                        const float* w, const float* b, int per_group, float* mean, float* inv_std, float* unbiased,
                        float* scale, float* shift) {
    const double count = (double)rows;
    const double last = (double)(rows - (i64)(chunks - 1) * chunk_rows);
    for (i64 at = first_item(); at < (i64)groups * width; at += item_stride()) {
        i64 g = at;
        const i64 c = split(g, width);
        const float* p = moments + g * chunks * 2 * width + c;
        const i64 next = 2 * (i64)width;
        double sum = 0.0;
#pragma unroll 8
        for (int k = 0; k < chunks; k++) {
            const double n = k + 1 < chunks ? (double)chunk_rows : last;
            sum += n * (double)p[k * next];
        }
        const double m = sum / count;
        double squares = 0.0;
#pragma unroll 8
        for (int k = 0; k < chunks; k++) {
            const double n = k + 1 < chunks ? (double)chunk_rows : last;
            const double d = (double)p[k * next] - m;
            squares += (double)p[k * next + width] + n * d * d;
        }
        const float is = (float)(1.0 / sqrt(squares / count + eps));
        const i64 own = per_group ? at : c;
        mean[at] = (float)m;
        inv_std[at] = is;
        unbiased[at] = (float)(squares / (count > 2.0 ? count - 1.0 : 1.0));
        const float s = is * w[own];
        scale[at] = s;
        shift[at] = b[own] - (float)m * s;
    }
}

template <class T, int V>
__device__ __forceinline__ void norm_sums(const T* x, const T* y, T* dy, const float* mean, float* sums, i64 group_rows,
                                          int width, int chunk_rows) {
    __shared__ float shared[2][WARPS][V][WARP];
    const Chunk<V> chunk(group_rows, width, chunk_rows);
    float g[V], gx[V];
#pragma unroll
    for (int i = 0; i < V; i++) g[i] = gx[i] = 0.0f;
    if (chunk.inside) {
        i64 at = (chunk.first + chunk.line) * width + chunk.c;
        const i64 down = (i64)WARPS * width;
        const int rows = chunk.rows_of(chunk.line);
        float m[V];
        load<V>(mean + (i64)blockIdx.z * width + chunk.c, m);
#pragma unroll 2
        for (int row = 0; row < rows; row++, at += down) {
            float v[V], d[V];
            load<V>(x + at, v);
            load<V>(dy + at, d);
            if (y) {
                float to[V];
                load<V>(y + at, to);
#pragma unroll
                for (int i = 0; i < V; i++) d[i] = to[i] > 0.0f ? d[i] : 0.0f;
                store<V>(dy + at, d);
            }
#pragma unroll
            for (int i = 0; i < V; i++) {
                g[i] += d[i];
                gx[i] += d[i] * (v[i] - m[i]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < V; i++) {
        shared[0][chunk.line][i][chunk.lane] = g[i];
        shared[1][chunk.line][i][chunk.lane] = gx[i];
    }
    __syncthreads();
    if (chunk.inside && chunk.line < V) {
        float a = 0.0f, b = 0.0f;
        for (int from = 0; from < WARPS; from++) {
            a += shared[0][from][chunk.line][chunk.lane];
            b += shared[1][from][chunk.line][chunk.lane];
        }
        float* out = sums + chunk.result(width) + chunk.c + chunk.line;
        out[0] = a;
        out[width] = b;
    }
}

// Sums of dy and dy (x - mean) of each chunk; with y, first clears dy, in place, where y is not positive. Grid as above.
// Twin: cpu/norm.rs `mask`, `gradient_sums`. Bytes: 2 n sizeof(T), with y 4 n sizeof(T); FLOPs: 4 n, with y 5 n.
#define NORM_SUMS(NAME, T, V)                                                                                          \
    KERNEL NAME(const T* x, const T* y, T* dy, const float* mean, float* sums, i64 rows, int width, int chunk_rows) { \
        norm_sums<T, V>(x, y, dy, mean, sums, rows, width, chunk_rows);                                                \
    }
NORM_SUMS(norm_sums_f32_1, float, 1)
NORM_SUMS(norm_sums_f32_4, float, 4)
NORM_SUMS(norm_sums_bf16_1, bf16, 1)
NORM_SUMS(norm_sums_bf16_8, bf16, 8)

// Gradients of weight and bias, and the coefficients of dx = a dy + b x + c. Groups, and the chunks of each, in order.
// Twin: cpu/norm.rs `backward`. Bytes: 8 groups chunks width + 24 groups width; FLOPs: 2 groups chunks width.
KERNEL norm_sums_end(const float* sums, int chunks, i64 rows, int width, int groups, const float* w, int per_group,
                     const float* mean, const float* inv_std, int frozen, float* dw, float* db, float* a, float* b,
                     float* c) {
    for (i64 channel = first_item(); channel < width; channel += item_stride()) {
        double total_w = 0.0, total_b = 0.0;
        for (int group = 0; group < groups; group++) {
            const i64 at = (i64)group * width + channel;
            const i64 own = per_group ? at : channel;
            const float* p = sums + (i64)group * chunks * 2 * width + channel;
            double g = 0.0, gx = 0.0;
#pragma unroll 8
            for (int k = 0; k < chunks; k++) {
                g += (double)p[2 * (i64)k * width];
                gx += (double)p[2 * (i64)k * width + width];
            }
            const double is = (double)inv_std[at], scale = (double)w[own] * is;
            if (per_group) {
                dw[at] = (float)(gx * is);
                db[at] = (float)g;
            } else {
                total_w += gx * is;
                total_b += g;
            }
            double slope = 0.0, shift = 0.0;
            if (!frozen) {
                slope = -scale * is * is * gx / (double)rows;
                shift = -scale * g / (double)rows - slope * (double)mean[at];
            }
            a[at] = (float)scale;
            b[at] = (float)slope;
            c[at] = (float)shift;
        }
        if (!per_group) {
            dw[channel] = (float)total_w;
            db[channel] = (float)total_b;
        }
    }
}

template <class T, int V>
__device__ __forceinline__ void norm_combine(const T* x, const T* dy, T* dx, const float* a, const float* b,
                                             const float* c, i64 n, int width, i64 group) {
    const i64 step = item_stride() * V;
    i64 at = first_item() * V;
    Coefficients of(at, step, width, group, n);
    for (; at < n; at += step, of.next()) {
        float v[V], d[V], w[V];
        load<V>(dy + at, d);
        load<V>(x + at, v);
        const i64 i0 = of.index();
        load<V>(a + i0, w);
#pragma unroll
        for (int i = 0; i < V; i++) d[i] *= w[i];
        load<V>(b + i0, w);
#pragma unroll
        for (int i = 0; i < V; i++) d[i] += v[i] * w[i];
        load<V>(c + i0, w);
#pragma unroll
        for (int i = 0; i < V; i++) d[i] += w[i];
        store<V>(dx + at, d);
    }
}

// dx = a dy + b x + c, coefficients per channel and group of elements. Twin: cpu/norm.rs `combine`.
// Bytes: 3 n sizeof(T); FLOPs: 4 n.
#define NORM_COMBINE(NAME, T, V)                                                                                      \
    KERNEL NAME(const T* x, const T* dy, T* dx, const float* a, const float* b, const float* c, i64 n, int width,    \
                i64 group) {                                                                                          \
        norm_combine<T, V>(x, dy, dx, a, b, c, n, width, group);                                                      \
    }
NORM_COMBINE(norm_combine_f32_1, float, 1)
NORM_COMBINE(norm_combine_f32_4, float, 4)
NORM_COMBINE(norm_combine_bf16_1, bf16, 1)
NORM_COMBINE(norm_combine_bf16_8, bf16, 8)

// Constant statistics as scale and shift. Twin: cpu/norm.rs `affine_of`. Bytes: 28 width; FLOPs: 6 width.
KERNEL norm_fold(const float* w, const float* b, const float* mean, const float* var, double eps, float* scale,
                 float* shift, float* inv_std, int width) {
    for (i64 c = first_item(); c < width; c += item_stride()) {
        const float is = (float)(1.0 / sqrt((double)var[c] + eps));
        const float s = is * w[c];
        inv_std[c] = is;
        scale[c] = s;
        shift[c] = b[c] - mean[c] * s;
    }
}

// Moves running statistics towards the mean over groups of fresh ones. Twin: executor.rs, running statistics.
// Bytes: 4 (groups + 2) width; FLOPs: (groups + 4) width.
KERNEL norm_running(float* running, const float* fresh, int groups, int width, double momentum) {
    for (i64 c = first_item(); c < width; c += item_stride()) {
        double sum = 0.0;
        for (int g = 0; g < groups; g++) sum += (double)fresh[(i64)g * width + c];
        running[c] = (float)((1.0 - momentum) * (double)running[c] + momentum * (sum / (double)groups));
    }
}
