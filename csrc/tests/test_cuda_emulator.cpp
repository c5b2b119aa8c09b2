// The harness that the CUDA kernels are proven with must itself see their typical mistakes: each
// kernel here has one, and running it must fail. Runs under the address sanitizer, and, for what
// that cannot see, under the thread sanitizer, together with a small case of each real kernel.
#define VQTOK_EMULATE_CUDA
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/ema.cu"
#include "cuda/nearest.cu"
#include "tests/check.h"

namespace vqtok {
namespace {

constexpr int kThreads = 64;

// Runs body in a process of its own, which it should leave by returning.
template <class Body> bool fails(Body&& body) {
  fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (!freopen("/dev/null", "w", stderr)) _exit(0);
    body();
    exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status != 0;
}

// What a kernel leaves in `values`, which start as 0, 1, 2, ..., is `want(i)`, else failure.
template <class Kernel, class Want>
void run_and_compare(Kernel kernel, int size, Want want, bool right) {
  std::vector<float> values(size);
  for (int i = 0; i < size; ++i) values[i] = static_cast<float>(i);
  float* data = values.data();
  VQTOK_LAUNCH(kernel, 1, kThreads, kThreads * sizeof(float), nullptr, data, size, right);
  for (int i = 0; i < size; ++i)
    if (!(values[i] == static_cast<float>(want(i)))) exit(3);
}

__global__ void reverse_in_shared(float* values, int, bool right) {
  VQTOK_DYNAMIC_SHARED(copy);
  copy[threadIdx.x] = values[threadIdx.x];
  if (right) __syncthreads();
  values[threadIdx.x] = copy[kThreads - 1 - threadIdx.x];
}

__global__ void reverse_guarded(float* values, int size, bool right) {
  VQTOK_DYNAMIC_SHARED(copy);
  const int i = static_cast<int>(threadIdx.x);
  copy[i] = i < size || !right ? values[i] : 0.0f;
  __syncthreads();
  if (i < size) values[i] = copy[size - 1 - i];
}

__global__ void one_past_shared(float* values, int, bool right) {
  VQTOK_DYNAMIC_SHARED(copy);
  const unsigned next = threadIdx.x + 1;
  copy[right ? next % kThreads : next] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = copy[threadIdx.x];
}

__global__ void barrier_for_some(float*, int, bool right) {
  if (right || threadIdx.x < kThreads / 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void shuffle_for_some(float* values, int, bool right) {
  float value = values[threadIdx.x];
  if (right || threadIdx.x % 2) value = __shfl_xor_sync(kAllLanes, value, 1);
  values[threadIdx.x] = __shfl_xor_sync(kAllLanes, value, 1);
}

__global__ void copy_in_quads(float* values, int, bool right) {
  VQTOK_DYNAMIC_SHARED(copy);
  const int i = static_cast<int>(threadIdx.x) * 4;
  if (i < kThreads) start_copy(copy + i, values + i, 16);
  commit_copies();
  if (right) wait_for_copies<0>();
  __syncthreads();
  values[threadIdx.x] = copy[threadIdx.x];
  wait_for_copies<0>();
}

template <class Kernel, class Want>
void check_caught(const char* what, Kernel kernel, int size, Want want) {
  for (unsigned seed : {0u, 1u, 7u}) {
    emulated_cuda::seed = seed;
    const auto run = [&](bool right) { run_and_compare(kernel, size, want, right); };
    CHECK(!fails([&] { run(true); }), "%s, seed %u: the right kernel fails", what, seed);
    CHECK(fails([&] { run(false); }), "%s, seed %u: not caught", what, seed);
  }
}

void test_mistakes_are_caught() {
  const auto same = [](int i) { return i; };
  const auto reversed = [](int i) { return kThreads - 1 - i; };
  check_caught("missing barrier", reverse_in_shared, kThreads, reversed);
  check_caught("divergent barrier", barrier_for_some, kThreads, same);
  check_caught("divergent shuffle", shuffle_for_some, kThreads, same);
  check_caught("missing wait", copy_in_quads, kThreads, same);
#if defined(__SANITIZE_ADDRESS__)
  check_caught("missing guard", reverse_guarded, 50, [](int i) { return 49 - i; });
  check_caught("shared memory overrun", one_past_shared, kThreads,
               [](int i) { return (i + kThreads - 1) % kThreads; });
#else
  (void)reverse_guarded, (void)one_past_shared;
#endif
}

// Under the thread sanitizer: every kernel, with several warps, tiles and pipeline steps.
void test_kernels_have_no_races() {
  emulated_cuda::seed = 7;
  emulated_cuda::multiprocessors = 1;  // blocks loop over rows
  const int64_t shapes[][3] = {{20, 90, 6}, {270, 40, 20}, {20, 140, 50}};
  for (const auto& s : shapes) {
    const auto p = hard_problem<float>(s[0], s[1], s[2], 1.0, 3);
    std::vector<int64_t> codes(p.rows), counts(p.size);
    std::vector<float> sums(p.size * p.dim);
    std::vector<char> workspace(nearest_cuda_workspace(p.rows, p.size, p.dim));
    const Matrix x = p.x_matrix(DType::f32);
    CHECK(!nearest_cuda(0, nullptr, x, p.code_matrix(DType::f32), codes.data(), workspace.data()),
          "nearest");
    std::vector<char> ema_workspace(ema_cuda_workspace(p.rows, p.size));
    CHECK(!ema_update_cuda(0, nullptr, x, codes.data(), p.size, counts.data(), sums.data(),
                           ema_workspace.data()),
          "ema_update");
  }
}

}  // namespace
}  // namespace vqtok

int main() {
  vqtok::test_mistakes_are_caught();
  vqtok::test_kernels_have_no_races();
  return 0;
}
