// Kernels with mistakes that the emulator has to find.
#include "device.cuh"

// Only some threads reach the barrier, while the others end.
KERNEL fault_ended(int* out) {
    if (threadIdx.x < 40) __syncthreads();
    out[threadIdx.x] = 1;
}

// Threads wait at different barriers.
KERNEL fault_divergent(int* out) {
    if (threadIdx.x % 2 == 0) {
        __syncthreads();
        out[threadIdx.x] = 1;
    } else {
        __syncthreads();
        out[threadIdx.x] = 2;
    }
}

// A shuffle that half of a warp does not join.
KERNEL fault_half_warp(int* out) {
    int v = (int)threadIdx.x;
    if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);
    __syncthreads();
    out[threadIdx.x] = v;
}

// Reads what other threads write without waiting for them.
KERNEL fault_race(int* out) {
    __shared__ int shared[BLOCK];
    shared[threadIdx.x] = (int)(threadIdx.x + blockIdx.x * blockDim.x);
    out[first_item()] = shared[blockDim.x - 1 - threadIdx.x];
}

// 16 bytes from wherever `x` points.
KERNEL fault_misaligned(const float* x, float* out) {
    float v[4];
    load<4>(x, v);
    store<4>(out, v);
}

// Beyond shared memory.
KERNEL fault_bounds(int* out) {
    __shared__ int shared[8];
    shared[threadIdx.x] = 1;
    out[threadIdx.x] = shared[threadIdx.x];
}
