#include "cpu/filter_search.h"

#include <math.h>

#include <algorithm>

namespace vqtok {
namespace {

// Tiles looked at by all panels of a block in turn: their bytes and sums stay in the second-level
// cache. As many as fit, for the best of all of them leaves fewer codes to score than that of some.
int32_t choose_chunk(const ByteCodebook& book) {
  constexpr int64_t kCache = 400 << 10, kSums = kTile * kFilterRows * sizeof(int32_t);
  const int64_t tiles = kCache / (kTile * book.depth + kSums);
  return static_cast<int32_t>(std::min<int64_t>(std::max<int64_t>(tiles / 4 * 4, 4), book.tiles));
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
      rows_(lookup.x, blocking.panels * kFilterRows), panel_(lookup.codebook.dim * kFilterRows),
      bytes_(blocking.panels * kFilterRows * filter.book().depth),
      sums_(chunk_tiles_ * kTile * kFilterRows, Fill::nothing),
      maxima_(chunk_tiles_ * kFilterRows, Fill::nothing),
      margins_(blocking.panels * kFilterRows), errors_(margins_.size()), best_(margins_.size()),
      second_(margins_.size()), code_(margins_.size()), scratch_(maxima_.size() + 16, Fill::nothing),
      hits_(sums_.size() + 16, Fill::nothing) {}

bool FilterSearch::scan(int64_t block, int32_t begin, int32_t end, bool insist) {
  const int64_t count = blocking_.row_count(block), panels = blocking_.panel_count(block);
  const auto count_of = [&](int64_t p) {
    return static_cast<int>(std::min<int64_t>(kFilterRows, count - p * kFilterRows));
  };
  rows_.load(blocking_.first_row(block), count);
  for (int64_t p = 0; p < panels; ++p) pack(p, count_of(p));
  const double per_row = most_hits(lookup_.codebook) * double(end - begin) / double(tiles());
  const double at_first = per_row / std::min(4, (end - begin + chunk_tiles_ - 1) / chunk_tiles_);
  double hits = 0;
  for (int32_t t = begin; t < end; t += chunk_tiles_)
    for (int64_t p = 0; p < panels; ++p) {
      const int found = look(p, count_of(p), t, std::min(end, t + chunk_tiles_), t == begin);
      hits += found;
      const double most = t == begin ? at_first * double(p * kFilterRows + count_of(p))
                                     : per_row * double(count);
      if (hits > most && !insist) return false;
      kernel_.rescore(codes_, rows_.panel(p * kFilterRows, count_of(p)), hits_.data(), found,
                      scores(p));
    }
  return true;
}

RowScores FilterSearch::scores(int64_t panel) {
  const int64_t at = panel * kFilterRows;
  return {&best_[at], &second_[at], &code_[at]};
}

void FilterSearch::pack(int64_t panel, int count) {
  const int64_t at = panel * kFilterRows;
  float norms[kFilterRows];
  lookup_.kernel.pack(rows_.panel(at, count), lookup_.dim(), panel_.data(), norms);
  lookup_.kernel.margins(norms, lookup_.margin_terms(), &margins_[at]);
  std::fill(&margins_[at + count], &margins_[at + kFilterRows], INFINITY);
  const int depth = filter_.book().depth;
  kernel_.round(panel_.data(), lookup_.dim(), depth, filter_.terms(), &bytes_[at * depth],
                &errors_[at]);
  std::fill_n(&best_[at], kFilterRows, -INFINITY);
  std::fill_n(&second_[at], kFilterRows, -INFINITY);
}

// Looks at the codes of some tiles, and lists those that may be nearest. Returns how many.
int FilterSearch::look(int64_t panel, int count, int32_t begin, int32_t end, bool first) {
  const int64_t at = panel * kFilterRows;
  const FilterScan found{sums_.data(), maxima_.data()};
  int32_t scored[kFilterRows], thresholds[kFilterRows];
  kernel_.scan(filter_.codes(), begin, end, &bytes_[at * filter_.book().depth], found);
  end = std::min(end, lookup_.codebook.tiles);
  std::fill_n(scored, kFilterRows, -1);
  if (first) {  // a first score to compare with
    kernel_.best_codes(filter_.codes(), begin, end, found, scored);
    for (int r = 0; r < count; ++r) hits_[r] = {r, scored[r]};
    kernel_.rescore(codes_, rows_.panel(at, count), hits_.data(), count, scores(panel));
  }
  kernel_.thresholds(&best_[at], &margins_[at], &errors_[at], filter_.inverse_unit(), thresholds);
  return kernel_.collect(filter_.codes(), begin, end, found, thresholds, scored, scratch_.data(),
                         hits_.data());
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
