// Threads of execution that take turns on one CPU thread, known to the address and the thread
// sanitizer: the ground that the CUDA emulator stands on.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

#if defined(__x86_64__)
extern "C" void vqtok_switch_stack(void** from, void* to);
asm(R"(
.pushsection .text
vqtok_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.popsection
)");
#endif

namespace fibers {

constexpr size_t kStackBytes = 64 << 10;

// Hides from the thread sanitizer what the emulator itself reads and writes while in scope.
struct Unobserved {
#if defined(__SANITIZE_THREAD__)
  Unobserved() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Unobserved() { AnnotateIgnoreWritesEnd("", 0), AnnotateIgnoreReadsEnd("", 0); }
#else
  Unobserved() {}
  ~Unobserved() {}
#endif
};

// What was done before release(token) is seen by whoever calls acquire(token) after it.
inline void release(void* token) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(token);
#else
  (void)token;
#endif
}

inline void acquire(void* token) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(token);
#else
  (void)token;
#endif
}

// One stack. The default-constructed one is that of whoever resumes fibers.
class Stack {
 public:
  Stack() = default;
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  ~Stack() { free(memory_); }

  // The next switch here calls entry(), which must never return.
  void prepare(void (*entry)()) {
    if (!memory_) memory_ = static_cast<char*>(aligned_alloc(64, kStackBytes));
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory_, kStackBytes);  // what never returned left its marks
#endif
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(memory_ + kStackBytes);
    *--top = nullptr;  // where entry() would return to
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    top_ = top;
#else
    getcontext(&context_);
    context_.uc_stack = {memory_, 0, kStackBytes};
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#endif
#if defined(__SANITIZE_THREAD__)
    if (!thread_) thread_ = __tsan_create_fiber(0);
#endif
  }

  // Goes on with `to`, until something switches back; `last` if nothing will. The stack that is
  // left must be the current one.
  void switch_to(Stack& to, bool last = false) {
#if defined(__SANITIZE_THREAD__)
    if (!thread_) thread_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to.thread_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    to.previous_ = this;
    __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack, to.bottom(), to.bytes());
#else
    (void)last;
#endif
#if defined(__x86_64__)
    vqtok_switch_stack(&top_, to.top_);
#else
    swapcontext(&context_, &to.context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    arrived(fake_stack);
#endif
  }

  // To be called first on a new stack.
  void arrived([[maybe_unused]] void* fake_stack = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &bytes);
    if (!previous_->memory_) previous_->own_bottom_ = bottom, previous_->own_bytes_ = bytes;
#endif
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom() const { return memory_ ? memory_ : own_bottom_; }
  size_t bytes() const { return memory_ ? kStackBytes : own_bytes_; }
  Stack* previous_ = nullptr;          // from where this one was switched to
  const void* own_bottom_ = nullptr;   // of the default-constructed one, told by the sanitizer
  size_t own_bytes_ = 0;
#endif
#if defined(__SANITIZE_THREAD__)
  void* thread_ = nullptr;
#endif
#if defined(__x86_64__)
  void* top_ = nullptr;
#else
  ucontext_t context_{};
#endif
  char* memory_ = nullptr;
};

}  // namespace fibers
