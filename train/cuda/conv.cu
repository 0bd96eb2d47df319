// Convolutions as matrix products: filters in the order of columns, columns of maps (N, H, W, C), and back.
#include "device.cuh"

template <class T>
__device__ __forceinline__ void pack_filters(const float* w, const float* scale, T* packed, int o, int c, int taps) {
    for (i64 item = first_item(); item < (i64)o * c * taps; item += item_stride()) {
        i64 filter = item;
        const int i = (int)split(filter, c), tap = (int)split(filter, taps);
        set(packed[item], w[(filter * c + i) * taps + tap] * (scale ? scale[filter] : 1.0f));
    }
}

template <class T>
__device__ __forceinline__ void unpack_filters(const T* packed, float* w, int o, int c, int taps) {
    for (i64 item = first_item(); item < (i64)o * c * taps; item += item_stride()) {
        i64 filter = item;
        const int tap = (int)split(filter, taps), i = (int)split(filter, c);
        w[item] = to_float(packed[(filter * taps + tap) * c + i]);
    }
}

// Filters (o, c, taps) to (o, taps, c), each times its scale; and back. Twin: cpu/conv.rs `pack_filters`.
// Bytes: o c taps (4 + sizeof(T)); FLOPs: o c taps, back none.
#define FILTERS(TYPE, T)                                                                                    \
    KERNEL pack_filters_##TYPE(const float* w, const float* scale, T* packed, int o, int c, int taps) {     \
        pack_filters<T>(w, scale, packed, o, c, taps);                                                      \
    }                                                                                                       \
    KERNEL unpack_filters_##TYPE(const T* packed, float* w, int o, int c, int taps) {                       \
        unpack_filters<T>(packed, w, o, c, taps);                                                           \
    }
FILTERS(f32, float)
FILTERS(bf16, bf16)

template <class T, int V>
__device__ __forceinline__ void im2col(const T* x, T* cols, int n, int h, int w, int c, int c0, int cg, int oh, int ow,
                                       int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw) {
    const i64 items = (i64)n * oh * ow * kh * kw * (cg / V);
    for (i64 item = first_item(); item < items; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, cg / V) * V;
        const int kx = (int)split(image, kw), ky = (int)split(image, kh);
        const int ox = (int)split(image, ow), oy = (int)split(image, oh);
        const int iy = oy * sh - ph + ky * dh, ix = ox * sw - pw + kx * dw;
        float v[V];
        if ((u32)iy < (u32)h && (u32)ix < (u32)w) {
            load<V>(x + ((image * h + iy) * w + ix) * c + c0 + channel, v);
        } else {
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = 0.0f;
        }
        store<V>(cols + item * V, v);
    }
}

// Windows of the channels [c0, c0 + cg) as rows of a matrix, in the order (ky, kx, channel). Twin: cpu/columns.rs `im2col`.
// Bytes: n h w cg sizeof(T) (each element is read once from memory, then from cache) + n oh ow kh kw cg sizeof(T); no FLOPs.
#define IM2COL(NAME, T, V)                                                                                            \
    KERNEL NAME(const T* x, T* cols, int n, int h, int w, int c, int c0, int cg, int oh, int ow, int kh, int kw,     \
                int sh, int sw, int ph, int pw, int dh, int dw) {                                                     \
        im2col<T, V>(x, cols, n, h, w, c, c0, cg, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw);                            \
    }
IM2COL(im2col_f32_1, float, 1)
IM2COL(im2col_f32_4, float, 4)
IM2COL(im2col_bf16_1, bf16, 1)
IM2COL(im2col_bf16_8, bf16, 8)

// The output row or column whose window has `at` (padding and dilation taken into account) as its tap, or -1.
__device__ __forceinline__ int window_of(int at, int stride, int len) {
    if (at < 0) return -1;
    if (stride != 1) {
        const int window = at / stride;
        if (window * stride != at) return -1;
        at = window;
    }
    return at < len ? at : -1;
}

template <class T, int V>
__device__ __forceinline__ void col2im(const T* cols, T* dx, int n, int h, int w, int c, int c0, int cg, int oh, int ow,
                                       int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw, int add) {
    const i64 items = (i64)n * h * w * (cg / V);
    const i64 row_len = (i64)kh * kw * cg;
    for (i64 item = first_item(); item < items; item += item_stride()) {
        i64 image = item;
        const int channel = (int)split(image, cg / V) * V;
        const int ix = (int)split(image, w), iy = (int)split(image, h);
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = 0.0f;
        for (int ky = 0; ky < kh; ky++) {
            const int oy = window_of(iy + ph - ky * dh, sh, oh);
            if (oy < 0) continue;
            for (int kx = 0; kx < kw; kx++) {
                const int ox = window_of(ix + pw - kx * dw, sw, ow);
                if (ox < 0) continue;
                float v[V];
                load<V>(cols + ((image * oh + oy) * ow + ox) * row_len + (i64)(ky * kw + kx) * cg + channel, v);
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += v[i];
            }
        }
        T* out = dx + ((image * h + iy) * w + ix) * c + c0 + channel;
        if (add) {
            float v[V];
            load<V>(out, v);
#pragma unroll
            for (int i = 0; i < V; i++) sum[i] += v[i];
        }
        store<V>(out, sum);
    }
}

// The transpose of im2col: each pixel adds up the columns it went to, taps in order. Twin: cpu/columns.rs `col2im`.
// Bytes: n oh ow kh kw cg sizeof(T) + n h w cg sizeof(T), twice the latter with `add`; FLOPs: n oh ow kh kw cg.
#define COL2IM(NAME, T, V)                                                                                            \
    KERNEL NAME(const T* cols, T* dx, int n, int h, int w, int c, int c0, int cg, int oh, int ow, int kh, int kw,    \
                int sh, int sw, int ph, int pw, int dh, int dw, int add) {                                            \
        col2im<T, V>(cols, dx, n, h, w, c, c0, cg, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, add);                      \
    }
COL2IM(col2im_f32_1, float, 1)
COL2IM(col2im_f32_4, float, 4)
COL2IM(col2im_bf16_1, bf16, 1)
COL2IM(col2im_bf16_8, bf16, 8)
