#include <math.h>

#include <atomic>
#include <limits>

#include "cpu/nearest.h"
#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr double kRound32 = 0x1p-24;  // relative error of one float32 rounding
constexpr double kRound64 = 0x1p-53;
constexpr double kTiny32 = 0x1p-149;  // absolute error where a float32 result is subnormal

float round_up(double v) {
  return nextafterf(static_cast<float>(v), std::numeric_limits<float>::infinity());
}

// The margin that makes the fp32 scan safe. With C = max |c| and H = C^2/2, for one row x:
//
// 1. A float32 score is off from x.c - |c|^2/2 by at most
//        (D+4) u32 (|x| C + H) + sqrt(D) tiny (|x| + C) + 2 (D+2) tiny,
//    u32 = 2^-24. Each of the D products and D additions rounds once, in any order, fused or not;
//    the offset rounds once; float64 inputs round once more, each side; subnormal results are off
//    by `tiny` at most. (D+4) u32 stays below 0.004, so that higher orders fit in the 1.01 below.
// 2. The float64 distance that defines the answer is itself rounded: it is off by (D+2) u64 |x-c|^2
//    <= (D+2) u64 (2 |x|^2 + 4 H), half of that in units of score.
// 3. |x|^2 is summed in float32, where it may underflow: the true |x| is larger by at most
//    n = sqrt(D tiny). If n < C/2 the missing (D+4) u32 n C is less than (D+4) u32 H (so H counts
//    twice below); otherwise it is less than D tiny.
//
// If e is the sum of these, the answer scores at least best - 2e. The constants give 2e with room
// for their own rounding and that of the comparison (two more u32 of the score).
ErrorBound error_bound(double dim, double max_norm) {
  const double half = 0.5 * max_norm * max_norm;
  const double relative = (dim + 8) * kRound32;
  const double tiny = sqrt(dim) * 2 * kTiny32;
  const double exact = (dim + 4) * kRound64;
  ErrorBound bound;
  bound.per_norm = round_up(2 * 1.01 * (relative * max_norm + tiny));
  bound.per_squared_norm = round_up(2 * 1.01 * exact);
  bound.constant = round_up(2 * 1.01 * (relative * 2 * half + tiny * max_norm + exact * 2 * half +
                                        (4 * dim + 32) * kTiny32));
  // |x| C and C^2 stay below 1e37, so that no float32 sum comes near overflow.
  bound.squared_norm_limit = max_norm * max_norm <= 1e37 ? 1e37f : -1.0f;
  return bound;
}

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
  bound = error_bound(static_cast<double>(dim), sqrt(largest));
}

}  // namespace vqtok
