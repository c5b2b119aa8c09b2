#include "cpu/ema.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr int64_t kCodesAtATime = 64;  // handed to a thread
constexpr int64_t kChunk = 64;         // dimensions summed at a time

// Adds up rows of a half type, in their order.
template <class T>
void sum_rows(const Matrix& x, const int64_t* rows, int64_t count, float* sum) {
  for (int64_t begin = 0; begin < x.dim; begin += kChunk) {
    const int64_t width = std::min(kChunk, x.dim - begin);
    double totals[kChunk] = {};
    for (int64_t i = 0; i < count; ++i) {
      const T* row = x.row<T>(rows[i]) + begin;
      for (int64_t d = 0; d < width; ++d) totals[d] += to_double(row[d]);
    }
    for (int64_t d = 0; d < width; ++d) sum[begin + d] = static_cast<float>(totals[d]);
  }
}

// Adds up the listed rows into row k of sums.
void sum_code(const Matrix& x, const int64_t* rows, int64_t count, int64_t k, void* sums,
              const EmaKernel& kernel) {
  float* single = static_cast<float*>(sums) + k * x.dim;
  switch (x.dtype) {
    case DType::f64:
      return kernel.sum_f64(x.row<double>(0), x.row_stride, rows, count, x.dim,
                            static_cast<double*>(sums) + k * x.dim);
    case DType::bf16: return sum_rows<BFloat16>(x, rows, count, single);
    case DType::f16: return sum_rows<Float16>(x, rows, count, single);
    default: return kernel.sum_f32(x.row<float>(0), x.row_stride, rows, count, x.dim, single);
  }
}

}  // namespace

int64_t ema_update(const Matrix& x, const int64_t* codes, int64_t size, int64_t* counts, void* sums,
                   int threads, const EmaKernel& kernel) {
  for (int64_t n = 0; n < x.rows; ++n)
    if (codes[n] < 0 || codes[n] >= size) return n;

  // a counting sort: the rows of each code, in ascending order
  std::vector<int64_t> start(size + 1, 0), order(x.rows);
  for (int64_t n = 0; n < x.rows; ++n) ++start[codes[n] + 1];
  for (int64_t k = 0; k < size; ++k) {
    counts[k] = start[k + 1];
    start[k + 1] += start[k];
  }
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t n = 0; n < x.rows; ++n) order[next[codes[n]]++] = n;

  std::atomic<int64_t> next_code{0};
  run_team(x.rows * x.dim < 65536 ? 1 : threads, [&](int, int) {
    for (int64_t first; (first = next_code.fetch_add(kCodesAtATime)) < size;)
      for (int64_t k = first; k < std::min(size, first + kCodesAtATime); ++k)
        sum_code(x, order.data() + start[k], counts[k], k, sums, kernel);
  });
  return -1;
}

}  // namespace vqtok
