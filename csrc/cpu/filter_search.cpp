#include "cpu/filter_search.h"

#include <math.h>

#include <algorithm>

namespace vqtok {
namespace {

constexpr int32_t kListTiles = 32;  // whose codes are listed at a time
constexpr int64_t kMaximaBytes = kFilterRows * sizeof(int32_t);  // of a tile

// Tiles whose bytes, and maxima for one panel, stay in the second-level cache.
int32_t choose_chunk(const ByteCodebook& book) {
  constexpr int64_t kCache = 400 << 10;
  const int64_t tiles = kCache / (kTile * book.depth + kMaximaBytes);
  const int64_t whole = std::max<int64_t>(tiles / kListTiles, 1) * kListTiles;
  return static_cast<int32_t>(std::min<int64_t>(whole, book.tiles));
}

// Tiles looked at before codes are listed. As many as may be, for the best of all of them leaves
// fewer codes to score than that of some.
int32_t choose_span(const ByteCodebook& book, int32_t chunk, int64_t panels) {
  constexpr int64_t kMost = 2 << 20;  // bytes of maxima, of all panels together
  const int64_t tiles = std::max<int64_t>(kMost / (panels * kMaximaBytes) / chunk, 1) * chunk;
  return static_cast<int32_t>(std::min<int64_t>(tiles, book.tiles));
}

// Up to how many codes of a row are scored faster one by one than all together. Roughly, in cycles
// with vectors of 512 bits: a code alone takes 40 + dim / 7, a code among all of them dim / 32.
double most_hits(const PackedCodebook& codebook) {
  const double dim = double(codebook.dim);
  return 0.6 * double(codebook.size) * dim / 32 / (40 + dim / 7);
}

}  // namespace

FilterSearch::FilterSearch(const Lookup& lookup, const Blocking& blocking, const Filter& filter,
                           ExactSearch& exact)
    : lookup_(lookup), blocking_(blocking), filter_(filter), kernel_(*lookup.kernel.filter),
      codes_{lookup.rows ? lookup.rows : lookup.codebook.rows(), filter.book().offsets.data(),
             lookup.codebook.size, lookup.dim()},
      exact_(exact), chunk_tiles_(choose_chunk(filter.book())),
      together_(chunk_tiles_ < filter.book().tiles ? blocking.panels : 1),
      span_tiles_(choose_span(filter.book(), chunk_tiles_, together_)),
      rows_(lookup.x, blocking.panels * kFilterRows),
      bytes_(blocking.panels * kFilterRows * filter.book().depth, Fill::nothing),
      panels_(bytes_.size(), Fill::nothing),
      maxima_(together_ * span_tiles_ * kFilterRows, Fill::nothing),
      margins_(blocking.panels * kFilterRows), errors_(margins_.size()), best_(margins_.size()),
      second_(margins_.size()), code_(margins_.size()),
      scratch_(kListTiles * kFilterRows + 16, Fill::nothing),
      hits_(kListTiles * kTile * kFilterRows + 16, Fill::nothing) {}

bool FilterSearch::scan(int64_t block, int32_t begin, int32_t end, bool insist) {
  const int64_t count = blocking_.row_count(block), panels = blocking_.panel_count(block);
  const auto count_of = [&](int64_t p) {
    return static_cast<int>(std::min<int64_t>(kFilterRows, count - p * kFilterRows));
  };
  rows_.load(blocking_.first_row(block), count);
  for (int64_t p = 0; p < panels; ++p) pack(p, count_of(p));
  const double per_row =
      insist ? INFINITY : most_hits(lookup_.codebook) * double(end - begin) / double(tiles());
  double left = 0;  // codes that may come through before it is not worth while
  for (int64_t first = 0; first < panels; first += together_) {
    const int64_t last = std::min(panels, first + together_);
    for (int32_t t = begin; t < end; t += span_tiles_) {
      const int32_t span_end = std::min(end, t + span_tiles_);
      for (int32_t u = t; u < span_end; u += chunk_tiles_)
        for (int64_t p = first; p < last; ++p)
          kernel_.scan(filter_.codes(), u, std::min(span_end, u + chunk_tiles_),
                       &panels_[p * kFilterRows * filter_.book().depth],
                       &maxima_[((p - first) * span_tiles_ + u - t) * kFilterRows]);
      for (int64_t p = first; p < last; ++p) {
        if (t == begin) left += per_row * count_of(p);
        const int32_t* maxima = &maxima_[(p - first) * span_tiles_ * kFilterRows];
        if (!look(p, count_of(p), t, span_end, maxima, t == begin, left)) return false;
      }
    }
  }
  return true;
}

RowScores FilterSearch::scores(int64_t panel) {
  const int64_t at = panel * kFilterRows;
  return {&best_[at], &second_[at], &code_[at]};
}

void FilterSearch::pack(int64_t panel, int count) {
  const int64_t at = panel * kFilterRows;
  const int depth = filter_.book().depth;
  kernel_.round(rows_.panel(at, count), lookup_.dim(), depth, filter_.terms(), &bytes_[at * depth],
                &panels_[at * depth], &errors_[at], &margins_[at]);
  lookup_.kernel.margins(&margins_[at], lookup_.margin_terms(), &margins_[at]);
  std::fill(&margins_[at + count], &margins_[at + kFilterRows], INFINITY);
  std::fill_n(&best_[at], kFilterRows, -INFINITY);
  std::fill_n(&second_[at], kFilterRows, -INFINITY);
}

// Scores the codes of some tiles that may be nearest. False if these are more than are left, from
// which they are taken.
bool FilterSearch::look(int64_t panel, int count, int32_t begin, int32_t end,
                        const int32_t* maxima, bool first, double& left) {
  const int64_t at = panel * kFilterRows;
  const FilterCodes codes = filter_.codes();
  const PanelRows rows = rows_.panel(at, count);
  const uint8_t* bytes = &bytes_[at * codes.depth];
  int32_t scored[kFilterRows], thresholds[kFilterRows];
  end = std::min(end, lookup_.codebook.tiles);
  std::fill_n(scored, kFilterRows, -1);
  if (first) {  // a first score to compare with
    kernel_.best_codes(codes, begin, end, maxima, bytes, count, scored);
    for (int r = 0; r < count; ++r) hits_[r] = {r, scored[r]};
    kernel_.rescore(codes_, rows, hits_.data(), count, scores(panel));
  }
  for (int32_t t = begin; t < end; t += kListTiles) {
    kernel_.thresholds(&best_[at], &margins_[at], &errors_[at], filter_.inverse_unit(), thresholds);
    const int found = kernel_.collect(codes, t, std::min(end, t + kListTiles),
                                      maxima + int64_t{t - begin} * kFilterRows, bytes, thresholds,
                                      scored, scratch_.data(), hits_.data());
    if ((left -= found) < 0) return false;
    kernel_.rescore(codes_, rows, hits_.data(), found, scores(panel));
  }
  return true;
}

void FilterSearch::settle(int64_t block) {
  const int64_t first = blocking_.first_row(block);
  for (int64_t i = 0; i < blocking_.row_count(block); ++i) {
    if (best_[i] - second_[i] > margins_[i])
      lookup_.codes[first + i] = code_[i];
    else if (margins_[i] == INFINITY)
      exact_.search_all(first + i);
    else
      exact_.leave_open(first + i, best_[i] - margins_[i]);
  }
}

}  // namespace vqtok
