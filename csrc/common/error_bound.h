// How far float32 scores can be trusted: what makes the lookup exact. Shared by CPU and CUDA.
#pragma once
#include <math.h>

#include "common/platform.h"

namespace vqtok {

// A code whose float32 score is below the row's best by more than margin() cannot be the nearest.
struct ErrorBound {
  float per_norm, per_squared_norm, constant;
  float squared_norm_limit;  // beyond it float32 might overflow: search the row in float64

  VQTOK_BOTH float margin(float squared_norm) const {
    return per_norm * sqrtf(squared_norm) + per_squared_norm * squared_norm + constant;
  }
};

VQTOK_BOTH inline float round_up(double v) {
  return static_cast<float>(v * (1 + 0x1p-22)) + 0x1p-149f;
}

// The score of a row x and a code c is x.c - |c|^2/2, the offset -|c|^2/2 being a float32 rounded
// from float64. With C = max |c| and H = C^2/2, for a row x:
//
// 1. A float32 score is off by at most
//        (D+4) u32 (|x| C + H) + sqrt(D) tiny (|x| + C) + 2 (D+2) tiny,
//    u32 = 2^-24. Each of the D products and D additions rounds once, in any order, fused or not;
//    the offset rounds once; float64 inputs round once more, each side; subnormal results are off
//    by `tiny` at most. For D <= 65536, (D+4) u32 < 0.004: higher orders fit in the 1.01 below.
// 2. The float64 distance that defines the answer is rounded too: it is off by (D+2) u64 |x-c|^2
//    <= (D+2) u64 (2 |x|^2 + 4 H), half of that in units of score.
// 3. |x|^2 is summed in float32, where it may underflow: the true |x| is larger by at most
//    n = sqrt(D tiny). If n < C/2 the missing (D+4) u32 n C is less than (D+4) u32 H (H counts
//    twice below); otherwise it is less than D tiny.
//
// If e is the sum of these, the answer scores at least best - 2e. The constants give 2e, with room
// for their own rounding and that of the comparison (two more u32 of the score).
//
// `roundings` stands for the D+4 of 1 where scores are computed otherwise, with 4 more for the float64
// inputs and the comparison: never less than D + 8, for codes that are left are scored by float32 sums
// and compared with the same margin. `tiny` is 2^-149, or larger where subnormals may be flushed to
// zero.
VQTOK_BOTH inline ErrorBound error_bound(int dim, double largest_squared_norm, double roundings,
                                         double tiny) {
  constexpr double u32 = 0x1p-24, u64 = 0x1p-53;
  roundings = fmax(roundings, dim + 8.0);
  const double largest_norm = sqrt(largest_squared_norm);
  const double half = 0.5 * largest_squared_norm;
  const double relative = roundings * u32;
  const double underflow = sqrt(static_cast<double>(dim)) * 2 * tiny;
  const double exact = (dim + 4) * u64;
  ErrorBound bound;
  bound.per_norm = round_up(2 * 1.01 * (relative * largest_norm + underflow));
  bound.per_squared_norm = round_up(2 * 1.01 * exact);
  bound.constant = round_up(2 * 1.01 * (relative * 2 * half + underflow * largest_norm +
                                        exact * 2 * half + (4.0 * dim + 32) * tiny));
  // |x| C and C^2 stay below 1e37, so that no float32 sum comes near overflow.
  bound.squared_norm_limit = largest_squared_norm <= 1e37 ? 1e37f : -1.0f;
  return bound;
}

VQTOK_BOTH inline ErrorBound error_bound(int dim, double largest_squared_norm) {
  return error_bound(dim, largest_squared_norm, 0, 0x1p-149);
}

}  // namespace vqtok
