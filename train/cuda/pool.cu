// Pooling of maps (N, H, W, C): by sliding windows, by windows given as ranges, over all of space. Gradients are gathered: each
// element of the result is written once, by one thread, which adds in a fixed order.
#include "device.cuh"

// Runs BODY<T, V> with 16 bytes of channels per thread if channels and pointers allow it, else with one channel.
#define BY_CHANNELS(BODY, T, C, POINTERS, ARGS)                            \
    if ((C) % Wide<T>::of == 0 && aligned POINTERS)                        \
        BODY<T, Wide<T>::of> ARGS;                                         \
    else                                                                   \
        BODY<T, 1> ARGS;

struct Range {
    int begin, end;
};

__device__ __forceinline__ int at_least(int x, int low) { return x > low ? x : low; }
__device__ __forceinline__ int at_most(int x, int high) { return x < high ? x : high; }

// Maximum over [ys] x [xs] of V channels of an image at `x`, and where it is. The first of equal values wins, NaN over all;
// should all values be minus infinity, the first one of the window counts.
template <class T, int V>
__device__ __forceinline__ void maximum(const T* x, Range ys, Range xs, int w, int c, float (&best)[V], u32 (&where)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        best[i] = minus_infinity();
        where[i] = (u32)(ys.begin * w + xs.begin);
    }
    for (int iy = ys.begin; iy < ys.end; iy++) {
        for (int ix = xs.begin; ix < xs.end; ix++) {
            const int at = iy * w + ix;
            float v[V];
            load<V>(x + (i64)at * c, v);
#pragma unroll
            for (int i = 0; i < V; i++) {
                const bool take = v[i] > best[i] || is_nan(v[i]);
                best[i] = take ? v[i] : best[i];
                where[i] = take ? (u32)at : where[i];
            }
        }
    }
}

// Adds dy to sum where `at` was the maximum.
template <class T, int V>
__device__ __forceinline__ void add_if_maximum(const u32* positions, const T* dy, i64 from, u32 at, float (&sum)[V]) {
    u32 p[V];
    float d[V];
    load<V>(positions + from, p);
    load<V>(dy + from, d);
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] += p[i] == at ? d[i] : 0.0f;
}

template <class T, int V>
__device__ __forceinline__ void max_pool(const T* x, T* y, u32* positions, int n, int h, int w, int c, int oh, int ow,
                                         int kh, int kw, int sh, int sw, int ph, int pw) {
    const i64 items = (i64)n * oh * ow * (c / V);
    for (i64 item = first_item(); item < items; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, c / V) * V;
        const int ox = (int)split(image, ow), oy = (int)split(image, oh);
        const Range ys = {at_least(oy * sh - ph, 0), at_most(oy * sh - ph + kh, h)};
        const Range xs = {at_least(ox * sw - pw, 0), at_most(ox * sw - pw + kw, w)};
        float best[V];
        u32 where[V];
        maximum<T, V>(x + image * h * w * c + channel, ys, xs, w, c, best, where);
        store<V>(y + item * V, best);
        store<V>(positions + item * V, where);
    }
}

template <class T, int V>
__device__ __forceinline__ void max_pool_backward(const u32* positions, const T* dy, T* dx, int n, int h, int w, int c,
                                                  int oh, int ow, int kh, int kw, int sh, int sw, int ph, int pw) {
    const i64 items = (i64)n * h * w * (c / V);
    for (i64 item = first_item(); item < items; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, c / V) * V;
        const int ix = (int)split(image, w), iy = (int)split(image, h);
        // Windows `o` with `o * stride <= i + padding < o * stride + kernel`.
        const Range ys = {at_least(iy + ph - kh + sh, 0) / sh, at_most((iy + ph) / sh + 1, oh)};
        const Range xs = {at_least(ix + pw - kw + sw, 0) / sw, at_most((ix + pw) / sw + 1, ow)};
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0.0f;
        for (int oy = ys.begin; oy < ys.end; oy++) {
            for (int ox = xs.begin; ox < xs.end; ox++) {
                const i64 from = ((image * oh + oy) * ow + ox) * c + channel;
                add_if_maximum<T, V>(positions, dy, from, (u32)(iy * w + ix), sum);
            }
        }
        store<V>(dx + item * V, sum);
    }
}

// Max pooling and its gradient, with o = n oh ow c, i = n h w c. Twins: cpu/pool.rs `pool_image`, `unpool_image`.
// Bytes: i sizeof(T) + o (sizeof(T) + 4), both; FLOPs: o kh kw; backward i kh kw / (sh sw).
#define MAX_POOL(TYPE, T)                                                                                              \
    KERNEL max_pool_##TYPE(const T* x, T* y, u32* positions, int n, int h, int w, int c, int oh, int ow, int kh,      \
                           int kw, int sh, int sw, int ph, int pw) {                                                   \
        BY_CHANNELS(max_pool, T, c, (x, y, positions),                                                                 \
                    (x, y, positions, n, h, w, c, oh, ow, kh, kw, sh, sw, ph, pw))                                     \
    }                                                                                                                  \
    KERNEL max_pool_backward_##TYPE(const u32* positions, const T* dy, T* dx, int n, int h, int w, int c, int oh,     \
                                    int ow, int kh, int kw, int sh, int sw, int ph, int pw) {                          \
        BY_CHANNELS(max_pool_backward, T, c, (positions, dy, dx),                                                      \
                    (positions, dy, dx, n, h, w, c, oh, ow, kh, kw, sh, sw, ph, pw))                                   \
    }
MAX_POOL(f32, float)
MAX_POOL(bf16, bf16)

__device__ __forceinline__ Range range(const int* ranges, int at) { return {ranges[2 * at], ranges[2 * at + 1]}; }
__device__ __forceinline__ bool contains(Range r, int at) { return r.begin <= at && at < r.end; }

template <class T, int V>
__device__ __forceinline__ void window_sum(const T* x, T* y, const int* ys, int rows, const int* xs, int cols,
                                           const float* weights, int n, int h, int w, int c) {
    const i64 items = (i64)n * rows * cols * (c / V);
    for (i64 item = first_item(); item < items; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, c / V) * V;
        const int col = (int)split(image, cols), row = (int)split(image, rows);
        const Range y_range = range(ys, row), x_range = range(xs, col);
        const T* p = x + image * h * w * c + channel;
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0.0f;
        for (int iy = y_range.begin; iy < y_range.end; iy++) {
#pragma unroll 4
            for (int ix = x_range.begin; ix < x_range.end; ix++) {
                float v[V];
                load<V>(p + (i64)(iy * w + ix) * c, v);
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += v[i];
            }
        }
        const float weight = weights[row * cols + col];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] *= weight;
        store<V>(y + item * V, sum);
    }
}

template <class T, int V>
__device__ __forceinline__ void window_spread(const T* y, T* x, const int* ys, int rows, const int* xs, int cols,
                                              const float* weights, const int* ycover, const int* xcover, int n, int h,
                                              int w, int c) {
    const i64 items = (i64)n * h * w * (c / V);
    for (i64 item = first_item(); item < items; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, c / V) * V;
        const int ix = (int)split(image, w), iy = (int)split(image, h);
        const Range y_windows = range(ycover, iy), x_windows = range(xcover, ix);
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0.0f;
        for (int row = y_windows.begin; row < y_windows.end; row++) {
            if (!contains(range(ys, row), iy)) continue;
            for (int col = x_windows.begin; col < x_windows.end; col++) {
                if (!contains(range(xs, col), ix)) continue;
                const float weight = weights[row * cols + col];
                float v[V];
                load<V>(y + ((image * rows + row) * cols + col) * c + channel, v);
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += weight * v[i];
            }
        }
        store<V>(x + item * V, sum);
    }
}

template <class T, int V>
__device__ __forceinline__ void window_max(const T* x, T* y, u32* positions, const int* ys, int rows, const int* xs,
                                           int cols, int n, int h, int w, int c) {
    const i64 items = (i64)n * rows * cols * (c / V);
    for (i64 item = first_item(); item < items; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, c / V) * V;
        const int col = (int)split(image, cols), row = (int)split(image, rows);
        float best[V];
        u32 where[V];
        maximum<T, V>(x + image * h * w * c + channel, range(ys, row), range(xs, col), w, c, best, where);
        store<V>(y + item * V, best);
        store<V>(positions + item * V, where);
    }
}

template <class T, int V>
__device__ __forceinline__ void window_max_backward(const u32* positions, const T* dy, T* dx, const int* ys, int rows,
                                                    const int* xs, int cols, const int* ycover, const int* xcover,
                                                    int n, int h, int w, int c) {
    const i64 items = (i64)n * h * w * (c / V);
    for (i64 item = first_item(); item < items; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, c / V) * V;
        const int ix = (int)split(image, w), iy = (int)split(image, h);
        const Range y_windows = range(ycover, iy), x_windows = range(xcover, ix);
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0.0f;
        for (int row = y_windows.begin; row < y_windows.end; row++) {
            if (!contains(range(ys, row), iy)) continue;
            for (int col = x_windows.begin; col < x_windows.end; col++) {
                if (!contains(range(xs, col), ix)) continue;
                const i64 from = ((image * rows + row) * cols + col) * c + channel;
                add_if_maximum<T, V>(positions, dy, from, (u32)(iy * w + ix), sum);
            }
        }
        store<V>(dx + item * V, sum);
    }
}

// Weighted sums and maxima over windows (pairs of first and end), and their gradients; o = n rows cols c, i = n h w c, each
// pixel in k windows. Twins: cpu/windows.rs. Bytes: (i + o) sizeof(T), for maxima 4 o more; FLOPs: k i, gradients 2 k i.
#define WINDOWS(TYPE, T)                                                                                               \
    KERNEL window_sum_##TYPE(const T* x, T* y, const int* ys, int rows, const int* xs, int cols, const float* weights, \
                             int n, int h, int w, int c) {                                                             \
        BY_CHANNELS(window_sum, T, c, (x, y), (x, y, ys, rows, xs, cols, weights, n, h, w, c))                         \
    }                                                                                                                  \
    KERNEL window_spread_##TYPE(const T* y, T* x, const int* ys, int rows, const int* xs, int cols,                    \
                                const float* weights, const int* ycover, const int* xcover, int n, int h, int w,      \
                                int c) {                                                                               \
        BY_CHANNELS(window_spread, T, c, (y, x), (y, x, ys, rows, xs, cols, weights, ycover, xcover, n, h, w, c))      \
    }                                                                                                                  \
    KERNEL window_max_##TYPE(const T* x, T* y, u32* positions, const int* ys, int rows, const int* xs, int cols,      \
                             int n, int h, int w, int c) {                                                             \
        BY_CHANNELS(window_max, T, c, (x, y, positions), (x, y, positions, ys, rows, xs, cols, n, h, w, c))            \
    }                                                                                                                  \
    KERNEL window_max_backward_##TYPE(const u32* positions, const T* dy, T* dx, const int* ys, int rows,              \
                                      const int* xs, int cols, const int* ycover, const int* xcover, int n, int h,    \
                                      int w, int c) {                                                                  \
        BY_CHANNELS(window_max_backward, T, c, (positions, dy, dx),                                                    \
                    (positions, dy, dx, ys, rows, xs, cols, ycover, xcover, n, h, w, c))                               \
    }
WINDOWS(f32, float)
WINDOWS(bf16, bf16)

enum Kind { MEAN = 0, MAX = 1, GEM = 2 };

// A thread per channel of an image, so that even few images give enough of them; neighbours read neighbouring channels.
template <class T>
__device__ __forceinline__ void global_pool(const T* x, float* y, int n, int space, int c, int kind, const float* p,
                                            float eps) {
    const float exponent = kind == GEM ? *p : 1.0f;
    for (i64 item = first_item(); item < (i64)n * c; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, c);
        const T* from = x + image * space * c + channel;
        float result;
        if (kind == MAX) {
            result = minus_infinity();
#pragma unroll 8
            for (int s = 0; s < space; s++) {
                const float v = to_float(from[(i64)s * c]);
                if (v > result || is_nan(v)) result = v;
            }
        } else if (kind == MEAN) {
            result = 0.0f;
#pragma unroll 8
            for (int s = 0; s < space; s++) result += to_float(from[(i64)s * c]);
            result /= (float)space;
        } else {
            result = 0.0f;
            for (int s = 0; s < space; s++) result += powf(fmaxf(to_float(from[(i64)s * c]), eps), exponent);
            result = powf(result / (float)space, 1.0f / exponent);
        }
        y[item] = result;
    }
}

// With m = mean(v^p), v = max(x, eps), y = m^(1/p):
// dy/dx = y / m v^(p-1) / space where x >= eps; dy/dp = y (mean(v^p ln v) / (p m) - ln(m) / p^2).
// Powers are exp(p ln v), so that a value costs one logarithm and one exponential per pass.
template <class T>
__device__ __forceinline__ void gem_backward(const T* x, double y, double dy, T* dx, double* dp, int space, int c,
                                             double p, float eps) {
    double mean = 0.0, log_mean = 0.0;
    for (int s = 0; s < space; s++) {
        const double l = log((double)fmaxf(to_float(x[(i64)s * c]), eps));
        const double power = exp(p * l);
        mean += power;
        // 0^p ln 0 is 0 in the limit.
        log_mean += power > 0.0 ? power * l : 0.0;
    }
    mean /= (double)space;
    log_mean /= (double)space;
    // The mean can underflow for a large p.
    const double slope = mean > 0.0 ? y / mean : 0.0;
    if (dp) *dp = mean > 0.0 ? dy * y * (log_mean / (p * mean) - log(mean) / (p * p)) : 0.0;
    for (int s = 0; s < space; s++) {
        const float v = to_float(x[(i64)s * c]);
        const double d = v >= eps ? dy * slope * exp((p - 1.0) * log((double)v)) / (double)space : 0.0;
        set(dx[(i64)s * c], (float)d);
    }
}

template <class T>
__device__ __forceinline__ void global_pool_backward(const T* x, const float* y, const float* dy, T* dx, double* dp,
                                                     int n, int space, int c, int kind, const float* p, float eps) {
    const double exponent = kind == GEM ? (double)*p : 1.0;
    for (i64 item = first_item(); item < (i64)n * c; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, c);
        const i64 at = image * space * c + channel;
        const float g = dy[item];
        if (kind == MEAN) {
            const float share = g / (float)space;
#pragma unroll 8
            for (int s = 0; s < space; s++) set(dx[at + (i64)s * c], share);
        } else if (kind == MAX) {
            // The first position that holds the maximum; the first of all if it is NaN.
            const float best = y[item];
            int first = 0;
            bool found = false;
            for (int s = 0; s < space; s++) {
                if (!found && to_float(x[at + (i64)s * c]) == best) {
                    first = s;
                    found = true;
                }
            }
#pragma unroll 8
            for (int s = 0; s < space; s++) set(dx[at + (i64)s * c], s == first ? g : 0.0f);
        } else {
            gem_backward<T>(x + at, (double)y[item], (double)g, dx + at, dp ? dp + item : nullptr, space, c, exponent, eps);
        }
    }
}

// Space to one value: mean, maximum or generalised mean; and the gradient. Twins: cpu/pool.rs `global`, `global_backward`.
// Bytes, i = n space c: i sizeof(T) + 4 n c; backward of the mean the same, of the others i sizeof(T) more (read twice by GeM,
// from cache). FLOPs: i; GeM one power per value, backward two logarithms and two exponentials in double.
#define GLOBAL_POOL(TYPE, T)                                                                                           \
    KERNEL global_pool_##TYPE(const T* x, float* y, int n, int space, int c, int kind, const float* p, float eps) {   \
        global_pool<T>(x, y, n, space, c, kind, p, eps);                                                               \
    }                                                                                                                  \
    KERNEL global_pool_backward_##TYPE(const T* x, const float* y, const float* dy, T* dx, double* dp, int n,         \
                                       int space, int c, int kind, const float* p, float eps) {                        \
        global_pool_backward<T>(x, y, dy, dx, dp, n, space, c, kind, p, eps);                                          \
    }
GLOBAL_POOL(f32, float)
GLOBAL_POOL(bf16, bf16)

// One block: out = sum of part. Bytes: 8 n; FLOPs: n.
KERNEL sum_doubles(const double* part, float* out, i64 n) {
    double sum = 0.0;
#pragma unroll 4
    for (i64 i = threadIdx.x; i < n; i += BLOCK) sum += part[i];
    sum = block_sum(sum);
    if (blockIdx.x == 0 && threadIdx.x == 0) *out = (float)sum;
}
