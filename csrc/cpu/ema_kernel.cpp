// The inner loop of EMA updates. Compiled once per instruction set; see simd.h for what may be used.
#include "cpu/ema_kernel.h"

#include "cpu/simd.h"

namespace {

constexpr int kLane = 8;
constexpr int kAhead = 8;  // rows lie anywhere, so they are fetched before their turn
#if defined(__AVX512F__)
constexpr int kMostBlocks = 16;  // that fit in registers
#else
constexpr int kMostBlocks = 4;
#endif
typedef double Sums __attribute__((vector_size(kLane * sizeof(double))));

template <class T> struct Lanes {
  typedef T Type __attribute__((vector_size(kLane * sizeof(T))));
};

// kBlocks blocks of kLane dimensions, all of them in registers.
template <int kBlocks, class T>
void sum_blocks(const T* x, int64_t stride, const int64_t* rows, int64_t count, T* sum) {
  Sums totals[kBlocks] = {};
  for (int64_t i = 0; i < count; ++i) {
    const T* row = x + rows[i] * stride;
    if (i + kAhead < count) {
      const char* ahead = reinterpret_cast<const char*>(x + rows[i + kAhead] * stride);
      for (unsigned byte = 0; byte < kBlocks * kLane * sizeof(T); byte += 64)
        __builtin_prefetch(ahead + byte);
    }
    UNROLL for (int b = 0; b < kBlocks; ++b) {
      typename Lanes<T>::Type values;
      memcpy(&values, row + b * kLane, sizeof values);
      totals[b] += __builtin_convertvector(values, Sums);
    }
  }
  for (int b = 0; b < kBlocks; ++b)
    for (int lane = 0; lane < kLane; ++lane)
      sum[b * kLane + lane] = static_cast<T>(totals[b][lane]);
}

template <class T>
void sum_rows(const T* x, int64_t stride, const int64_t* rows, int64_t count, int64_t dim, T* sum) {
  int64_t d = 0;
  for (; d + kMostBlocks * kLane <= dim; d += kMostBlocks * kLane)
    sum_blocks<kMostBlocks>(x + d, stride, rows, count, sum + d);
  for (; d + 4 * kLane <= dim; d += 4 * kLane) sum_blocks<4>(x + d, stride, rows, count, sum + d);
  for (; d + kLane <= dim; d += kLane) sum_blocks<1>(x + d, stride, rows, count, sum + d);
  for (; d < dim; ++d) {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += static_cast<double>(x[rows[i] * stride + d]);
    sum[d] = static_cast<T>(total);
  }
}

template <class T> inline void add_lane(const T* row, double* sum) {
  typename Lanes<T>::Type values;
  Sums total;
  memcpy(&values, row, sizeof values);
  memcpy(&total, sum, sizeof total);
  total += __builtin_convertvector(values, Sums);
  memcpy(sum, &total, sizeof total);
}

template <class T>
void add_rows(const T* x, int64_t stride, const int64_t* codes, int64_t rows, int64_t width,
              double* sums) {
  constexpr int kRowsAhead = 16, kSumsAhead = 2;
  for (int64_t n = 0; n < rows; ++n) {
    const T* row = x + n * stride;
    const T* ahead = n + kRowsAhead < rows ? row + kRowsAhead * stride : row;
    double* sum = sums + codes[n] * width;
    const double* next = n + kSumsAhead < rows ? sums + codes[n + kSumsAhead] * width : sum;
    int64_t d = 0;
    for (; d + 2 * kLane <= width; d += 2 * kLane) {
      __builtin_prefetch(ahead + d);
      __builtin_prefetch(next + d);
      __builtin_prefetch(next + d + kLane);
      add_lane(row + d, sum + d);
      add_lane(row + d + kLane, sum + d + kLane);
    }
    for (; d + kLane <= width; d += kLane) add_lane(row + d, sum + d);
    for (; d < width; ++d) sum[d] += static_cast<double>(row[d]);
  }
}

}  // namespace

namespace vqtok {

extern const EmaKernel VQTOK_TABLE(ema_kernel) = {
    add_rows<float>, add_rows<double>, sum_rows<float>, sum_rows<double>,
};

}  // namespace vqtok
