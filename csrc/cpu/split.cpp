#include "cpu/split.h"

#include <math.h>
#include <string.h>

#include <algorithm>

#include "cpu/nearest.h"

namespace vqtok {
namespace {

// The nearest bfloat16, ties to even, as the upper half of a word.
uint32_t high_part(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return (bits + (bits >> 16 & 1) + 0x7fff) & 0xffff0000u;
}

// A value as upper halves of words, and what each leaves.
struct Parts {
  uint32_t high, middle = 0, rest = 0;
  float after_high = 0, after_middle = 0;

  explicit Parts(float v) : high(high_part(v)) {
    if (!isfinite(v)) return;  // an offset of -inf
    after_high = v - bits_to_float(high);
    middle = high_part(after_high);
    after_middle = after_high - bits_to_float(middle);
    rest = high_part(after_middle);
  }
};

// The first into the lower half.
uint32_t pair(uint32_t first, uint32_t second) { return first >> 16 | second; }

// Of a product x.c is left out x_rest.c + x_high.c_rest + x_middle.(c - c_high). With u = 2^-8, that
// of bfloat16, |x_middle| <= u |x| and |x_rest| <= u^2/2 |x| for each element (half, as middle is u |x|
// only where there is no rest), so for all together; the lengths of c_rest and c - c_high are measured.
//
// What is left in is added up in float32: 16 products in each of two sums, these two, one sum for
// each step, and the offset. Each addition rounds; twice as many roundings are allowed for, of terms
// that add up to 1.02 (|x| |c| + |c|^2/2) at most.
//
// Subnormal parts and results count as zero there. Of a product c_d x_d that concerns four parts and
// the results of three products and three additions, by 2^-126 each (times the other factor, for
// parts); a `tiny` of 2^-123 allows for 16 and 32 of these.
ErrorBound split_bound(const PackedCodebook& codebook, int steps, double after_high,
                       double after_middle) {
  constexpr double u = 0x1p-8;
  const int dim = static_cast<int>(codebook.dim);
  const double left_out = 2 * 1.01 * (0.5 * u * u * sqrt(codebook.largest_squared_norm) +
                                      (1 + u) * (sqrt(after_middle) + u * sqrt(after_high)));
  ErrorBound bound = error_bound(dim, codebook.largest_squared_norm, 1.02 * 2 * (19 + steps) + 8,
                                 0x1p-123);
  // |x| is larger than its float32 by what underflowed of its square
  bound.constant = round_up(bound.constant + left_out * sqrt(dim * 0x1p-149));
  bound.per_norm = round_up(bound.per_norm + left_out);
  return bound;
}

}  // namespace

SplitLayout split_layout(int64_t dim64) {
  const int dim = static_cast<int>(dim64);
  if (dim > kNarrowDim) return {dim, (dim + 31) / 32 * 32, (dim + 31) / 32 * 3};
  const int least = dim + (dim + 1) / 2 + 2, words = least <= 8 ? 8 : (least + 15) / 16 * 16;
  return {dim, words, (words + 15) / 16};
}

SplitCodebook::SplitCodebook(const PackedCodebook& codebook)
    : layout_(split_layout(codebook.dim)),
      tiles_((codebook.tiles + kSplitTiles - 1) / kSplitTiles * kSplitTiles),
      values_(int64_t{tiles_} * kTile * layout_.words), offsets_(int64_t{tiles_} * kTile) {
  std::fill_n(offsets_.data(), offsets_.size(), -INFINITY);
  std::copy_n(codebook.offsets.data(), codebook.offsets.size(), offsets_.data());
  const int dim = layout_.dim;
  const bool narrow = dim <= kNarrowDim;
  double most_after_high = 0, most_after_middle = 0;
  for (int64_t k = 0; k < offsets_.size(); ++k) {
    const bool exists = k < codebook.offsets.size();
    uint32_t* code = &values_[k * layout_.words];
    if (narrow) {
      const Parts offset(offsets_[k]);
      code[dim + (dim + 1) / 2] = pair(offset.high, offset.middle);
      code[dim + (dim + 1) / 2 + 1] = pair(offset.rest, 0);
    }
    double after_high = 0, after_middle = 0;
    for (int d = 0; exists && d < dim; ++d) {
      const Parts v(codebook.values[(k / kTile * dim + d) * kTile + k % kTile]);
      const auto put = [&](int word, uint32_t high) {
        code[word] |= d % 2 ? pair(0, high) : pair(high, 0);
      };
      if (narrow) {
        code[d] = pair(v.high, v.high);
        put(dim + d / 2, v.middle);
      } else {
        put(d / 32 * 32 + d % 32 / 2, v.middle);
        put(d / 32 * 32 + 16 + d % 32 / 2, v.high);
      }
      after_high += double{v.after_high} * v.after_high;
      after_middle += double{v.after_middle} * v.after_middle;
    }
    most_after_high = std::max(most_after_high, after_high);
    most_after_middle = std::max(most_after_middle, after_middle);
  }
  bound_ = split_bound(codebook, layout_.steps, most_after_high, most_after_middle);
}

}  // namespace vqtok
