#include "cpu/split.h"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "cpu/nearest.h"

namespace vqtok {
namespace {

// The nearest bfloat16, as the upper half of a word.
uint32_t high_part(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return (bits + (bits >> 16 & 1) + 0x7fff) & 0xffff0000u;
}

// A value as upper halves of words.
struct Parts {
  uint32_t high, middle = 0, rest = 0;
  float after_high = 0, after_middle = 0;  // what is left

  explicit Parts(float v) : high(high_part(v)) {
    if (!isfinite(v)) return;  // an offset of -inf
    after_high = v - bits_to_float(high);
    middle = high_part(after_high);
    after_middle = after_high - bits_to_float(middle);
    rest = high_part(after_middle);
  }
};

uint32_t pair(uint32_t first, uint32_t second) { return first >> 16 | second; }

}  // namespace

// Of a product x.c is left out x_rest.c + x_high.c_rest + x_middle.(c - c_high). With u = 2^-8, that
// of bfloat16, |x_middle| <= u |x| and |x_rest| <= u^2 |x| for each element, so for all together; and
// the lengths of c_rest and c - c_high are measured.
//
// What is left in is added up in float32: 16 words in two rows, then the chunks. Each addition
// rounds; twice as many roundings are allowed for, of terms of |x.c| + |c|^2/2 that are less than 1.02
// times as large. Subnormal parts, products and sums count as zero there. An error of 2^-126 in a
// part is less than that of 2^-123 in a float32 result, of which error_bound() knows.
SplitCodebook::SplitCodebook(const PackedCodebook& codebook)
    : pairs_(pairs_of(codebook.dim)),
      tiles_((codebook.tiles + kSplitTiles - 1) / kSplitTiles * kSplitTiles),
      values_(int64_t{tiles_} * kTile * pairs_) {
  const int64_t dim = codebook.dim;
  double most_after_high = 0, most_after_middle = 0;
  for (int64_t k = 0; k < int64_t{tiles_} * kTile; ++k) {
    uint32_t* code = &values_[k * pairs_];
    uint32_t *middles = code + dim, *offset = middles + (dim + 1) / 2;
    const bool exists = k < int64_t{codebook.tiles} * kTile;
    const Parts o(exists ? codebook.offsets[k] : -INFINITY);
    offset[0] = pair(o.high, o.middle);
    offset[1] = pair(o.rest, 0);
    double after_high = 0, after_middle = 0;
    for (int64_t d = 0; exists && d < dim; ++d) {
      const Parts v(codebook.values[(k / kTile * dim + d) * kTile + k % kTile]);
      code[d] = pair(v.high, v.high);
      middles[d / 2] |= d % 2 ? v.middle : pair(v.middle, 0);
      after_high += double{v.after_high} * v.after_high;
      after_middle += double{v.after_middle} * v.after_middle;
    }
    most_after_high = std::max(most_after_high, after_high);
    most_after_middle = std::max(most_after_middle, after_middle);
  }
  constexpr double u = 0x1p-8;
  const int chunks = pairs_ / codes().chunk;
  const double left_out =
      2 * 1.01 * (u * u * sqrt(codebook.largest_squared_norm) +
                  (1 + u) * (sqrt(most_after_middle) + u * sqrt(most_after_high)));
  bound_ = error_bound(static_cast<int>(dim), codebook.largest_squared_norm,
                       1.02 * 2 * (18 + chunks) + 8, 0x1p-123);
  // |x| is larger than its float32 by what underflowed of its square
  bound_.constant = round_up(bound_.constant + left_out * sqrt(double(dim) * 0x1p-149));
  bound_.per_norm = round_up(bound_.per_norm + left_out);
}

}  // namespace vqtok
