// Runs CUDA kernels on the CPU, for tests: every CUDA thread is a fiber, and one block runs at a
// time. Barriers and warp shuffles that not all threads reach abort with a message. The order in
// which threads run between barriers follows emulated_cuda::seed, so that a missing barrier shows
// as a result that changes. There is no memory model and no timing.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulated_cuda {

inline unsigned seed = 0;  // 0 runs threads in order, 1 in reverse, others shuffled

constexpr unsigned kWarpSize = 32;
constexpr unsigned kMaxThreads = 256;  // in a block
constexpr size_t kStackBytes = 64 << 10;

enum class State { ready, at_barrier, at_shuffle, done };

struct Fiber {
  unsigned index;
  State state = State::ready;
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  uint64_t shown[2] = {};  // to its warp; two, so that the next shuffle spares the last one's
  unsigned shuffles = 0;
  void* sanitizer_stack = nullptr;
};

struct Block {
  dim3 index, size, grid;
  std::vector<Fiber>& fibers;
  const std::function<void()>* kernel;
  ucontext_t scheduler{};
  Fiber* current = nullptr;
  const void* scheduler_stack = nullptr;  // for the address sanitizer
  size_t scheduler_stack_size = 0;
};

inline Block* block = nullptr;

[[noreturn]] inline void fail(const char* message) {
  fprintf(stderr, "emulated CUDA: block %u: %s\n", block->index.x, message);
  abort();
}

// The address sanitizer has to know which stack is in use.
inline void announce_switch(void** save, const void* stack, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, stack, size);
#else
  (void)save, (void)stack, (void)size;
#endif
}

inline void finish_switch(void* saved, const void** old_stack, size_t* old_size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(saved, old_stack, old_size);
#else
  (void)saved, (void)old_stack, (void)old_size;
#endif
}

// Gives up the CPU until the scheduler finds that everyone concerned is in the same state.
inline void pause(State state) {
  Fiber* self = block->current;
  self->state = state;
  announce_switch(state == State::done ? nullptr : &self->sanitizer_stack, block->scheduler_stack,
                  block->scheduler_stack_size);
  swapcontext(&self->context, &block->scheduler);
  finish_switch(self->sanitizer_stack, nullptr, nullptr);
}

inline void fiber_main() {
  finish_switch(nullptr, &block->scheduler_stack, &block->scheduler_stack_size);
  (*block->kernel)();
  pause(State::done);
}

inline void resume(Fiber& fiber) {
  block->current = &fiber;
  void* saved = nullptr;
  announce_switch(&saved, fiber.stack.get(), kStackBytes);
  swapcontext(&block->scheduler, &fiber.context);
  finish_switch(saved, nullptr, nullptr);
}

// Readies the fibers [first, last) if all of them wait in `state`; threads that have returned count
// as arrived only where `done_counts`.
inline bool release(unsigned first, unsigned last, State state, bool done_counts) {
  bool any = false;
  for (unsigned i = first; i < last; ++i) {
    const State s = block->fibers[i].state;
    if (s != state && !(done_counts && s == State::done)) return false;
    any = any || s == state;
  }
  for (unsigned i = first; any && i < last; ++i)
    if (block->fibers[i].state == state) block->fibers[i].state = State::ready;
  return any;
}

inline void run_block() {
  const unsigned threads = block->size.x;
  std::vector<unsigned> order(threads);
  std::iota(order.begin(), order.end(), 0u);
  if (seed == 1) std::reverse(order.begin(), order.end());
  if (seed > 1) std::shuffle(order.begin(), order.end(), std::mt19937(seed + block->index.x));
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = block->fibers[i];
    fiber.index = i;
    fiber.state = State::ready;
    fiber.shuffles = 0;
    getcontext(&fiber.context);
    fiber.context.uc_stack = {fiber.stack.get(), 0, kStackBytes};
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  for (unsigned done = 0; done < threads;) {
    bool progress = false;
    for (unsigned i : order)
      if (block->fibers[i].state == State::ready) {
        resume(block->fibers[i]);
        done += block->fibers[i].state == State::done;
        progress = true;
      }
    for (unsigned i = 0; i < threads; i += kWarpSize)
      progress |= release(i, std::min(threads, i + kWarpSize), State::at_shuffle, false);
    progress |= release(0, threads, State::at_barrier, true);
    if (!progress) fail("some threads wait at a barrier or shuffle that others never reach");
  }
}

template <class Kernel> void launch(dim3 grid, dim3 size, Kernel&& kernel) {
  const std::function<void()> body = kernel;
  static std::vector<Fiber> fibers(kMaxThreads);
  if (size.x > kMaxThreads) abort();
  Block state{{}, size, grid, fibers, &body};
  block = &state;
  for (unsigned b = 0; b < grid.x; ++b) {
    state.index = dim3(b, 0, 0);
    run_block();
  }
  block = nullptr;
}

template <class T> T shuffle_xor(T value, int lane_mask) {
  static_assert(sizeof(T) <= 8, "one 64-bit word is exchanged");
  Fiber* self = block->current;
  const unsigned slot = self->shuffles++ % 2;
  memcpy(&self->shown[slot], &value, sizeof value);
  pause(State::at_shuffle);
  T other;
  memcpy(&other, &block->fibers[self->index ^ static_cast<unsigned>(lane_mask)].shown[slot],
         sizeof other);
  return other;
}

struct ThreadIndex { unsigned x; };

}  // namespace emulated_cuda

#define __global__ static
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define threadIdx (emulated_cuda::ThreadIndex{emulated_cuda::block->current->index})
#define blockIdx (emulated_cuda::block->index)
#define blockDim (emulated_cuda::block->size)
#define gridDim (emulated_cuda::block->grid)
#define VQTOK_LAUNCH(kernel, grid, block_size, stream, ...) \
  emulated_cuda::launch((grid), (block_size), [=] { kernel(__VA_ARGS__); }), (void)(stream)

inline void __syncthreads() { emulated_cuda::pause(emulated_cuda::State::at_barrier); }
template <class T> T __shfl_xor_sync(unsigned, T value, int lane_mask) {
  return emulated_cuda::shuffle_xor(value, lane_mask);
}
template <class T> T atomicAdd(T* address, T value) {
  const T old = *address;
  *address += value;
  return old;
}
template <class T> T atomicMin(T* address, T value) {
  const T old = *address;
  *address = std::min(old, value);
  return old;
}
template <class T> T atomicMax(T* address, T value) {
  const T old = *address;
  *address = std::max(old, value);
  return old;
}
inline long long __double_as_longlong(double v) {
  long long bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double v;
  memcpy(&v, &bits, sizeof v);
  return v;
}
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t) {
  memset(address, value, bytes);
  return cudaSuccess;
}
