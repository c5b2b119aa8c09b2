// The codebook in 8-bit integers, and how far they can be trusted.
#pragma once
#include "cpu/filter_kernel.h"
#include "cpu/nearest.h"

namespace vqtok {

// With c' = code_scale q_c and x' = row_scale q_x, what the bytes stand for,
//     x.c - x'.c' = (x - x').c + x'.(c - c'),
// which is at most |x - x'| max|c| + |x'| max|c - c'| (Cauchy-Schwarz). |x - x'| and |x'| are
// measured for every row, so that rows beyond the range of the bytes are only imprecise, not wrong.
// Rounding the start of a code is off by half a unit more. A start that was raised to stay in range
// makes I too large, never too small: the code may be looked at in vain, and is never missed.
class Filter {
 public:
  explicit Filter(const PackedCodebook& codebook);

  // Whether 8 bits are any use here: finite codes of a usual size, not too many dimensions.
  bool usable() const { return code_scale_ > 0; }

  // Prepares for rows of a usual size of `largest` (any value: it affects time only).
  // False if that is too small or too large for the bound below to hold in float32.
  bool set_rows(float largest);

  float row_scale() const { return row_scale_; }
  FilterCodes codes() const { return {values_.data(), starts_.data(), depth, chunk}; }

  // A bound of |I - score / unit| for a row, from the squared norms of x' and of x - x'.
  double error(float squared_norm, float squared_loss) const;

  // The largest integer that every I of a code with this score or a higher one reaches.
  int32_t threshold(double score, double error) const;

  int depth, chunk;  // see FilterCodes
  int32_t tiles;     // padded

 private:
  const PackedCodebook& codebook_;
  Buffer<int8_t> values_;
  Buffer<int32_t> sums_, starts_;
  float code_scale_ = 0, row_scale_ = 0;
  double largest_norm_ = 0, largest_loss_ = 0;
};

}  // namespace vqtok
