// What all kernels share: types, 16-byte vectors, indices, reductions within a block.
//
// Nothing is included: nvcc brings the mathematics itself, and the emulator of tests/gpu puts its own in front.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// How every kernel begins; the emulator's build script finds kernels by it. No kernel is started with larger blocks, and four
// of them fit on a multiprocessor: without that number ptxas aims for more and spills.
#define KERNEL extern "C" __global__ void __launch_bounds__(256, 4)

// ---- Numbers ----

// A float's upper 16 bits.
struct bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// Rounds to the nearest bf16, ties to even; NaN stays NaN. The result is in the lower 16 bits.
__device__ __forceinline__ u32 bf16_bits(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
#endif
}

// Two at once: `low` into the lower half.
__device__ __forceinline__ u32 bf16_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return bf16_bits(low) | bf16_bits(high) << 16;
#endif
}

__device__ __forceinline__ void set(float& to, float x) { to = x; }
__device__ __forceinline__ void set(bf16& to, float x) { to.bits = (unsigned short)bf16_bits(x); }

__device__ __forceinline__ bool is_nan(float x) { return x != x; }
__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }
__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fffffffu); }

// max(x, 0) that lets NaN through, as a broken activation should be seen, not hidden.
__device__ __forceinline__ float positive(float x) { return x < 0.0f ? 0.0f : x; }

// ---- Vectors: V elements by loads and stores of 16 bytes, or one element ----

struct alignas(16) Words {
    u32 word[4];
};

template <int V>
__device__ __forceinline__ void load(const float* p, float (&v)[V]) {
    if constexpr (V % 4 == 0) {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            const Words words = *reinterpret_cast<const Words*>(p + i);
#pragma unroll
            for (int j = 0; j < 4; j++) v[i + j] = __uint_as_float(words.word[j]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = p[i];
    }
}

template <int V>
__device__ __forceinline__ void load(const bf16* p, float (&v)[V]) {
    if constexpr (V % 8 == 0) {
#pragma unroll
        for (int i = 0; i < V; i += 8) {
            const Words words = *reinterpret_cast<const Words*>(p + i);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                v[i + 2 * j] = __uint_as_float(words.word[j] << 16);
                v[i + 2 * j + 1] = __uint_as_float(words.word[j] & 0xffff0000u);
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = to_float(p[i]);
    }
}

template <int V>
__device__ __forceinline__ void load(const u32* p, u32 (&v)[V]) {
    if constexpr (V % 4 == 0) {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            const Words words = *reinterpret_cast<const Words*>(p + i);
#pragma unroll
            for (int j = 0; j < 4; j++) v[i + j] = words.word[j];
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = p[i];
    }
}

template <int V>
__device__ __forceinline__ void store(float* p, const float (&v)[V]) {
    if constexpr (V % 4 == 0) {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            Words words;
#pragma unroll
            for (int j = 0; j < 4; j++) words.word[j] = __float_as_uint(v[i + j]);
            *reinterpret_cast<Words*>(p + i) = words;
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) p[i] = v[i];
    }
}

template <int V>
__device__ __forceinline__ void store(bf16* p, const float (&v)[V]) {
    if constexpr (V % 8 == 0) {
#pragma unroll
        for (int i = 0; i < V; i += 8) {
            Words words;
#pragma unroll
            for (int j = 0; j < 4; j++) words.word[j] = bf16_pair(v[i + 2 * j], v[i + 2 * j + 1]);
            *reinterpret_cast<Words*>(p + i) = words;
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) set(p[i], v[i]);
    }
}

template <int V>
__device__ __forceinline__ void store(u32* p, const u32 (&v)[V]) {
    if constexpr (V % 4 == 0) {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            Words words;
#pragma unroll
            for (int j = 0; j < 4; j++) words.word[j] = v[i + j];
            *reinterpret_cast<Words*>(p + i) = words;
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) p[i] = v[i];
    }
}

// Elements of 16 bytes.
template <class T>
struct Wide {
    static constexpr int of = 16 / (int)sizeof(T);
};

// Whether 16-byte accesses may begin at all of these.
__device__ __forceinline__ bool aligned(const void* p) { return ((u64)p & 15) == 0; }
template <class... Rest>
__device__ __forceinline__ bool aligned(const void* p, Rest... rest) {
    return aligned(p) && aligned(rest...);
}

// ---- Indices ----

// First work item of this thread and distance to its next, in a one-dimensional grid.
__device__ __forceinline__ i64 first_item() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ i64 item_stride() { return (i64)gridDim.x * blockDim.x; }

// Divides `at` by `by` in place and returns the remainder; both are not negative. 32-bit division costs a fraction of 64-bit.
__device__ __forceinline__ i64 split(i64& at, i64 by) {
    const i64 whole = at;
    if ((((u64)at | (u64)by) >> 32) == 0) {
        at = (i64)((u32)whole / (u32)by);
    } else {
        at = whole / by;
    }
    return whole - at * by;
}

// Where element `at` of rows of `width` channels lies, when every `group` elements have coefficients of their own. Divides
// only to begin with; each step adds.
struct Coefficients {
    i64 in_group, group, group_step, in_group_step, groups_done;
    int channel, width, channel_step;

    __device__ __forceinline__ Coefficients(i64 at, i64 step, int width, i64 group, i64 n)
        : in_group(at), group(group), group_step(0), in_group_step(step), groups_done(0), width(width) {
        i64 rows = at;
        channel = (int)split(rows, width);
        rows = step;
        channel_step = (int)split(rows, width);
        if (group < n) {
            groups_done = at;
            in_group = split(groups_done, group);
            group_step = step;
            in_group_step = split(group_step, group);
        }
    }
    // Index of the coefficient.
    __device__ __forceinline__ i64 index() const { return groups_done * width + channel; }
    __device__ __forceinline__ void next() {
        channel += channel_step;
        if (channel >= width) channel -= width;
        groups_done += group_step;
        in_group += in_group_step;
        if (in_group >= group) {
            in_group -= group;
            groups_done++;
        }
    }
};

// ---- Reductions ----

constexpr int WARP = 32;
constexpr int BLOCK = 256;
constexpr int WARPS = BLOCK / WARP;

// Sums `v` over a block of 256 threads, in the same order every time; every thread gets the results. All threads call it.
template <int N>
__device__ __forceinline__ void block_sums(double (&v)[N]) {
    __shared__ double warps[WARPS][N];
#pragma unroll
    for (int i = 0; i < N; i++) {
#pragma unroll
        for (int lanes = WARP / 2; lanes > 0; lanes /= 2) v[i] += __shfl_xor_sync(0xffffffffu, v[i], lanes);
    }
    // The results of an earlier call have been read by all.
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
#pragma unroll
        for (int i = 0; i < N; i++) warps[threadIdx.x / WARP][i] = v[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = 0.0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) v[i] += warps[w][i];
    }
}

__device__ __forceinline__ double block_sum(double v) {
    double sums[1] = {v};
    block_sums(sums);
    return sums[0];
}
