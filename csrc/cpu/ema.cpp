#include "cpu/ema.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr int64_t kCodesAtATime = 64;  // handed to a thread
constexpr int64_t kChunk = 64;         // dimensions summed at a time
constexpr int64_t kCheckedAtATime = 4096;
constexpr int64_t kColumns = 8;                  // that threads do not share
constexpr int64_t kElementsForTeam = 65536;      // fewer are not worth waking a thread for
constexpr int64_t kMostBytesInOrder = 3 << 19;   // of sums in float64, in the second-level cache

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

// Some columns of all rows, added up as the rows lie, so that x is read once and in order.
template <class T, class Add>
void add_columns(const Matrix& x, const int64_t* codes, int64_t size, int64_t begin, int64_t end,
                 T* sums, Add add) {
  const int64_t width = end - begin;
  Buffer<double> totals(size * width);
  add(x.row<T>(0) + begin, x.row_stride, codes, x.rows, width, totals.data());
  for (int64_t k = 0; k < size; ++k)
    for (int64_t d = 0; d < width; ++d)
      sums[k * x.dim + begin + d] = static_cast<T>(totals[k * width + d]);
}

int64_t first_outside(const int64_t* codes, int64_t rows, int64_t size) {
  for (int64_t begin = 0; begin < rows; begin += kCheckedAtATime) {
    const int64_t end = std::min(rows, begin + kCheckedAtATime);
    bool outside = false;
    for (int64_t n = begin; n < end; ++n)
      outside |= static_cast<uint64_t>(codes[n]) >= static_cast<uint64_t>(size);
    for (int64_t n = begin; outside && n < end; ++n)
      if (codes[n] < 0 || codes[n] >= size) return n;
  }
  return -1;
}

void count_codes(const int64_t* codes, int64_t rows, int64_t size, int64_t* counts) {
  std::fill_n(counts, size, 0);
  for (int64_t n = 0; n < rows; ++n) ++counts[codes[n]];
}

// For codebooks whose sums stay in the cache. Threads take columns; the last task counts.
void update_in_order(const Matrix& x, const int64_t* codes, int64_t size, int64_t* counts,
                     void* sums, int threads, const EmaKernel& kernel) {
  const int64_t lines = (x.dim + kColumns - 1) / kColumns;
  const int64_t parts = std::clamp<int64_t>(threads, 1, std::max<int64_t>(lines, 1));
  std::atomic<int64_t> next{0};
  run_team(threads, [&](int, int) {
    for (int64_t part; (part = next++) <= parts;) {
      const int64_t begin = lines * part / parts * kColumns;
      const int64_t end = std::min(x.dim, lines * (part + 1) / parts * kColumns);
      if (part == parts)
        count_codes(codes, x.rows, size, counts);
      else if (x.dtype == DType::f64)
        add_columns(x, codes, size, begin, end, static_cast<double*>(sums), kernel.add_f64);
      else
        add_columns(x, codes, size, begin, end, static_cast<float*>(sums), kernel.add_f32);
    }
  });
}

// For large codebooks: the rows of each code together, so that its sum stays in registers.
void update_by_code(const Matrix& x, const int64_t* codes, int64_t size, int64_t* counts,
                    void* sums, int threads, const EmaKernel& kernel) {
  // a counting sort: the rows of each code, in ascending order
  std::vector<int64_t> start(size + 1, 0), order(x.rows);
  count_codes(codes, x.rows, size, counts);
  for (int64_t k = 0; k < size; ++k) start[k + 1] = start[k] + counts[k];
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t n = 0; n < x.rows; ++n) order[next[codes[n]]++] = n;

  std::atomic<int64_t> next_code{0};
  run_team(threads, [&](int, int) {
    for (int64_t first; (first = next_code.fetch_add(kCodesAtATime)) < size;)
      for (int64_t k = first; k < std::min(size, first + kCodesAtATime); ++k)
        sum_code(x, order.data() + start[k], counts[k], k, sums, kernel);
  });
}

}  // namespace

int64_t ema_update(const Matrix& x, const int64_t* codes, int64_t size, int64_t* counts, void* sums,
                   int threads, const EmaKernel& kernel) {
  const int64_t outside = first_outside(codes, x.rows, size);
  if (outside >= 0) return outside;
  if (x.rows * x.dim < kElementsForTeam) threads = 1;
  const bool half = x.dtype == DType::bf16 || x.dtype == DType::f16;
  const int64_t bytes = size * x.dim * int64_t{sizeof(double)};
  if (!half && bytes <= std::min(kMostBytesInOrder, 2 * x.rows * x.dim * int64_t{sizeof(float)}))
    update_in_order(x, codes, size, counts, sums, threads, kernel);
  else
    update_by_code(x, codes, size, counts, sums, threads, kernel);
  return -1;
}

}  // namespace vqtok
