#include "cpu/exact_search.h"

#include <math.h>

#include <algorithm>

namespace vqtok {
namespace {

constexpr int kHitCapacity = 4096;

}  // namespace

ExactSearch::ExactSearch(const Lookup& lookup) : lookup_(lookup), row_(lookup.codebook.dim) {}

void ExactSearch::search_all(int64_t row) {
  load_row(lookup_.x, row, row_.data());
  Winner winner;
  const bool finite = std::all_of(row_.data(), row_.data() + lookup_.dim(),
                                  [](double v) { return isfinite(v); });
  if (finite)
    for (int32_t t = 0; t < lookup_.codebook.tiles; ++t) compare_tile(t, winner);
  else if (first_bad_row_ < 0 || row < first_bad_row_)
    first_bad_row_ = row;
  lookup_.codes[row] = winner.code;
}

void ExactSearch::search_tiles(int64_t row, const int32_t* tiles, int count) {
  load_row(lookup_.x, row, row_.data());
  Winner winner;
  for (int i = 0; i < count; ++i) compare_tile(tiles[i], winner);
  lookup_.codes[row] = winner.code;
}

void ExactSearch::leave_open(int64_t row, float threshold) {
  open_.push_back({row, threshold});
  if (open_.size() == static_cast<size_t>(lookup_.kernel.rows)) scan_open(lookup_.kernel.rows);
}

// Decides the last `count` open rows, one panel at most, with a scan that notes every tile that may
// hold the code.
void ExactSearch::scan_open(int count) {
  if (count == 0) return;
  const NearestKernel& kernel = lookup_.kernel;
  const int dim = lookup_.dim();
  const OpenRow* open = open_.data() + open_.size() - count;
  Buffer<float> rows(int64_t{count} * dim), panel(int64_t{kernel.rows} * dim);
  Buffer<float> norms(kernel.rows), thresholds(kernel.rows);
  std::fill_n(thresholds.data(), kernel.rows, INFINITY);
  for (int i = 0; i < count; ++i) {
    load_row(lookup_.x, open[i].row, &rows[int64_t{i} * dim]);
    thresholds[i] = open[i].threshold;
  }
  kernel.pack({rows.data(), dim, count}, dim, panel.data(), norms.data());
  std::vector<Winner> winners(count);
  std::vector<TileHit> hits(kHitCapacity);
  for (int32_t t = 0; t < lookup_.codebook.tiles;) {
    int found = 0;
    t = kernel.collect(lookup_.tiles(t, lookup_.codebook.tiles), panel.data(), thresholds.data(),
                       hits.data(), kHitCapacity, &found);
    // by row, so that each row is converted to float64 once; tiles stay in ascending order
    std::stable_sort(hits.begin(), hits.begin() + found,
                     [](const TileHit& a, const TileHit& b) { return a.row < b.row; });
    for (int h = 0; h < found; ++h) {
      if (h == 0 || hits[h].row != hits[h - 1].row)
        load_row(lookup_.x, open[hits[h].row].row, row_.data());
      compare_tile(hits[h].tile, winners[hits[h].row]);
    }
  }
  for (int i = 0; i < count; ++i) lookup_.codes[open[i].row] = winners[i].code;
  open_.resize(open_.size() - count);
}

// Lets the codes of a tile compete for the row in row_. Tiles must come in ascending order.
void ExactSearch::compare_tile(int32_t tile, Winner& winner) const {
  const PackedCodebook& codebook = lookup_.codebook;
  alignas(64) double distances[kTile];
  const int64_t at = tile * codebook.dim * kTile;
  if (codebook.exact_values.size())
    lookup_.kernel.distances_f64(&codebook.exact_values[at], row_.data(), lookup_.dim(), distances);
  else
    lookup_.kernel.distances_f32(&codebook.values[at], row_.data(), lookup_.dim(), distances);
  for (int c = 0; c < kTile; ++c)
    if (distances[c] < winner.distance && (codebook.usable[tile] >> c & 1))
      winner = {distances[c], int64_t{tile} * kTile + c};
}

}  // namespace vqtok
