#include "cpu/nearest.h"

#include <math.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr int64_t kWholeCodebookBytes = 400 << 10;  // scanned in one go per panel up to this size
constexpr int64_t kChunkBytes = 256 << 10;          // else in chunks, each against several panels
constexpr int64_t kPanelBytes = 384 << 10;
constexpr int64_t kMaxPanels = 16;
constexpr int kHitCapacity = 4096;
constexpr double kProductsPerThread = 1e6;  // fewer are not worth waking a thread for

// How the work is cut: blocks of panels of rows, against chunks of tiles.
struct Blocking {
  Blocking(const PackedCodebook& codebook, int64_t rows, int panel_rows, int threads) {
    const int64_t tile_bytes = codebook.dim * kTile * int64_t{sizeof(float)};
    const int64_t panel_bytes = codebook.dim * panel_rows * int64_t{sizeof(float)};
    const int64_t all_panels = (rows + panel_rows - 1) / panel_rows;
    if (codebook.tiles * tile_bytes > kWholeCodebookBytes) {
      tiles = static_cast<int32_t>(std::max<int64_t>(1, kChunkBytes / tile_bytes));
      panels = std::clamp<int64_t>(kPanelBytes / panel_bytes, 1, kMaxPanels);
      panels = std::clamp<int64_t>(all_panels / (2 * threads), 1, panels);
    } else {
      tiles = std::max<int32_t>(1, codebook.tiles);
    }
    blocks = (all_panels + panels - 1) / panels;
  }
  int32_t tiles;
  int64_t panels = 1;
  int64_t blocks;
};

// The nearest code so far, by exact distance.
struct Winner {
  double distance = std::numeric_limits<double>::infinity();
  int64_t code = 0;
};

// A row whose best tile is not certain yet.
struct OpenRow {
  int64_t row;
  float threshold;  // a tile scoring below cannot hold its code
};

// One thread's share of a lookup.
class Searcher {
 public:
  Searcher(const PackedCodebook& codebook, const Matrix& x, int64_t* codes,
           const NearestKernel& kernel, const Blocking& blocking)
      : codebook_(codebook), x_(x), codes_(codes), kernel_(kernel), blocking_(blocking),
        panel_size_(codebook.dim * kernel.rows),
        converted_(x.dtype == DType::f32 ? 0 : blocking.panels * panel_size_),
        panels_(blocking.panels * panel_size_),
        norms_(blocking.panels * kernel.rows), best_(blocking.panels * kernel.rows),
        second_(blocking.panels * kernel.rows), best_tile_(blocking.panels * kernel.rows),
        exact_row_(codebook.dim) {}

  void search_block(int64_t block) {
    const int64_t first = block * blocking_.panels * kernel_.rows;
    const int64_t count = std::min(x_.rows - first, blocking_.panels * kernel_.rows);
    const int64_t panels = (count + kernel_.rows - 1) / kernel_.rows;
    for (int64_t p = 0; p < panels; ++p) pack_panel(p, first + p * kernel_.rows);
    std::fill_n(best_.data(), panels * kernel_.rows, -INFINITY);
    std::fill_n(second_.data(), panels * kernel_.rows, -INFINITY);
    std::fill_n(best_tile_.data(), panels * kernel_.rows, 0);
    for (int32_t t = 0; t < codebook_.tiles; t += blocking_.tiles)
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t at = p * kernel_.rows;
        kernel_.scan(tile_range(t, std::min(codebook_.tiles, t + blocking_.tiles)),
                     &panels_[p * panel_size_], &best_[at], &second_[at], &best_tile_[at]);
      }
    for (int64_t i = 0; i < count; ++i) settle(first + i, i);
    while (open_.size() >= static_cast<size_t>(kernel_.rows)) rescan(kernel_.rows);
  }

  void finish() { rescan(static_cast<int>(open_.size())); }

  int64_t first_bad_row() const { return first_bad_row_; }

 private:
  // Decides the last `count` open rows, one panel at most, with one more scan that notes every tile
  // that may hold the code.
  void rescan(int count) {
    if (count == 0) return;
    const OpenRow* open = open_.data() + open_.size() - count;
    Buffer<float> rows(panel_size_);
    Buffer<float> thresholds(kernel_.rows);
    std::fill_n(thresholds.data(), kernel_.rows, INFINITY);
    for (int i = 0; i < count; ++i) {
      load_row(x_, open[i].row, &rows[i * codebook_.dim]);
      thresholds[i] = open[i].threshold;
    }
    kernel_.pack(rows.data(), codebook_.dim, count, dim(), panels_.data(), norms_.data());
    std::vector<Winner> winners(count);
    std::vector<TileHit> hits(kHitCapacity);
    for (int32_t t = 0; t < codebook_.tiles;) {
      int found = 0;
      t = kernel_.collect(tile_range(t, codebook_.tiles), panels_.data(), thresholds.data(),
                          hits.data(), kHitCapacity, &found);
      // by row, so that each row is converted to float64 once; tiles stay in ascending order
      std::stable_sort(hits.begin(), hits.begin() + found,
                       [](const TileHit& a, const TileHit& b) { return a.row < b.row; });
      for (int h = 0; h < found; ++h) {
        if (h == 0 || hits[h].row != hits[h - 1].row)
          load_row(x_, open[hits[h].row].row, exact_row_.data());
        compare_tile(hits[h].tile, winners[hits[h].row]);
      }
    }
    for (int i = 0; i < count; ++i) codes_[open[i].row] = winners[i].code;
    open_.resize(open_.size() - count);
  }

  int dim() const { return static_cast<int>(codebook_.dim); }

  TileRange tile_range(int32_t begin, int32_t end) const {
    return {codebook_.values.data(), codebook_.offsets.data(), dim(), begin, end};
  }

  // Row i of the block as float32: in place, or the converted copy.
  const float* float_row(int64_t row, int64_t i) const {
    return converted_.size() ? &converted_[i * codebook_.dim] : x_.row<float>(row);
  }

  void pack_panel(int64_t p, int64_t first) {
    const int count = static_cast<int>(std::min<int64_t>(kernel_.rows, x_.rows - first));
    const int64_t at = p * kernel_.rows;
    if (converted_.size())
      for (int r = 0; r < count; ++r)
        load_row(x_, first + r, &converted_[(at + r) * codebook_.dim]);
    const int64_t stride = converted_.size() ? codebook_.dim : x_.row_stride;
    kernel_.pack(float_row(first, at), stride, count, dim(), &panels_[p * panel_size_],
                 &norms_[at]);
  }

  // Decides row i of the block from its scan, or leaves it open.
  void settle(int64_t row, int64_t i) {
    const float squared_norm = norms_[i];
    if (!(squared_norm <= codebook_.bound.squared_norm_limit)) {
      codes_[row] = search_exactly(row);
      return;
    }
    const float margin = codebook_.bound.margin(squared_norm);
    if (!(best_[i] - second_[i] > margin)) {
      open_.push_back({row, best_[i] - margin});
      return;
    }
    const int32_t tile = best_tile_[i];
    alignas(32) float scores[kTile];
    kernel_.score_tile(&codebook_.values[tile * codebook_.dim * kTile],
                       &codebook_.offsets[int64_t{tile} * kTile], float_row(row, i), dim(), scores);
    int best = 0, rivals = 0;
    for (int c = 1; c < kTile; ++c) best = scores[c] > scores[best] ? c : best;
    for (int c = 0; c < kTile; ++c) rivals += scores[c] >= scores[best] - margin;
    if (rivals == 1) {
      codes_[row] = int64_t{tile} * kTile + best;
      return;
    }
    load_row(x_, row, exact_row_.data());
    Winner winner;
    compare_tile(tile, winner);
    codes_[row] = winner.code;
  }

  // Lets the codes of a tile compete for the row in exact_row_. Tiles must come in ascending order.
  void compare_tile(int32_t tile, Winner& winner) const {
    alignas(64) double distances[kTile];
    const int64_t at = tile * codebook_.dim * kTile;
    if (codebook_.exact_values.size())
      kernel_.distances_f64(&codebook_.exact_values[at], exact_row_.data(), dim(), distances);
    else
      kernel_.distances_f32(&codebook_.values[at], exact_row_.data(), dim(), distances);
    for (int c = 0; c < kTile; ++c)
      if (distances[c] < winner.distance && (codebook_.usable[tile] >> c & 1))
        winner = {distances[c], int64_t{tile} * kTile + c};
  }

  // For rows out of float32's safe range, NaN and Inf included.
  int64_t search_exactly(int64_t row) {
    load_row(x_, row, exact_row_.data());
    for (int64_t d = 0; d < codebook_.dim; ++d)
      if (!isfinite(exact_row_[d])) {
        if (first_bad_row_ < 0 || row < first_bad_row_) first_bad_row_ = row;
        return 0;
      }
    Winner winner;
    for (int32_t t = 0; t < codebook_.tiles; ++t) compare_tile(t, winner);
    return winner.code;
  }

  const PackedCodebook& codebook_;
  const Matrix& x_;
  int64_t* codes_;
  const NearestKernel& kernel_;
  const Blocking& blocking_;
  int64_t panel_size_;
  Buffer<float> converted_;  // the block's rows as float32, if they are not
  Buffer<float> panels_, norms_, best_, second_;
  Buffer<int32_t> best_tile_;
  Buffer<double> exact_row_;
  std::vector<OpenRow> open_;
  int64_t first_bad_row_ = -1;
};

}  // namespace

int64_t nearest(const PackedCodebook& codebook, const Matrix& x, int64_t* codes, int threads,
                const NearestKernel& kernel) {
  const double products = static_cast<double>(x.rows) * codebook.dim * codebook.size;
  threads = static_cast<int>(std::clamp(products / kProductsPerThread, 1.0, double(threads)));
  const Blocking blocking(codebook, x.rows, kernel.rows, threads);
  std::atomic<int64_t> next{0};
  std::mutex lock;
  int64_t first_bad_row = -1;
  run_team(static_cast<int>(std::min<int64_t>(threads, blocking.blocks)), [&](int, int) {
    Searcher searcher(codebook, x, codes, kernel, blocking);
    for (int64_t block; (block = next++) < blocking.blocks;) searcher.search_block(block);
    searcher.finish();
    std::lock_guard<std::mutex> hold(lock);
    const int64_t bad = searcher.first_bad_row();
    if (bad >= 0 && (first_bad_row < 0 || bad < first_bad_row)) first_bad_row = bad;
  });
  return first_bad_row;
}

}  // namespace vqtok
