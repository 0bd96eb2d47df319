// Put in front of the kernels' sources, so that a C++ compiler takes them: CUDA's keywords, indices, barriers and intrinsics.
#pragma once

#include <math.h>
#include <stddef.h>
#include <string.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
// A block runs on one thread of the operating system, one block at a time.
#define __shared__ static __thread

struct ReidIndex {
    unsigned x, y, z;
};
extern __thread ReidIndex threadIdx, blockIdx, blockDim, gridDim;

// Waits for the block, or for the warp while handing `value` round; `line` tells barriers apart.
extern "C" void reid_block_barrier(int line);
extern "C" unsigned long long reid_shuffle(unsigned mask, unsigned long long value, unsigned lane, int line);

#define __syncthreads() reid_block_barrier(__LINE__)
#define __syncwarp() ((void)reid_shuffle(0xffffffffu, 0, threadIdx.x % 32, __LINE__))
#define __shfl_xor_sync(mask, value, lanes) reid_exchange(mask, value, (threadIdx.x % 32) ^ (lanes), __LINE__)
#define __shfl_down_sync(mask, value, lanes) reid_exchange(mask, value, reid_below(lanes), __LINE__)

// The lane a shift reads: its own where that leaves the warp.
inline unsigned reid_below(unsigned lanes) {
    const unsigned lane = threadIdx.x % 32;
    return lane + lanes < 32 ? lane + lanes : lane;
}

template <class T>
inline T reid_exchange(unsigned mask, T value, unsigned lane, int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves up to 64 bits");
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = reid_shuffle(mask, bits, lane, line);
    memcpy(&value, &bits, sizeof(T));
    return value;
}

inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
template <class T>
inline T __ldg(const T* p) {
    return *p;
}
