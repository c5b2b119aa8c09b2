#include "cpu/panels.h"

namespace vqtok {
namespace {

// Tiles of a panel that is not aligned are loaded more slowly.
template <class T> void make_room(Buffer<T>& buffer, int64_t size) {
  if (buffer.size() < size) buffer = Buffer<T>(size);
}

}  // namespace

void Panels::prepare(const PackedCodebook& codebook, const SplitCodebook* split, int64_t count) {
  codebook_ = &codebook;
  split_ = split;
  size_ = (split ? split->layout().words : codebook.dim) * kernel_.rows;
  make_room(values_, split ? codebook.dim * kernel_.rows : count * size_);
  if (split) make_room(split_values_, count * size_);
}

void Panels::pack(int64_t panel, PanelRows rows, float* margins) {
  float* values = &values_[split_ ? 0 : panel * size_];
  kernel_.pack(rows, dim(), values, margins);
  if (split_) kernel_.split->split(split_->layout(), values, &split_values_[panel * size_]);
  kernel_.margins(margins, terms_of(split_ ? split_->bound() : codebook_->bound), margins);
}

void Panels::scan(int64_t panel, int32_t begin, int32_t end, PanelScan scan) const {
  if (split_)
    kernel_.split->scan(split_->codes(), begin, end, &split_values_[panel * size_], scan);
  else
    kernel_.scan(range(begin, end), &values_[panel * size_], scan);
}

void Panels::scan_tops(int64_t panel, int32_t begin, int32_t end, int count, float* maxima,
                       float* tops) const {
  if (split_)
    kernel_.split->scan_tops(split_->codes(), begin, end, &split_values_[panel * size_], count,
                             maxima, tops);
  else
    kernel_.scan_tops(range(begin, end), &values_[panel * size_], count, maxima, tops);
}

}  // namespace vqtok
