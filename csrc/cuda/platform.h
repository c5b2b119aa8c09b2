// The CUDA that kernels are written in: the real one, or its emulation on the CPU for tests.
#pragma once
#include <stdint.h>

#if defined(VQTOK_EMULATE_CUDA)
#include "tests/cuda_emulated_api.h"
#else
#include <cuda_runtime.h>

#define VQTOK_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

// Declares `float* name`, the shared memory whose size is given at the launch.
#define VQTOK_DYNAMIC_SHARED(name) \
  extern __shared__ __align__(16) unsigned char vqtok_shared_memory[]; \
  float* name = reinterpret_cast<float*>(vqtok_shared_memory)

// The nearest TF32 number: 10 bits of fraction.
__device__ __forceinline__ uint32_t to_tf32(float v) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
  return bits;
}

// sums += a b, for a warp: a is 16x8 and b 8x8 TF32 numbers, sums 16x8 (mma.m16n8k8 of the PTX ISA).
__device__ __forceinline__ void multiply_tf32(float (&sums)[4], const uint32_t (&a)[4],
                                              const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Starts a copy of `bytes` (16 or fewer, then zeros up to 16) to shared memory.
__device__ __forceinline__ void start_copy(float* to, const float* from, unsigned bytes) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all but the last kPending groups of copies of this thread.
template <int kPending> __device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
#endif
