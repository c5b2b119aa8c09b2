// Prints the float32 multiply-add speed of this machine in GF/s: registers only, best of 200.
// c++ -O3 -march=native -fopenmp fma_peak.cpp -o fma_peak && ./fma_peak THREADS
#include <chrono>
#include <cstdio>
#include <cstdlib>

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
constexpr int kChains = 12;  // independent: more than latency times throughput

// Stands for a use of the value that the compiler cannot see through.
inline void keep(Vector& v) {
#if defined(__x86_64__)
  asm volatile("" : "+v"(v));
#else
  asm volatile("" : "+w"(v));
#endif
}

int main(int, char** arguments) {
  const int threads = atoi(arguments[1]);
  constexpr long kSteps = 500000;
  double best = 0;
  for (int repeat = 0; repeat < 200; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(threads)
    {
      Vector sums[kChains], a = Vector{} + 0.9999f, b = Vector{} + 1.0f;
      for (int chain = 0; chain < kChains; ++chain) sums[chain] = Vector{} + float(chain);
      for (long i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
        for (int chain = 0; chain < kChains; ++chain) sums[chain] = sums[chain] * a + b;
        keep(a);  // not to be computed once for all steps
      }
      for (Vector& sum : sums) keep(sum);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const double speed = 2e-9 * kSteps * kChains * kLanes * threads / seconds.count();
    best = speed > best ? speed : best;
  }
  printf("%.1f\n", best);
}
