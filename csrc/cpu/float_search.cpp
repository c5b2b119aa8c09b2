#include "cpu/float_search.h"

#include <math.h>

#include <algorithm>

namespace vqtok {
namespace {

constexpr int64_t kWholeCodebookBytes = 400 << 10;  // scanned in one go per panel up to this size
constexpr int64_t kChunkBytes = 256 << 10;          // else in chunks, each against several panels
constexpr int64_t kPanelBytes = 384 << 10;
constexpr int64_t kMaxPanels = 16;

}  // namespace

Blocking::Blocking(const PackedCodebook& codebook, int64_t rows_, int panel_rows_, int threads)
    : rows(rows_), panel_rows(panel_rows_) {
  const int64_t tile_bytes = codebook.dim * kTile * int64_t{sizeof(float)};
  const int64_t panel_bytes = codebook.dim * panel_rows * int64_t{sizeof(float)};
  const int64_t all_panels = (rows + panel_rows - 1) / panel_rows;
  if (codebook.tiles * tile_bytes > kWholeCodebookBytes) {
    const int64_t groups = kChunkBytes / (tile_bytes * kSplitTiles);
    tiles = static_cast<int32_t>(std::max<int64_t>(1, groups) * kSplitTiles);
    panels = std::clamp<int64_t>(kPanelBytes / panel_bytes, 1, kMaxPanels);
    if (threads > 1) panels = std::clamp<int64_t>(all_panels / (2 * threads), 1, panels);
    panels = std::clamp<int64_t>(all_panels, 1, panels);
  } else {
    tiles = codebook.tiles + kSplitTiles;  // at least all of them, padding included
  }
  blocks = (all_panels + panels - 1) / panels;
}

void FloatRows::load(int64_t first, int64_t count) {
  first_ = first;
  if (converted_.size())
    for (int64_t i = 0; i < count; ++i) load_row(x_, first + i, &converted_[i * x_.dim]);
}

FloatSearch::FloatSearch(const Lookup& lookup, const Blocking& blocking,
                         const SplitCodebook* split, ExactSearch& exact)
    : lookup_(lookup), blocking_(blocking), exact_(exact),
      rows_(lookup.x, blocking.panels * blocking.panel_rows), panels_(lookup.kernel),
      margins_(blocking.panels * blocking.panel_rows), best_(margins_.size()),
      second_(margins_.size()), best_tile_(margins_.size()) {
  panels_.prepare(lookup.codebook, split, blocking.panels);
}

void Found::merge(const Found& other, int64_t rows) const {
  for (int64_t i = 0; i < rows; ++i) {
    const float lower = std::min(best[i], other.best[i]);
    if (other.best[i] > best[i]) where[i] = other.where[i];
    best[i] = std::max(best[i], other.best[i]);
    second[i] = std::max({second[i], other.second[i], lower});
  }
}

PanelScan FloatSearch::panel_scan(int64_t panel) {
  const int64_t at = panel * blocking_.panel_rows;
  return {&best_[at], &second_[at], &best_tile_[at]};
}

int FloatSearch::panel_count(int64_t block, int64_t panel) const {
  const int64_t left = blocking_.row_count(block) - panel * blocking_.panel_rows;
  return static_cast<int>(std::clamp<int64_t>(left, 0, blocking_.panel_rows));
}

void FloatSearch::scan(int64_t block, int32_t begin, int32_t end) {
  const int rows = blocking_.panel_rows;
  const int64_t panels = blocking_.panel_count(block);
  rows_.load(blocking_.first_row(block), blocking_.row_count(block));
  for (int64_t p = 0; p < panels; ++p)
    panels_.pack(p, rows_.panel(p * rows, panel_count(block, p)), &margins_[p * rows]);
  std::fill_n(best_.data(), panels * rows, -INFINITY);
  std::fill_n(second_.data(), panels * rows, -INFINITY);
  std::fill_n(best_tile_.data(), panels * rows, 0);
  for (int32_t t = begin; t < end; t += blocking_.tiles) {
    const int32_t chunk_end = std::min(end, t + blocking_.tiles);
    for (int64_t p = 0; p < panels; ++p) panels_.scan(p, t, chunk_end, panel_scan(p));
  }
}

int64_t FloatSearch::settle(int64_t block) {
  int64_t open = 0;
  for (int64_t p = 0; p < blocking_.panel_count(block); ++p)
    open += settle_panel(blocking_.first_row(block), p, panel_count(block, p));
  return open;
}

int64_t FloatSearch::settle_panel(int64_t first, int64_t panel, int count) {
  const int64_t at = panel * blocking_.panel_rows;
  const PanelScan found = panel_scan(panel);
  const float* margins = &margins_[at];
  uint64_t open = lookup_.kernel.settle(lookup_.tiles(0, lookup_.codebook.tiles),
                                        rows_.panel(at, count), found, margins,
                                        lookup_.codes + first + at);
  int64_t left_open = 0;
  for (; open; open &= open - 1) {
    const int r = __builtin_ctzll(open);
    const int64_t row = first + at + r;
    if (margins[r] == INFINITY) {
      exact_.search_all(row);
    } else if (found.best[r] - found.second[r] > margins[r]) {
      exact_.search_tiles(row, &found.best_tile[r], 1);
    } else {
      exact_.leave_open(row, found.best[r] - margins[r]);
      ++left_open;
    }
  }
  return left_open;
}

}  // namespace vqtok
