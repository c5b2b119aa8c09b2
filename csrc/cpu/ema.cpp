#include "cpu/ema.h"

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr int64_t kChunk = 64;  // codes handed to a thread at a time, and elements summed at a time

// Adds the rows listed, in their order, into one output row.
template <class T, class Sum>
void sum_rows(const Matrix& x, const int64_t* rows, int64_t count, Sum* out) {
  for (int64_t begin = 0; begin < x.dim; begin += kChunk) {
    const int64_t width = std::min(kChunk, x.dim - begin);
    double total[kChunk] = {};
    for (int64_t i = 0; i < count; ++i) {
      const T* row = x.row<T>(rows[i]) + begin;
      if (width == kChunk)
        for (int64_t d = 0; d < kChunk; ++d) total[d] += to_double(row[d]);
      else
        for (int64_t d = 0; d < width; ++d) total[d] += to_double(row[d]);
    }
    for (int64_t d = 0; d < width; ++d) out[begin + d] = static_cast<Sum>(total[d]);
  }
}

}  // namespace

int64_t ema_update(const Matrix& x, const int64_t* codes, int64_t size, int64_t* counts, void* sums,
                   int threads) {
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
    for (int64_t first; (first = next_code.fetch_add(kChunk)) < size;)
      for (int64_t k = first; k < std::min(size, first + kChunk); ++k)
        with_type(x.dtype, [&](auto type) {
          using T = decltype(type);
          using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
          sum_rows<T>(x, order.data() + start[k], counts[k], static_cast<Sum*>(sums) + k * x.dim);
        });
  });
  return -1;
}

}  // namespace vqtok
