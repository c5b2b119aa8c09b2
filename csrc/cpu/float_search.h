// The plain method of the lookup: every code is scored in float32.
#pragma once
#include "cpu/exact_search.h"

namespace vqtok {

// How the work is cut: blocks of panels of rows, against chunks of tiles.
struct Blocking {
  Blocking(const PackedCodebook& codebook, int64_t rows, int panel_rows, int threads);

  int64_t first_row(int64_t block) const { return block * panels * panel_rows; }
  int64_t row_count(int64_t block) const {
    const int64_t left = rows - first_row(block), most = panels * panel_rows;
    return left < most ? left : most;
  }

  int64_t rows;
  int panel_rows;
  int32_t tiles;       // per chunk
  int64_t panels = 1;  // per block
  int64_t blocks;
};

// The rows of a block as float32: in place, or a converted copy.
class FloatRows {
 public:
  FloatRows(const Matrix& x, int64_t most)
      : x_(x), converted_(x.dtype == DType::f32 ? 0 : most * x.dim) {}

  void load(int64_t first, int64_t count);

  // `count` rows from row i of the block on.
  PanelRows panel(int64_t i, int count) const {
    if (converted_.size()) return {&converted_[i * x_.dim], x_.dim, count};
    return {x_.row<float>(first_ + i), x_.row_stride, count};
  }

 private:
  const Matrix& x_;
  Buffer<float> converted_;
  int64_t first_ = 0;
};

// One thread's share of a lookup.
class FloatSearch {
 public:
  FloatSearch(const Lookup& lookup, const Blocking& blocking, ExactSearch& exact);

  void search(int64_t block);

 private:
  void settle(int64_t first, int64_t panel, int count);
  PanelScan scan(int64_t panel);

  const Lookup& lookup_;
  const Blocking& blocking_;
  ExactSearch& exact_;
  int64_t panel_size_;
  FloatRows rows_;
  Buffer<float> panels_, margins_, best_, second_;
  Buffer<int32_t> best_tile_;
};

}  // namespace vqtok
