// What CUDA kernels and their hosts call, over the emulator.
#pragma once
#include <math.h>
#include <string.h>

#include "tests/cuda_emulator.h"

#define __global__ static
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define threadIdx (dim3(emulated_cuda::block.current->index))
#define blockIdx (emulated_cuda::block.index)
#define blockDim (emulated_cuda::block.size)
#define gridDim (emulated_cuda::block.grid)
#define __syncthreads() emulated_cuda::barrier(__LINE__)
#define VQTOK_LAUNCH(kernel, grid, block_size, shared_bytes, stream, ...)                    \
  emulated_cuda::launch((grid), (block_size), (shared_bytes), [=] { kernel(__VA_ARGS__); }), \
      (void)(stream)
#define VQTOK_DYNAMIC_SHARED(name) float* name = reinterpret_cast<float*>(emulated_cuda::block.shared)

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };

namespace emulated_cuda {

template <class To, class From> To bits_of(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// How far a tensor-core operation is off, up or down, as a share of its largest term.
inline double tensor_error = 0;
inline int multiprocessors = 2;

template <class T> T shuffle(T value, unsigned from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint32_t words[2] = {};
  memcpy(words, &value, sizeof value);
  exchange(words, sizeof(T) / 4, [&](auto&& shown) { memcpy(&value, shown(from), sizeof value); });
  return value;
}

inline unsigned lane() { return block.current->index % kWarpSize; }

}  // namespace emulated_cuda

// --- Warps -----------------------------------------------------------------------------------------

template <class T> T __shfl_xor_sync(unsigned, T value, int lane_mask) {
  return emulated_cuda::shuffle(value, emulated_cuda::lane() ^ static_cast<unsigned>(lane_mask));
}
template <class T> T __shfl_sync(unsigned, T value, int from) {
  return emulated_cuda::shuffle(value, static_cast<unsigned>(from));
}
inline unsigned __match_any_sync(unsigned, int value) {
  const uint32_t word = static_cast<uint32_t>(value);
  unsigned equal = 0;
  emulated_cuda::exchange(&word, 1, [&](auto&& shown) {
    for (unsigned i = 0; i < 32; ++i) equal |= (shown(i)[0] == word ? 1u : 0u) << i;
  });
  return equal;
}
inline void __syncwarp() { __match_any_sync(0, 0); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

// --- Atomics ---------------------------------------------------------------------------------------

template <class T, class Change> T emulated_atomic(T* address, Change change) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  __atomic_store_n(address, change(old), __ATOMIC_RELAXED);
  return old;
}
template <class T> T atomicAdd(T* address, T value) {
  return emulated_atomic(address, [&](T old) { return static_cast<T>(old + value); });
}
template <class T> T atomicMin(T* address, T value) {
  return emulated_atomic(address, [&](T old) { return std::min(old, value); });
}
template <class T> T atomicMax(T* address, T value) {
  return emulated_atomic(address, [&](T old) { return std::max(old, value); });
}

// --- Arithmetic ------------------------------------------------------------------------------------

inline unsigned __float_as_uint(float v) { return emulated_cuda::bits_of<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return emulated_cuda::bits_of<float>(v); }
inline long long __double_as_longlong(double v) { return emulated_cuda::bits_of<long long>(v); }
inline double __longlong_as_double(long long v) { return emulated_cuda::bits_of<double>(v); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }

// --- What cuda/platform.h writes in assembly -------------------------------------------------------

inline uint32_t to_tf32(float v) { return (__float_as_uint(v) + 0x1000u) & 0xffffe000u; }

// The layout of fragments is that of the PTX ISA, written down a second time: an error in both
// would go unseen.
inline void multiply_tf32(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const uint32_t words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const unsigned lane = emulated_cuda::lane(), group = lane / 4, member = lane % 4;
  emulated_cuda::exchange(words, 6, [&](auto&& shown) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned low_row = i / 2, column = member * 2 + i % 2;
      double sum = sums[i], largest = fabs(sum);
      for (unsigned k = 0; k < 8; ++k) {
        const double x = __uint_as_float(shown(group * 4 + k % 4)[low_row + k / 4 * 2]);
        const double y = __uint_as_float(shown(column * 4 + k % 4)[4 + k / 4]);
        sum += x * y;
        largest = fmax(largest, fabs(x * y));
      }
      if (emulated_cuda::tensor_error > 0) {
        static thread_local std::minstd_rand random;
        const double error = emulated_cuda::tensor_error * largest;
        sum += random() / 1000 % 2 ? error : -error;
      }
      sums[i] = static_cast<float>(sum);
    }
  });
}

// Starts a copy of `bytes` (16 or fewer, then zeros up to 16) to shared memory.
inline void start_copy(float* to, const float* from, unsigned bytes) {
  auto* self = emulated_cuda::block.current;
  if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16)
    emulated_cuda::fail("an asynchronous copy needs addresses that are multiples of 16");
  // until it is complete; one by one, since a memset compiled to a store escapes the thread sanitizer
  for (int i = 0; i < 4; ++i) to[i] = NAN;
  fibers::Unobserved unobserved;
  self->copies.push_back({to, from, bytes, 16 - bytes, self->copy_groups});
}
inline void commit_copies() { ++emulated_cuda::block.current->copy_groups; }

// Waits for all but the last kPending groups of copies of this thread.
template <int kPending> void wait_for_copies() {
  auto* self = emulated_cuda::block.current;
  auto complete = [&](const emulated_cuda::Copy& copy) {
    if (copy.group + kPending >= self->copy_groups) return false;
    memcpy(copy.to, copy.from, copy.bytes);
    memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.zeros);
    return true;
  };
  auto& copies = self->copies;
  copies.erase(std::remove_if(copies.begin(), copies.end(), complete), copies.end());
}

// --- The host --------------------------------------------------------------------------------------

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
enum { cudaDevAttrMultiProcessorCount, cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
  *value = emulated_cuda::multiprocessors;
  return cudaSuccess;
}
template <class Kernel> cudaError_t cudaFuncSetAttribute(Kernel, int, int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t) {
  memset(address, value, bytes);
  return cudaSuccess;
}
