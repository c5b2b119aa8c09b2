#include "cpu/filter.h"

#include <math.h>

#include <algorithm>

#include "cpu/nearest.h"

namespace vqtok {
namespace {

// The step that divides [-largest, largest] into bytes, or 0 if it would be too small or too large.
// It has 8 significant bits, so that a multiple of it by a byte is exact in float32.
float scale_for(float largest) {
  if (!(largest >= 0x1p-40f && largest <= 0x1p40f)) return 0;
  int exponent;
  const double fraction = frexp(largest / 127.0, &exponent);
  return static_cast<float>(ldexp(ceil(fraction * 256) / 256, exponent));
}

}  // namespace

ByteCodebook::ByteCodebook(const PackedCodebook& codebook) : tiles((codebook.tiles + 3) / 4 * 4) {
  const int64_t dim = codebook.dim, codes = int64_t{tiles} * kTile;
  float largest = 0;
  for (int64_t i = 0; i < codebook.values.size(); ++i)
    largest = std::max(largest, fabsf(codebook.values[i]));
  if (dim > kMaxFilterDim || codebook.bound.squared_norm_limit < 0) return;
  scale = scale_for(largest);
  if (!usable()) return;
  const int chunks = static_cast<int>(dim + 63) / 64;
  chunk = (static_cast<int>(dim + chunks - 1) / chunks + 3) / 4 * 4;
  depth = chunks * chunk;
  values = Buffer<int8_t>(codes * depth);
  sums = Buffer<int32_t>(codes);
  offsets = Buffer<float>(codes);
  std::fill_n(offsets.data(), codes, -INFINITY);
  std::copy_n(codebook.offsets.data(), codebook.offsets.size(), offsets.data());
  const float inverse = 1 / scale;
  for (int64_t k = 0; k < codebook.offsets.size(); ++k) {
    const float* code = &codebook.values[k / kTile * dim * kTile + k % kTile];
    double norm = 0, loss = 0;
    for (int64_t d = 0; d < dim; ++d) {
      const float v = code[d * kTile];
      const int q = static_cast<int>(std::min(std::max(rintf(v * inverse), -127.0f), 127.0f));
      const double lost = double{v} - double{scale} * q;
      norm += double{v} * v;
      loss += lost * lost;
      values[k * depth + d] = static_cast<int8_t>(q);
      sums[k] += q;
    }
    largest_norm = std::max(largest_norm, norm);
    largest_loss = std::max(largest_loss, loss);
  }
  largest_norm = sqrt(largest_norm);
  largest_loss = sqrt(largest_loss);
}

// The kernel sums squares and adds the terms in float32: the relative error is below
// (dim + 8) 2^-24 < 0.001. Squares that underflow come from less than 2^-74 each: together less than
// sqrt(dim) 2^-74, far below 2^-10 row_scale.
Filter::Filter(const ByteCodebook& codes, float largest, const FilterKernel& kernel)
    : codes_(codes), starts_(codes.offsets.size()) {
  const float row_scale = codes.usable() ? scale_for(largest) : 0;
  if (row_scale == 0) return;
  constexpr double kRoom = 1.003;
  const double inverse = 1 / (double{row_scale} * codes.scale);
  const double per_loss = kRoom * codes.largest_norm * inverse;
  const double per_norm = kRoom * codes.largest_loss * inverse;
  terms_ = {row_scale, static_cast<float>(per_loss), static_cast<float>(per_norm),
            static_cast<float>(kRoom * (1 + 0x1p-10 * row_scale * (per_loss + per_norm)))};
  inverse_unit_ = static_cast<float>(inverse);
  kernel.start(codes.offsets.data(), codes.sums.data(), inverse, starts_.size(), starts_.data());
}

}  // namespace vqtok
