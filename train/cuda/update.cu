// Norm of all gradients and updates of all parameters, a few launches each: the y axis of the grid runs over tensors.
#include "device.cuh"

// One parameter tensor and the numbers of its step, as the host writes them.
struct Item {
    float* p;
    const float* g;
    float* m;
    float* v;
    float* top;
    i64 n;
    float rate;
    float inv_sqrt_correction;
    float decay;
    float keep;
};
static_assert(sizeof(Item) == 64, "the host writes items of 64 bytes");

// Runs `part<V>(begin, end)` so that it covers [0, n): 4 elements at a time where that is allowed, the rest one by one.
template <class Part>
__device__ __forceinline__ void by_fours(i64 n, bool allowed, const Part& part) {
    const i64 whole = allowed ? n / 4 * 4 : 0;
    part.template run<4>(0, whole);
    part.template run<1>(whole, n);
}

struct SquaresPart {
    const float* g;
    double& sum;

    template <int V>
    __device__ __forceinline__ void run(i64 begin, i64 end) const {
#pragma unroll 2
        for (i64 at = begin + first_item() * V; at < end; at += item_stride() * V) {
            float v[V];
            load<V>(g + at, v);
#pragma unroll
            for (int i = 0; i < V; i++) sum += (double)v[i] * (double)v[i];
        }
    }
};

// Sum of squares of each block's share of each gradient. Twin: cpu/update.rs `sum_of_squares`. Bytes: 4 n; FLOPs: 2 n.
KERNEL sums_of_squares(const Item* items, double* part) {
    const Item item = items[blockIdx.y];
    double sum = 0.0;
    by_fours(item.n, aligned(item.g), SquaresPart{item.g, sum});
    sum = block_sum(sum);
    if (threadIdx.x == 0) part[(i64)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// Adds the blocks' shares of each item in order. Bytes: 8 items (blocks + 1); FLOPs: items blocks.
KERNEL sums_of_squares_end(const double* part, int blocks, double* sums, int items) {
    for (i64 item = first_item(); item < items; item += item_stride()) {
        double sum = 0.0;
#pragma unroll 8
        for (int i = 0; i < blocks; i++) sum += part[item * blocks + i];
        sums[item] = sum;
    }
}

// Factor on all gradients that limits their norm, NaN if that is not finite. One thread. Twin: optim.rs. Bytes: 8 items.
KERNEL clip_scale(const double* sums, int items, double limit, float* control) {
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    double total = 0.0;
#pragma unroll 8
    for (int i = 0; i < items; i++) total += sums[i];
    total = sqrt(total);
    float scale = 1.0f;
    if (!(total <= 1.7976931348623157e308)) {
        scale = not_a_number();
    } else if (limit > 0.0) {
        const double share = limit / (total + 1e-6);
        scale = (float)(share < 1.0 ? share : 1.0);
    }
    control[0] = scale;
}

struct AdamPart {
    const Item& item;
    float scale, beta1, beta2, eps;
    bool amsgrad;

    template <int V>
    __device__ __forceinline__ void run(i64 begin, i64 end) const {
        const float keep1 = 1.0f - beta1, keep2 = 1.0f - beta2;
        for (i64 at = begin + first_item() * V; at < end; at += item_stride() * V) {
            float p[V], g[V], m[V], v[V], top[V];
            load<V>(item.p + at, p);
            load<V>(item.g + at, g);
            load<V>(item.m + at, m);
            load<V>(item.v + at, v);
            if (amsgrad) load<V>(item.top + at, top);
#pragma unroll
            for (int i = 0; i < V; i++) {
                g[i] = scale * g[i] + item.decay * p[i];
                m[i] = beta1 * m[i] + keep1 * g[i];
                v[i] = beta2 * v[i] + keep2 * g[i] * g[i];
                if (amsgrad) {
                    top[i] = v[i] > top[i] ? v[i] : top[i];
                } else {
                    top[i] = v[i];
                }
                p[i] = item.keep * p[i] - item.rate * m[i] / (sqrtf(top[i]) * item.inv_sqrt_correction + eps);
            }
            store<V>(item.p + at, p);
            store<V>(item.m + at, m);
            store<V>(item.v + at, v);
            if (amsgrad) store<V>(item.top + at, top);
        }
    }
};

// One Adam step of every parameter; nothing if the gradients' norm was not finite. With `amsgrad` the largest second moment so
// far takes the second moment's place. Twins: cpu/update.rs `adam_part`, `amsgrad_part`. Bytes: 28 n, amsgrad 36 n; FLOPs: 15 n.
KERNEL adam(const Item* items, const float* control, float beta1, float beta2, float eps, int amsgrad) {
    const float scale = control[0];
    if (is_nan(scale)) return;
    const Item item = items[blockIdx.y];
    const bool wide = aligned(item.p, item.g, item.m, item.v) && (!amsgrad || aligned(item.top));
    by_fours(item.n, wide, AdamPart{item, scale, beta1, beta2, eps, amsgrad != 0});
}

struct SgdPart {
    const Item& item;
    float scale, momentum;
    bool nesterov;

    template <int V>
    __device__ __forceinline__ void run(i64 begin, i64 end) const {
        for (i64 at = begin + first_item() * V; at < end; at += item_stride() * V) {
            float p[V], g[V], v[V];
            load<V>(item.p + at, p);
            load<V>(item.g + at, g);
            load<V>(item.m + at, v);
#pragma unroll
            for (int i = 0; i < V; i++) {
                g[i] = scale * g[i] + item.decay * p[i];
                v[i] = momentum * v[i] + item.inv_sqrt_correction * g[i];
                p[i] -= item.rate * (nesterov ? g[i] + momentum * v[i] : v[i]);
            }
            store<V>(item.p + at, p);
            store<V>(item.m + at, v);
        }
    }
};

// One SGD step with momentum: the velocity is `m`, the gradient's share in it `inv_sqrt_correction`; nothing if the gradients'
// norm was not finite. Twin: cpu/update.rs `sgd_part`. Bytes: 20 n; FLOPs: 8 n.
KERNEL sgd(const Item* items, const float* control, float momentum, int nesterov) {
    const float scale = control[0];
    if (is_nan(scale)) return;
    const Item item = items[blockIdx.y];
    by_fours(item.n, aligned(item.p, item.g, item.m), SgdPart{item, scale, momentum, nesterov != 0});
}

struct EmaPart {
    const Item& item;
    float alpha;

    template <int V>
    __device__ __forceinline__ void run(i64 begin, i64 end) const {
        const float beta = 1.0f - alpha;
        for (i64 at = begin + first_item() * V; at < end; at += item_stride() * V) {
            float p[V], g[V];
            load<V>(item.p + at, p);
            load<V>(item.g + at, g);
#pragma unroll
            for (int i = 0; i < V; i++) p[i] = alpha * p[i] + beta * g[i];
            store<V>(item.p + at, p);
        }
    }
};

// p = alpha p + (1 - alpha) g. Twin: cpu/update.rs `ema_part`. Bytes: 12 n; FLOPs: 3 n.
KERNEL ema(const Item* items, float alpha) {
    const Item item = items[blockIdx.y];
    by_fours(item.n, aligned(item.p, item.g), EmaPart{item, alpha});
}
