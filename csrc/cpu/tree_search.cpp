#include "cpu/tree_search.h"

#include <algorithm>

namespace vqtok {
namespace {

constexpr int kCapacity = 128;

}  // namespace

TreeSearch::TreeSearch(const Lookup& lookup, const Blocking& blocking, const Tree& tree,
                       ExactSearch& exact)
    : lookup_(lookup), blocking_(blocking), tree_(tree), exact_(exact),
      rows_(lookup.x, blocking.panels * blocking.panel_rows),
      bounds_(int64_t{tree.view().groups} * kBoxGroup) {}

void TreeSearch::search(int64_t block) {
  const int64_t first = blocking_.first_row(block), count = blocking_.row_count(block);
  rows_.load(first, count);
  for (int64_t i = 0; i < count; ++i) search_row(first + i, rows_.panel(i, 1).row(0));
}

double TreeSearch::sample(int64_t count) {
  const int64_t step = lookup_.x.rows / count;
  for (int64_t i = 0; i < count; ++i) {
    rows_.load(i * step, 1);
    search_row(i * step, rows_.panel(0, 1).row(0));
  }
  return double(visited_) / double(count);
}

void TreeSearch::search_row(int64_t row, const float* values) {
  float squared_norm = 0;
  for (int d = 0; d < lookup_.dim(); ++d) squared_norm += values[d] * values[d];
  const ErrorBound& bound = lookup_.codebook.bound;
  if (!(squared_norm <= bound.squared_norm_limit)) return exact_.search_all(row);
  const float margin = bound.margin(squared_norm);
  TreeHit hits[kCapacity];
  const int found = lookup_.kernel.tree->search(tree_.view(), {values, squared_norm, margin},
                                                bounds_.data(), hits, kCapacity, &visited_);
  if (found < 0) {
    visited_ += tree_.boxes();  // the row is still to be settled, at the price of all
    return exact_.leave_open(row, hits[0].score - margin);
  }
  if (found == 1) {
    lookup_.codes[row] = hits[0].code;
    return;
  }
  int32_t tiles[kCapacity];
  for (int i = 0; i < found; ++i) tiles[i] = hits[i].code / kTile;
  std::sort(tiles, tiles + found);
  exact_.search_tiles(row, tiles, static_cast<int>(std::unique(tiles, tiles + found) - tiles));
}

}  // namespace vqtok
