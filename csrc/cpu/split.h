// The codebook in pairs of bfloat16, and how far their scores can be trusted.
#pragma once
#include "common/error_bound.h"
#include "cpu/buffer.h"
#include "cpu/split_kernel.h"

namespace vqtok {

struct PackedCodebook;

class SplitCodebook {
 public:
  explicit SplitCodebook(const PackedCodebook& codebook);

  // Words of a code: three halves for each dimension, and two for the offset.
  static int pairs_of(int64_t dim) {
    const int64_t least = dim + (dim + 1) / 2 + 2, chunk = least <= 8 ? 8 : 16;
    return static_cast<int>((least + chunk - 1) / chunk * chunk);
  }

  SplitCodes codes() const { return {values_.data(), pairs_, pairs_ < 16 ? pairs_ : 16}; }
  int pairs() const { return pairs_; }
  int32_t tiles() const { return tiles_; }
  const ErrorBound& bound() const { return bound_; }

 private:
  int pairs_;
  int32_t tiles_;  // a multiple of kSplitTiles
  ErrorBound bound_;
  Buffer<uint32_t> values_;
};

}  // namespace vqtok
