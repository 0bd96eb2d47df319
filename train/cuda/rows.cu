// Normalisation of rows, each over its own values. A block of 256 takes a row; sums are in double and in a fixed order.
#include "device.cuh"

// Rows normalised to mean 0 and variance 1 (biased), times w plus b. Two passes: the second finds the row in cache.
// Twin: cpu/rows.rs `layer_norm`. Bytes: 8 rows width + 8 rows; FLOPs: 8 rows width.
KERNEL layer_norm(const float* x, const float* w, const float* b, float* y, float* mean, float* inv_std, int width,
                  double eps) {
    const float* row = x + (i64)blockIdx.x * width;
    float* out = y + (i64)blockIdx.x * width;
    double sum = 0.0;
    for (int i = threadIdx.x; i < width; i += BLOCK) sum += (double)row[i];
    const double m = block_sum(sum) / (double)width;
    double squares = 0.0;
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        const double d = (double)row[i] - m;
        squares += d * d;
    }
    const double is = 1.0 / sqrt(block_sum(squares) / (double)width + eps);
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        float v = (float)(((double)row[i] - m) * is);
        if (w) v *= w[i];
        if (b) v += b[i];
        out[i] = v;
    }
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = (float)m;
        inv_std[blockIdx.x] = (float)is;
    }
}

// With g = dy w and h the normalised row: dx = (g - mean(g) - h mean(g h)) / std.
// Twin: cpu/rows.rs `layer_norm_backward`. Bytes: 12 rows width + 8 rows; FLOPs: 12 rows width.
KERNEL layer_norm_backward(const float* x, const float* w, const float* dy, const float* mean, const float* inv_std,
                           float* dx, int width) {
    const i64 at = (i64)blockIdx.x * width;
    const double m = (double)mean[blockIdx.x], is = (double)inv_std[blockIdx.x];
    double sums[2] = {0.0, 0.0};
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        const double g = (double)dy[at + i] * (w ? (double)w[i] : 1.0);
        sums[0] += g;
        sums[1] += g * (((double)x[at + i] - m) * is);
    }
    block_sums(sums);
    const double g_mean = sums[0] / (double)width, along = sums[1] / (double)width;
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        const double g = (double)dy[at + i] * (w ? (double)w[i] : 1.0);
        const double h = ((double)x[at + i] - m) * is;
        dx[at + i] = (float)(is * (g - g_mean - h * along));
    }
}

// Gradients of weight and bias: dw = sum of dy h, db = sum of dy, rows in order, a thread per column.
// Twin: cpu/rows.rs `layer_norm_backward`. Bytes: 8 rows width + 8 rows; FLOPs: 5 rows width.
KERNEL layer_norm_params(const float* x, const float* dy, const float* mean, const float* inv_std, float* dw, float* db,
                         int rows, int width) {
    for (i64 c = first_item(); c < width; c += item_stride()) {
        double w = 0.0, b = 0.0;
#pragma unroll 8
        for (int r = 0; r < rows; r++) {
            const double g = (double)dy[(i64)r * width + c];
            w += g * (((double)x[(i64)r * width + c] - (double)mean[r]) * (double)inv_std[r]);
            b += g;
        }
        dw[c] = (float)w;
        db[c] = (float)b;
    }
}

// x / max(|x|, eps). Twin: cpu/mod.rs `l2_normalize`. Bytes: 8 rows width; FLOPs: 3 rows width.
KERNEL l2_normalize(const float* x, float* y, int width, double eps) {
    const i64 at = (i64)blockIdx.x * width;
    double squares = 0.0;
    for (int i = threadIdx.x; i < width; i += BLOCK) squares += (double)x[at + i] * (double)x[at + i];
    const double norm = sqrt(block_sum(squares));
    const double inverse = 1.0 / (norm > eps ? norm : eps);
    for (int i = threadIdx.x; i < width; i += BLOCK) y[at + i] = (float)((double)x[at + i] * inverse);
}

// (dy - x (x dy) / |x|^2) / |x|; up to eps the divisor is constant and nothing is projected out; rows of norm 0 get 0.
// Twin: cpu/mod.rs `l2_normalize_backward`. Bytes: 12 rows width; FLOPs: 7 rows width.
KERNEL l2_normalize_backward(const float* x, const float* dy, float* dx, int width, double eps) {
    const i64 at = (i64)blockIdx.x * width;
    double sums[2] = {0.0, 0.0};
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        const double v = (double)x[at + i];
        sums[0] += v * v;
        sums[1] += v * (double)dy[at + i];
    }
    block_sums(sums);
    const double norm = sqrt(sums[0]);
    const double inverse = norm == 0.0 ? 0.0 : 1.0 / (norm > eps ? norm : eps);
    const double along = norm > eps ? sums[1] * inverse * inverse : 0.0;
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        const double d = ((double)dy[at + i] - (double)x[at + i] * along) * inverse;
        dx[at + i] = norm == 0.0 ? 0.0f : (float)d;
    }
}
