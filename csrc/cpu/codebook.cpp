#include <math.h>

#include <atomic>
#include <limits>

#include "cpu/nearest.h"
#include "cpu/team.h"

namespace vqtok {
namespace {

// Copies one code into its tile; returns its squared norm, NaN if an element is NaN or Inf.
template <class T>
double place_code(const T* code, int64_t dim, int lane, float* values, double* exact) {
  double squared = 0;
  bool finite = true;
  for (int64_t d = 0; d < dim; ++d) {
    const double v = to_double(code[d]);
    values[d * kTile + lane] = to_float(code[d]);
    if (exact) exact[d * kTile + lane] = v;
    squared += v * v;
    finite = finite && isfinite(v);
  }
  if (finite) return squared;
  for (int64_t d = 0; d < dim; ++d) values[d * kTile + lane] = 0;
  return NAN;
}

void lower(std::atomic<int64_t>& value, int64_t candidate) {
  int64_t seen = value.load();
  while (candidate < seen && !value.compare_exchange_weak(seen, candidate)) {}
}

}  // namespace

PackedCodebook::PackedCodebook(const Matrix& codebook, int threads)
    : size(codebook.rows),
      dim(codebook.dim),
      tiles(static_cast<int32_t>((codebook.rows + kTile - 1) / kTile)),
      values(int64_t{tiles} * dim * kTile),
      offsets(int64_t{tiles} * kTile),
      exact_values(codebook.dtype == DType::f64 ? int64_t{tiles} * dim * kTile : 0),
      usable(tiles) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> bad{kNone};
  std::mutex lock;
  double largest = 0;
  run_team(size * dim < 65536 ? 1 : threads, [&](int member, int members) {
    double member_largest = 0;
    const int64_t begin = int64_t{tiles} * member / members;
    const int64_t end = int64_t{tiles} * (member + 1) / members;
    for (int64_t k = begin * kTile; k < end * kTile; ++k) {
      const int64_t tile = k / kTile, lane = k % kTile;
      offsets[k] = -INFINITY;
      if (k >= size) continue;
      const double squared = with_type(codebook.dtype, [&](auto type) {
        double* exact = exact_values.size() ? &exact_values[tile * dim * kTile] : nullptr;
        return place_code(codebook.row<decltype(type)>(k), dim, static_cast<int>(lane),
                          &values[tile * dim * kTile], exact);
      });
      if (isnan(squared)) {
        lower(bad, k);
        continue;
      }
      offsets[k] = static_cast<float>(-0.5 * squared);
      usable[tile] |= static_cast<uint8_t>(1u << lane);
      member_largest = fmax(member_largest, squared);
    }
    std::lock_guard<std::mutex> hold(lock);
    largest = fmax(largest, member_largest);
  });
  if (bad != kNone) first_bad_code = bad;
  bound = error_bound(static_cast<int>(dim), largest);
}

}  // namespace vqtok
