#include "cpu/filter.h"

#include <math.h>

#include <algorithm>

namespace vqtok {
namespace {

constexpr double kLeastStart = -0x1p30;

// The step that divides [-largest, largest] into bytes, or 0 if it would be too small or too large.
// It has 8 significant bits, so that a multiple of it by a byte is exact in float32.
float scale_for(float largest) {
  if (!(largest >= 0x1p-40f && largest <= 0x1p40f)) return 0;
  int exponent;
  const double fraction = frexp(largest / 127.0, &exponent);
  return static_cast<float>(ldexp(ceil(fraction * 256) / 256, exponent));
}

}  // namespace

Filter::Filter(const PackedCodebook& codebook)
    : depth(0), chunk(0), tiles((codebook.tiles + 3) / 4 * 4), codebook_(codebook) {
  const int dim = static_cast<int>(codebook.dim);
  float largest = 0;
  for (int64_t i = 0; i < codebook.values.size(); ++i)
    largest = fmaxf(largest, fabsf(codebook.values[i]));
  if (dim > kMaxFilterDim || codebook.bound.squared_norm_limit < 0) return;
  code_scale_ = scale_for(largest);
  if (!usable()) return;
  const int chunks = (dim + 63) / 64;
  chunk = ((dim + chunks - 1) / chunks + 3) / 4 * 4;
  depth = chunks * chunk;
  values_ = Buffer<int8_t>(int64_t{tiles} * kTile * depth);
  sums_ = Buffer<int32_t>(int64_t{tiles} * kTile);
  starts_ = Buffer<int32_t>(int64_t{tiles} * kTile);
  const float inverse = 1 / code_scale_;
  for (int32_t t = 0; t < codebook.tiles; ++t) {
    double norms[kTile] = {}, losses[kTile] = {};
    const float* values = &codebook.values[int64_t{t} * dim * kTile];
    int8_t* bytes = &values_[int64_t{t} * kTile * depth];
    for (int d = 0; d < dim; ++d)
      for (int c = 0; c < kTile; ++c) {
        const float v = values[d * kTile + c];
        const int q = static_cast<int>(fminf(fmaxf(rintf(v * inverse), -127), 127));
        const double lost = double{v} - double{code_scale_} * q;
        norms[c] += double{v} * v;
        losses[c] += lost * lost;
        bytes[int64_t{c} * depth + d] = static_cast<int8_t>(q);
        sums_[int64_t{t} * kTile + c] += q;
      }
    largest_norm_ = std::max(largest_norm_, sqrt(*std::max_element(norms, norms + kTile)));
    largest_loss_ = std::max(largest_loss_, sqrt(*std::max_element(losses, losses + kTile)));
  }
}

bool Filter::set_rows(float largest) {
  row_scale_ = scale_for(largest);
  if (row_scale_ == 0) return false;
  const double unit = double{row_scale_} * code_scale_;
  for (int64_t k = 0; k < starts_.size(); ++k) {
    const double offset = k < codebook_.offsets.size() ? codebook_.offsets[k] : -INFINITY;
    starts_[k] = static_cast<int32_t>(rint(fmax(offset / unit, kLeastStart))) - 128 * sums_[k];
  }
  return true;
}

// The squared norms were summed in float32: their relative error is below (D + 4) 2^-24 < 0.002, and
// squares that underflowed add up to less than D 2^-149, far below (row_scale / 1024)^2.
double Filter::error(float squared_norm, float squared_loss) const {
  const double loss = 1.002 * sqrt(double{squared_loss}) + double{row_scale_} / 1024;
  const double norm = 1.002 * sqrt(double{squared_norm}) + double{row_scale_} / 1024;
  const double unit = double{row_scale_} * code_scale_;
  return (loss * largest_norm_ + norm * largest_loss_) * (1 + 1e-9) / unit + 1;
}

int32_t Filter::threshold(double score, double error) const {
  const double unit = double{row_scale_} * code_scale_;
  const double least = score / unit - error;
  return static_cast<int32_t>(floor(fmin(fmax(least, -0x1.fp30), 0x1p30)));
}

}  // namespace vqtok
