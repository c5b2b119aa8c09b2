// Runs CUDA kernels on the CPU, for tests: every CUDA thread is a fiber, and one block runs at a
// time. This file schedules; cuda_emulated_api.h offers what kernels and their hosts call.
//
// What goes wrong becomes visible:
// - a missing barrier: the order of threads and blocks follows emulated_cuda::seed, so results
//   change with it, and the thread sanitizer sees CUDA threads as threads, ordered by barriers and
//   warp operations alone;
// - threads that wait at different places, or for threads that never come: an abort that says so;
// - an access out of bounds, shared memory included: the address sanitizer;
// - shared memory or an asynchronous copy read too early: it holds NaN until then.
// Blocks run one after another, memory is sequentially consistent, and nothing is timed.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "tests/fibers.h"

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulated_cuda {

inline unsigned seed = 0;  // 0 runs threads and blocks in order, 1 in reverse, others shuffled

constexpr unsigned kWarpSize = 32;
constexpr unsigned kMaxThreads = 1024;  // in a block
constexpr unsigned kMostWords = 8;      // shown to a warp at a time

enum class State { ready, at_barrier, at_warp, done };

// An asynchronous copy to shared memory that is still under way.
struct Copy {
  void* to;
  const void* from;
  unsigned bytes, zeros, group;
};

struct Fiber {
  fibers::Stack stack;
  unsigned index = 0;
  State state = State::done;
  int line = 0;  // of the barrier waited at
  unsigned barriers = 0, exchanges = 0;
  uint32_t shown[2][kMostWords] = {};  // to its warp; the next exchange spares the last one's
  std::vector<Copy> copies;
  unsigned copy_groups = 0;
};

struct Block {
  dim3 index, size, grid;
  const std::function<void()>* kernel;
  char* shared;  // dynamic shared memory
  Fiber* current;
  fibers::Stack scheduler;
  char barrier_tokens[2], warp_tokens[kMaxThreads / kWarpSize][2];
};

inline Block block;

// Kept for good: the thread sanitizer would take their end for a race.
inline std::vector<std::unique_ptr<Fiber>>& all_fibers() {
  static auto* fibers = new std::vector<std::unique_ptr<Fiber>>;
  return *fibers;
}

[[noreturn]] inline void fail(const char* message, int line = 0) {
  fprintf(stderr, "emulated CUDA: block %u, line %d: %s\n", block.index.x, line, message);
  abort();
}

// Gives up the CPU until the scheduler finds that everyone concerned is in the same state.
inline void pause(State state) {
  Fiber* self = block.current;
  {
    fibers::Unobserved unobserved;
    self->state = state;
  }
  self->stack.switch_to(block.scheduler, state == State::done);
}

inline void barrier(int line) {
  char* token;
  {
    fibers::Unobserved unobserved;
    Fiber* self = block.current;
    self->line = line;
    token = &block.barrier_tokens[self->barriers++ % 2];
  }
  fibers::release(token);
  {
    fibers::Unobserved unobserved;
    pause(State::at_barrier);
  }
  fibers::acquire(token);
}

// Shows up to kMostWords words to the warp, then calls use(lane -> its words).
template <class Use> void exchange(const uint32_t* words, unsigned count, Use&& use) {
  fibers::Unobserved unobserved;
  Fiber* self = block.current;
  const unsigned slot = self->exchanges++ % 2, first = self->index / kWarpSize * kWarpSize;
  for (unsigned i = 0; i < count; ++i) self->shown[slot][i] = words[i];
  char* token = &block.warp_tokens[self->index / kWarpSize][slot];
  fibers::release(token);
  pause(State::at_warp);
  fibers::acquire(token);
  use([&](unsigned lane) -> const uint32_t* { return all_fibers()[first + lane]->shown[slot]; });
}

inline void fiber_main() {
  Fiber* self = block.current;
  self->stack.arrived();
  fibers::acquire(&block);
  (*block.kernel)();
  if (!self->copies.empty()) fail("a thread returns before its copies are complete");
  fibers::release(block.shared);
  pause(State::done);
}

// Readies the fibers [first, last) if all of them wait in `state`; at a barrier, threads that have
// returned count as arrived.
inline bool release_waiting(unsigned first, unsigned last, State state) {
  auto& fibers = all_fibers();
  int line = -1;
  for (unsigned i = first; i < last; ++i) {
    const Fiber& fiber = *fibers[i];
    if (fiber.state == State::done && state == State::at_barrier) continue;
    if (fiber.state != state) return false;
    if (state != State::at_barrier) continue;
    if (line >= 0 && fiber.line != line) fail("threads wait at different barriers", line);
    line = fiber.line;
  }
  bool any = false;
  for (unsigned i = first; i < last; ++i)
    if (fibers[i]->state == state) {
      fibers[i]->state = State::ready;
      any = true;
    }
  return any;
}

inline std::vector<unsigned> shuffled(unsigned count, unsigned salt) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (seed == 1) std::reverse(order.begin(), order.end());
  if (seed > 1) std::shuffle(order.begin(), order.end(), std::mt19937(seed + salt));
  return order;
}

inline void run_block() {
  auto& fibers = all_fibers();
  const unsigned threads = block.size.x;
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  const std::vector<unsigned> order = shuffled(threads, block.index.x);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.index = i;
    fiber.state = State::ready;
    fiber.barriers = fiber.exchanges = fiber.copy_groups = 0;
    fiber.copies.clear();
    fiber.stack.prepare(fiber_main);
  }
  for (unsigned done = 0; done < threads;) {
    bool progress = false;
    for (unsigned i : order)
      if (fibers[i]->state == State::ready) {
        block.current = fibers[i].get();
        block.scheduler.switch_to(fibers[i]->stack);
        done += fibers[i]->state == State::done;
        progress = true;
      }
    for (unsigned i = 0; i < threads; i += kWarpSize)
      progress |= release_waiting(i, std::min(threads, i + kWarpSize), State::at_warp);
    progress |= release_waiting(0, threads, State::at_barrier);
    if (!progress) fail("some threads wait at a barrier or warp operation that others never reach");
  }
}

inline void launch(dim3 grid, dim3 size, size_t shared_bytes, std::function<void()> kernel) {
  fibers::Unobserved unobserved;
  if (size.x > kMaxThreads) fail("too many threads in a block");
  if (size.x == 0 || grid.x == 0 || grid.y == 0) fail("an empty launch");
  block.size = size;
  block.grid = grid;
  block.kernel = &kernel;
  for (unsigned b : shuffled(grid.x * grid.y, 77)) {
    block.index = dim3(b % grid.x, b / grid.x);
    // exactly as many bytes as asked for, NaN until written
    std::unique_ptr<char, void (*)(void*)> shared(
        static_cast<char*>(aligned_alloc(16, std::max<size_t>(shared_bytes, 16))), free);
    std::fill_n(shared.get(), shared_bytes, '\xff');
    block.shared = shared.get();
    fibers::release(&block);  // to every fiber
    run_block();
    fibers::acquire(block.shared);
  }
}

}  // namespace emulated_cuda
