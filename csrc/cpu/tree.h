// The codebook as a k-d partition: boxes of neighbouring codes, for few dimensions.
#pragma once
#include "cpu/buffer.h"
#include "cpu/tree_kernel.h"

namespace vqtok {

struct PackedCodebook;

class Tree {
 public:
  explicit Tree(const PackedCodebook& codebook);

  BoxView view() const {
    return {low_.data(), high_.data(), values_.data(), offsets_.data(), codes_.data(), dim_, groups_};
  }
  int32_t boxes() const { return boxes_; }

 private:
  void place(const PackedCodebook& codebook, const Buffer<float>& rows, const int32_t* codes,
             int64_t count);

  int dim_;
  int32_t boxes_ = 0, groups_;
  Buffer<float> low_, high_, values_, offsets_;
  Buffer<int32_t> codes_;
};

}  // namespace vqtok
