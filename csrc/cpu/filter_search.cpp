#include "cpu/filter_search.h"

#include <math.h>

#include <algorithm>

namespace vqtok {
namespace {

constexpr int64_t kChunkBytes = 256 << 10;  // of codes, looked at by all panels of a block in turn
constexpr int32_t kMaxChunkTiles = 128;

int32_t chunk_tiles(const Filter& filter) {
  const int64_t fit = kChunkBytes / (int64_t{kTile} * filter.depth) / 4 * 4;
  return static_cast<int32_t>(std::clamp<int64_t>(fit, 4, std::min(kMaxChunkTiles, filter.tiles)));
}

// Roughly, in cycles with vectors of 512 bits: scoring a row's tile, and all codes of a chunk.
double rescoring_cost(double hits, int64_t dim) { return hits * (30 + 0.6 * double(dim)); }
double scanning_cost(int32_t tiles, int64_t dim) { return tiles * kTile * double(dim) / 32; }

}  // namespace

FilterSearch::FilterSearch(const Lookup& lookup, const Blocking& blocking, const Filter& filter,
                           ExactSearch& exact)
    : lookup_(lookup), blocking_(blocking), filter_(filter), exact_(exact),
      chunk_tiles_(chunk_tiles(filter)), rows_(lookup.x, blocking.panels * kFilterRows),
      panel_(lookup.codebook.dim * kFilterRows),
      bytes_(blocking.panels * kFilterRows * filter.depth), maxima_(chunk_tiles_ * kFilterRows),
      margins_(blocking.panels * kFilterRows), best_(margins_.size()), second_(margins_.size()),
      errors_(margins_.size()), code_(margins_.size()), thresholds_(margins_.size()),
      tile_(kFilterRows), hits_(chunk_tiles_ * kFilterRows) {}

bool FilterSearch::search(int64_t block, bool insist) {
  const int64_t first = blocking_.first_row(block), count = blocking_.row_count(block);
  const int64_t panels = (count + kFilterRows - 1) / kFilterRows;
  const auto count_of = [&](int64_t p) {
    return static_cast<int>(std::min<int64_t>(kFilterRows, count - p * kFilterRows));
  };
  rows_.load(first, count);
  for (int64_t p = 0; p < panels; ++p) pack(p, count_of(p));
  for (int32_t t = 0; t < filter_.tiles; t += chunk_tiles_) {
    const int32_t end = std::min(filter_.tiles, t + chunk_tiles_);
    int64_t hits = 0;
    for (int64_t p = 0; p < panels; ++p) hits += search_chunk(p, count_of(p), t, end);
    const double cost = rescoring_cost(double(hits) / double(count), lookup_.codebook.dim);
    if (t == 0 && !insist && cost > 0.6 * scanning_cost(end, lookup_.codebook.dim)) return false;
  }
  for (int64_t p = 0; p < panels; ++p) settle(first, p, count_of(p));
  return true;
}

RowScores FilterSearch::scores(int64_t panel) {
  const int64_t at = panel * kFilterRows;
  return {&best_[at], &second_[at], &code_[at]};
}

void FilterSearch::pack(int64_t panel, int count) {
  const int64_t at = panel * kFilterRows;
  float norms[kFilterRows], losses[kFilterRows];
  lookup_.kernel.pack(rows_.panel(at, count), lookup_.dim(), panel_.data(), norms);
  lookup_.kernel.margins(norms, lookup_.margin_terms(), &margins_[at]);
  lookup_.kernel.filter->round(panel_.data(), lookup_.dim(), filter_.depth, filter_.row_scale(),
                               &bytes_[at * filter_.depth], norms, losses);
  for (int r = 0; r < kFilterRows; ++r) errors_[at + r] = filter_.error(norms[r], losses[r]);
  std::fill_n(&best_[at], kFilterRows, -INFINITY);
  std::fill_n(&second_[at], kFilterRows, -INFINITY);
}

// Looks at the codes of some tiles, and scores those that may be nearest. Returns how many.
int64_t FilterSearch::search_chunk(int64_t panel, int count, int32_t begin, int32_t end) {
  const FilterKernel& kernel = *lookup_.kernel.filter;
  const int64_t at = panel * kFilterRows;
  const TileRange tiles = lookup_.tiles(0, lookup_.codebook.tiles);
  const PanelRows rows = rows_.panel(at, count);
  kernel.scan(filter_.codes(), begin, end, &bytes_[at * filter_.depth], maxima_.data());
  if (begin == 0) {  // a first score to compare with
    kernel.best_tiles(maxima_.data(), begin, std::min(end, lookup_.codebook.tiles), tile_.data());
    for (int r = 0; r < count; ++r) hits_[r] = {r, tile_[r]};
    kernel.rescore(tiles, rows, hits_.data(), count, &margins_[at], scores(panel));
  } else {
    std::fill_n(tile_.data(), kFilterRows, -1);
  }
  set_thresholds(panel, count);
  const int hits = kernel.collect(maxima_.data(), begin, std::min(end, lookup_.codebook.tiles),
                                  &thresholds_[at], tile_.data(), hits_.data());
  kernel.rescore(tiles, rows, hits_.data(), hits, &margins_[at], scores(panel));
  return hits;
}

void FilterSearch::set_thresholds(int64_t panel, int count) {
  for (int64_t i = panel * kFilterRows; i < (panel + 1) * kFilterRows; ++i) {
    const bool safe = i - panel * kFilterRows < count && margins_[i] != INFINITY;
    thresholds_[i] = safe ? filter_.threshold(double{best_[i]} - margins_[i], errors_[i])
                          : std::numeric_limits<int32_t>::max();
  }
}

void FilterSearch::settle(int64_t first, int64_t panel, int count) {
  for (int64_t i = panel * kFilterRows; i < panel * kFilterRows + count; ++i) {
    if (best_[i] - second_[i] > margins_[i])
      lookup_.codes[first + i] = code_[i];
    else if (margins_[i] == INFINITY)
      exact_.search_all(first + i);
    else
      exact_.leave_open(first + i, best_[i] - margins_[i]);
  }
}

}  // namespace vqtok
