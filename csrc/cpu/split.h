// The codebook in halves of bfloat16, and how far their scores can be trusted.
#pragma once
#include "common/error_bound.h"
#include "cpu/buffer.h"
#include "cpu/split_kernel.h"

namespace vqtok {

struct PackedCodebook;

SplitLayout split_layout(int64_t dim);

class SplitCodebook {
 public:
  explicit SplitCodebook(const PackedCodebook& codebook);

  SplitCodes codes() const { return {layout_, values_.data(), offsets_.data()}; }
  const SplitLayout& layout() const { return layout_; }
  int32_t tiles() const { return tiles_; }
  const ErrorBound& bound() const { return bound_; }

 private:
  SplitLayout layout_;
  int32_t tiles_;  // a multiple of kSplitTiles
  ErrorBound bound_;
  Buffer<uint32_t> values_;
  Buffer<float> offsets_;
};

}  // namespace vqtok
