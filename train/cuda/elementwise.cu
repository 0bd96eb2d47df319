// Passes over whole maps: scale, bias, shortcut, ReLU; sums over rows; changes of layout and type.
#include "device.cuh"

// y = relu?(x * scale + bias + residual), scale and bias per channel of the last axis, of each `group` elements their own.
template <class T, int V>
__device__ __forceinline__ void affine(const T* x, const float* scale, const float* bias, const T* residual, T* y, i64 n,
                                       int width, i64 group, int relu) {
    const i64 step = item_stride() * V;
    i64 at = first_item() * V;
    Coefficients of(at, step, width, group, n);
    for (; at < n; at += step, of.next()) {
        float v[V], w[V];
        load<V>(x + at, v);
        const i64 c = of.index();
        if (scale) {
            load<V>(scale + c, w);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] *= w[i];
        }
        if (bias) {
            load<V>(bias + c, w);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] += w[i];
        }
        if (residual) {
            load<V>(residual + at, w);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] += w[i];
        }
        if (relu) {
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = positive(v[i]);
        }
        store<V>(y + at, v);
    }
}

// Twin: cpu/elementwise.rs `affine`, cpu/norm.rs `normalise`. Bytes: (2 or 3) n sizeof(T); FLOPs: up to 4 n.
#define AFFINE(NAME, T, V)                                                                                             \
    KERNEL NAME(const T* x, const float* scale, const float* bias, const T* residual, T* y, i64 n, int width,         \
                i64 group, int relu) {                                                                                 \
        affine<T, V>(x, scale, bias, residual, y, n, width, group, relu);                                              \
    }
AFFINE(affine_f32_1, float, 1)
AFFINE(affine_f32_4, float, 4)
AFFINE(affine_bf16_1, bf16, 1)
AFFINE(affine_bf16_8, bf16, 8)

template <class T, int V>
__device__ __forceinline__ void add(const T* a, const T* b, T* y, i64 n, int relu) {
    for (i64 at = first_item() * V; at < n; at += item_stride() * V) {
        float v[V], w[V];
        load<V>(a + at, v);
        load<V>(b + at, w);
#pragma unroll
        for (int i = 0; i < V; i++) {
            v[i] += w[i];
            if (relu) v[i] = positive(v[i]);
        }
        store<V>(y + at, v);
    }
}

// y = a + b, then ReLU if asked for. Twin: cpu/elementwise.rs `sum`. Bytes: 3 n sizeof(T); FLOPs: up to 2 n.
#define ADD(NAME, T, V) \
    KERNEL NAME(const T* a, const T* b, T* y, i64 n, int relu) { add<T, V>(a, b, y, n, relu); }
ADD(add_f32_1, float, 1)
ADD(add_f32_4, float, 4)
ADD(add_bf16_1, bf16, 1)
ADD(add_bf16_8, bf16, 8)

template <class T, int V>
__device__ __forceinline__ void relu_backward(const T* y, T* dy, i64 n) {
    for (i64 at = first_item() * V; at < n; at += item_stride() * V) {
        float v[V], d[V];
        load<V>(y + at, v);
        load<V>(dy + at, d);
#pragma unroll
        for (int i = 0; i < V; i++) d[i] = v[i] > 0.0f ? d[i] : 0.0f;
        store<V>(dy + at, d);
    }
}

// Clears dy where y is not positive. Twin: cpu/elementwise.rs `mask_by`. Bytes: 3 n sizeof(T); FLOPs: n.
#define RELU_BACKWARD(NAME, T, V) \
    KERNEL NAME(const T* y, T* dy, i64 n) { relu_backward<T, V>(y, dy, n); }
RELU_BACKWARD(relu_backward_f32_1, float, 1)
RELU_BACKWARD(relu_backward_f32_4, float, 4)
RELU_BACKWARD(relu_backward_bf16_1, bf16, 1)
RELU_BACKWARD(relu_backward_bf16_8, bf16, 8)

// Elements [begin, end) of out = by > 0 ? x : slope * x.
template <class T, int V>
__device__ __forceinline__ void leaky_part(const T* by, const T* x, T* out, float slope, i64 begin, i64 end) {
    for (i64 at = begin + first_item() * V; at < end; at += item_stride() * V) {
        float sign[V], v[V];
        load<V>(by + at, sign);
        load<V>(x + at, v);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = sign[i] > 0.0f ? v[i] : slope * v[i];
        store<V>(out + at, v);
    }
}

// 16 bytes at a time where that is allowed; the rest one by one.
template <class T>
__device__ __forceinline__ void leaky(const T* by, const T* x, T* out, float slope, i64 n) {
    constexpr int V = Wide<T>::of;
    const i64 whole = aligned(by, x, out) ? n / V * V : 0;
    leaky_part<T, V>(by, x, out, slope, 0, whole);
    leaky_part<T, 1>(by, x, out, slope, whole, n);
}

// x where positive, slope * x elsewhere, and its gradient. Twins: cpu/elementwise.rs `leaky`, `leaky_backward`.
// Bytes: 2 n sizeof(T), backward 3 n sizeof(T); FLOPs: 2 n.
#define LEAKY(TYPE, T)                                                                             \
    KERNEL leaky_relu_##TYPE(const T* x, T* y, float slope, i64 n) { leaky<T>(x, x, y, slope, n); } \
    KERNEL leaky_relu_backward_##TYPE(const T* x, const T* dy, T* dx, float slope, i64 n) {        \
        leaky<T>(x, dy, dx, slope, n);                                                             \
    }
LEAKY(f32, float)
LEAKY(bf16, bf16)

constexpr int TILE = 32;
constexpr int TILE_ROWS = BLOCK / TILE;

// A tile of 32 x 32 goes through shared memory, so that both sides are read and written in runs of 32; the column more
// keeps the tile's columns in different banks.
template <class A, class B>
__device__ __forceinline__ void transpose(const A* x, B* y, int rows, int cols) {
    __shared__ float tile[TILE][TILE + 1];
    const int lane = threadIdx.x % TILE, line = threadIdx.x / TILE;
    const i64 matrix = (i64)blockIdx.z * rows * cols;
    const int col0 = blockIdx.x * TILE, row0 = blockIdx.y * TILE;
#pragma unroll
    for (int i = line; i < TILE; i += TILE_ROWS) {
        const int row = row0 + i, col = col0 + lane;
        if (row < rows && col < cols) tile[i][lane] = to_float(x[matrix + (i64)row * cols + col]);
    }
    __syncthreads();
#pragma unroll
    for (int i = line; i < TILE; i += TILE_ROWS) {
        const int row = row0 + lane, col = col0 + i;
        if (row < rows && col < cols) set(y[matrix + (i64)col * rows + row], tile[lane][i]);
    }
}

// (batches, rows, cols) to (batches, cols, rows). Grid: (cols / 32, rows / 32, batches), rounded up.
// Twin: cpu/elementwise.rs `transpose`. Bytes: batches rows cols (sizeof(A) + sizeof(B)); FLOPs: none.
#define TRANSPOSE(NAME, A, B) \
    KERNEL NAME(const A* x, B* y, int batches, int rows, int cols) { transpose<A, B>(x, y, rows, cols); }
TRANSPOSE(transpose_f32_f32, float, float)
TRANSPOSE(transpose_f32_bf16, float, bf16)
TRANSPOSE(transpose_bf16_f32, bf16, float)

template <class T>
__device__ __forceinline__ void column_sums(const T* x, double* part, i64 rows, int width, int chunk_rows) {
    __shared__ double sums[WARPS][WARP];
    const int lane = threadIdx.x % WARP, line = threadIdx.x / WARP;
    const int c = blockIdx.x * WARP + lane;
    const i64 first = (i64)blockIdx.y * chunk_rows;
    const i64 end = first + chunk_rows < rows ? first + chunk_rows : rows;
    double sum = 0.0;
    if (c < width) {
#pragma unroll 4
        for (i64 row = first + line; row < end; row += WARPS) sum += (double)to_float(x[row * width + c]);
    }
    sums[line][lane] = sum;
    __syncthreads();
    if (line == 0 && c < width) {
        for (int i = 1; i < WARPS; i++) sum += sums[i][lane];
        part[(i64)blockIdx.y * width + c] = sum;
    }
}

// Sums over a chunk of rows, per column. Grid: (width / 32, rows / chunk_rows), rounded up.
// Twin: cpu/mod.rs `column_sum`. Bytes: rows width sizeof(T) + 8 chunks width; FLOPs: rows width.
#define COLUMN_SUMS(NAME, T)                                                                    \
    KERNEL NAME(const T* x, double* part, i64 rows, int width, int chunk_rows) {                \
        column_sums<T>(x, part, rows, width, chunk_rows);                                       \
    }
COLUMN_SUMS(column_sums_f32, float)
COLUMN_SUMS(column_sums_bf16, bf16)

// Adds the chunks in order. Bytes: 8 chunks width + 4 width; FLOPs: chunks width.
KERNEL column_sums_end(const double* part, float* out, int chunks, int width) {
    for (i64 c = first_item(); c < width; c += item_stride()) {
        double sum = 0.0;
#pragma unroll 8
        for (int k = 0; k < chunks; k++) sum += part[(i64)k * width + c];
        out[c] = (float)sum;
    }
}
