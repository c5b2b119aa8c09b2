// The plain method of the lookup: every code is scored, in float32 or by split values.
#pragma once
#include "cpu/exact_search.h"
#include "cpu/panels.h"

namespace vqtok {

// How the work is cut: blocks of panels of rows, against chunks of tiles.
struct Blocking {
  Blocking(const PackedCodebook& codebook, int64_t rows, int panel_rows, int threads);

  int64_t first_row(int64_t block) const { return block * panels * panel_rows; }
  int64_t row_count(int64_t block) const {
    const int64_t left = rows - first_row(block), most = panels * panel_rows;
    return left < most ? left : most;
  }

  int64_t panel_count(int64_t block) const {
    return (row_count(block) + panel_rows - 1) / panel_rows;
  }

  int64_t rows;
  int panel_rows;
  int32_t tiles;       // per chunk: all, or a multiple of kSplitTiles
  int64_t panels = 1;  // per block
  int64_t blocks;
};

// The best of some of the codes for the rows of a block. A score left out of `second` is more than
// the row's margin below `best`.
struct Found {
  float *best, *second;
  int32_t* where;  // best: its tile, or its code

  // Adds what was found among other codes.
  void merge(const Found& other, int64_t rows) const;
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
  // By split values if these are given.
  FloatSearch(const Lookup& lookup, const Blocking& blocking, const SplitCodebook* split,
              ExactSearch& exact);

  // Decides the rows of a block; returns how many of them it had to leave for another scan.
  int64_t search(int64_t block) {
    scan(block, 0, tiles());
    return settle(block);
  }

  // The two halves of it, the first for some of the tiles, from a multiple of kSplitTiles on.
  void scan(int64_t block, int32_t begin, int32_t end);
  int64_t settle(int64_t block);

  int32_t tiles() const { return panels_.tiles(); }

  Found found() { return {best_.data(), second_.data(), best_tile_.data()}; }

 private:
  int64_t settle_panel(int64_t first, int64_t panel, int count);
  PanelScan panel_scan(int64_t panel);
  int panel_count(int64_t block, int64_t panel) const;

  const Lookup& lookup_;
  const Blocking& blocking_;
  ExactSearch& exact_;
  FloatRows rows_;
  Panels panels_;
  Buffer<float> margins_, best_, second_;
  Buffer<int32_t> best_tile_;
};

}  // namespace vqtok
