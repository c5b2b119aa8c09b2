// Threads: a team runs one body, with IEEE arithmetic in force and exceptions carried out.
#pragma once
#include <omp.h>

#include <atomic>
#include <exception>
#include <mutex>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace vqtok {

// Round to nearest and keep subnormals while in scope. Callers may have asked the CPU to flush them
// (torch.set_flush_denormal), which would break the error bounds that exactness rests on.
class IeeeArithmetic {
 public:
#if defined(__SSE2__)
  IeeeArithmetic() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~IeeeArithmetic() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  IeeeArithmetic() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(0ul));
  }
  ~IeeeArithmetic() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  unsigned long saved_;
#endif
};

// Whether this process began as a fork of one that had loaded this. The OpenMP runtime then believes
// in threads that only the parent has, and waits for them for ever.
bool in_forked_child();

// Runs body(member, members) on up to `threads` threads; on one in a forked child. One thread never
// touches the OpenMP runtime.
template <class Body> void run_team(int threads, Body&& body) {
  std::exception_ptr failure;
  std::mutex failure_lock;
  auto member = [&](int index, int count) {
    IeeeArithmetic ieee;
    try {
      body(index, count);
    } catch (...) {
      std::lock_guard<std::mutex> hold(failure_lock);
      failure = std::current_exception();
    }
  };
  if (threads <= 1 || in_forked_child()) {
    member(0, 1);
  } else {
#pragma omp parallel num_threads(threads)
    member(omp_get_thread_num(), omp_get_num_threads());
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace vqtok
