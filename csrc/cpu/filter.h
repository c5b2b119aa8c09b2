// The codebook in 8-bit integers, and how far they can be trusted.
#pragma once
#include "cpu/buffer.h"
#include "cpu/filter_kernel.h"

namespace vqtok {

struct PackedCodebook;

// What depends on the codebook alone.
class ByteCodebook {
 public:
  explicit ByteCodebook(const PackedCodebook& codebook);

  // Whether 8 bits are any use here: finite codes of a usual size, not too many dimensions.
  bool usable() const { return scale > 0; }

  int depth = 0, chunk = 0;  // see FilterCodes
  int32_t tiles;             // a multiple of 4
  Buffer<int8_t> values;     // [tiles][8][depth]
  Buffer<int32_t> sums;      // of the bytes of each code
  Buffer<float> offsets;     // -|c|^2/2 (-inf: no such code)
  float scale = 0;           // c ~ scale * byte
  double largest_norm = 0;   // max |c|
  double largest_loss = 0;   // max |c - scale * bytes|
};

// With c' and x' what the bytes stand for,
//     x.c - x'.c' = (x - x').c + x'.(c - c'),
// which is at most |x - x'| max|c| + |x'| max|c - c'| (Cauchy-Schwarz). |x - x'| and |x'| are
// measured for every row, so that rows beyond the range of the bytes are only imprecise, not wrong.
// Rounding the start of a code is off by half a unit more. A start that was raised to stay in range
// makes I too large, never too small: the code may be looked at in vain, and is never missed.
class Filter {
 public:
  // Prepares for rows whose largest elements are about `largest` (any value: it affects time only).
  Filter(const ByteCodebook& codes, float largest, const FilterKernel& kernel);

  // Whether the bounds hold in float32 at that scale.
  bool usable() const { return terms_.row_scale > 0; }

  const ByteCodebook& book() const { return codes_; }
  const FilterTerms& terms() const { return terms_; }
  float inverse_unit() const { return inverse_unit_; }
  FilterCodes codes() const {
    return {codes_.values.data(), starts_.data(), codes_.depth, codes_.chunk};
  }

 private:
  const ByteCodebook& codes_;
  FilterTerms terms_{};
  float inverse_unit_ = 0;
  Buffer<int32_t> starts_;
};

}  // namespace vqtok
