// Panels of rows, scored against all codes in float32 or by split values.
#pragma once
#include <stdint.h>

#include "cpu/buffer.h"
#include "cpu/nearest.h"

namespace vqtok {

// One thread's; keeps its memory from one use to the next.
class Panels {
 public:
  explicit Panels(const NearestKernel& kernel) : kernel_(kernel) {}

  // Makes room for panels of rows that go with this codebook, by split values if these are given.
  void prepare(const PackedCodebook& codebook, const SplitCodebook* split, int64_t count);

  // Packs the rows of one panel; margins [rows] as in NearestKernel.
  void pack(int64_t panel, PanelRows rows, float* margins);

  // As in NearestKernel; with split values, tiles come in multiples of kSplitTiles.
  void scan(int64_t panel, int32_t begin, int32_t end, PanelScan scan) const;
  void scan_tops(int64_t panel, int32_t begin, int32_t end, int count, float* maxima,
                 float* tops) const;

  int32_t tiles() const { return split_ ? split_->tiles() : codebook_->tiles; }

 private:
  TileRange range(int32_t begin, int32_t end) const {
    return {codebook_->values.data(), codebook_->offsets.data(), dim(), begin, end};
  }
  int dim() const { return static_cast<int>(codebook_->dim); }

  const NearestKernel& kernel_;
  const PackedCodebook* codebook_ = nullptr;
  const SplitCodebook* split_ = nullptr;
  int64_t size_ = 0;      // of a panel
  Buffer<float> values_;  // of one panel alone if they are split
  Buffer<uint32_t> split_values_;
};

}  // namespace vqtok
