// The scores by split values: the parts, the sums of their products, and the bound on the error.
#include <string.h>

#include <algorithm>

#include "cpu/nearest.h"
#include "cpu/split_kernel.h"
#include "tests/check.h"
#include "tests/usable_isas.h"

namespace vqtok {
namespace {

constexpr double kRoom = 1 + 1e-9;  // for what float64 rounds here

// A float32 rounded to 8 significant bits, ties to even.
double rounded(double v) {
  int exponent;
  const double fraction = frexp(v, &exponent);
  return ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

float half_of(uint32_t word, bool second) {
  return bits_to_float(second ? word & 0xffff0000u : word << 16);
}

// Values whose parts are as large as may be, both ways, beside random ones.
float hard_value(std::mt19937& random) {
  constexpr uint32_t kHard[] = {0x3f807fff, 0x3f808000, 0x3f808001, 0x3f80407f, 0x3f80bfc0,
                                0x3f818000, 0x3fff7fff, 0x3fff8000, 0x3f7fffff, 0};
  const uint32_t bits = kHard[random() % 10], sign = random() % 2 << 31;
  return bits_to_float((bits ? bits : 0x3e800000u + random() % 0x1800000u) | sign);
}

void check_panel(int dim, int64_t size, const NearestKernel& kernel) {
  const int rows = kernel.rows;
  std::mt19937 random(dim * 31 + static_cast<unsigned>(size));
  std::vector<float> codes(size * dim), x(int64_t{rows} * dim);
  for (auto& v : codes) v = hard_value(random);
  for (auto& v : x) v = hard_value(random);
  const PackedCodebook packed({codes.data(), DType::f32, size, dim, dim}, 1);
  const SplitCodebook& split = packed.split();
  const int pairs = split.pairs(), both = dim, ones = both + (dim + 1) / 2;
  std::vector<float> panel(int64_t{rows} * dim), norms(rows), margins(rows);
  std::vector<uint32_t> words(int64_t{pairs} * rows);
  kernel.pack({x.data(), dim, rows}, dim, panel.data(), norms.data());
  kernel.split->split(panel.data(), dim, pairs, words.data());
  kernel.margins(norms.data(), terms_of(split.bound()), margins.data());

  CHECK(pairs >= ones + 2 && pairs % split.codes().chunk == 0, "%d words", pairs);
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < 2 * pairs; ++i) {
      const auto high = [&](int d) { return d < dim ? rounded(x[r * dim + d]) : 0; };
      double want = i < 2 * ones + 3 ? 1 : 0;
      if (i < 2 * dim)
        want = i % 2 ? rounded(x[r * dim + i / 2] - high(i / 2)) : high(i / 2);
      else if (i < 2 * ones)
        want = high(i - 2 * dim);
      const float got = half_of(words[i / 2 * rows + r], i % 2);
      CHECK(got == want, "D %d, row %d, half %d: %g, not %g", dim, r, i, got, want);
    }

  std::vector<float> best(rows, -INFINITY), second(rows, -INFINITY), maxima, tops(2 * rows, -INFINITY);
  std::vector<int32_t> best_tile(rows, -1);
  maxima.resize(int64_t{split.tiles()} * rows);
  const PanelScan scan{best.data(), second.data(), best_tile.data()};
  const int32_t middle = split.tiles() / 2 / kSplitTiles * kSplitTiles;
  kernel.split->scan(split.codes(), 0, middle, words.data(), scan);
  kernel.split->scan(split.codes(), middle, split.tiles(), words.data(), scan);
  kernel.split->scan_tops(split.codes(), 0, split.tiles(), words.data(), 2, maxima.data(),
                          tops.data());
  for (int r = 0; r < rows; ++r) {
    float highest = -INFINITY, next = -INFINITY;
    int32_t where = -1;
    for (int32_t t = 0; t < split.tiles(); ++t) {
      const float got = maxima[int64_t{t} * rows + r];
      next = std::max(next, std::min(highest, got));
      if (got > highest) where = t;
      highest = std::max(highest, got);
      // the true scores, and those of the parts that are kept
      double most = -INFINITY, most_kept = -INFINITY, terms = 0;
      for (int64_t k = int64_t{t} * kTile; k < std::min<int64_t>(size, (t + 1) * kTile); ++k) {
        if (!(packed.usable[t] >> k % kTile & 1)) continue;
        double score = packed.offsets[k], kept = score, size_of = fabs(score);
        for (int d = 0; d < dim; ++d) {
          const double a = x[r * dim + d], c = codes[k * dim + d];
          const double a_high = rounded(a), c_high = rounded(c);
          const double a_middle = rounded(a - a_high), c_middle = rounded(c - c_high);
          score += a * c;
          kept += a_high * c_high + a_middle * c_high + a_high * c_middle;
          size_of += fabs(a_high * c_high) + fabs(a_middle * c_high) + fabs(a_high * c_middle);
        }
        most = std::max(most, score);
        most_kept = std::max(most_kept, kept);
        terms = std::max(terms, size_of);
      }
      if (most == -INFINITY) {
        CHECK(got == -INFINITY, "D %d, row %d: padding scores %g", dim, r, got);
        continue;
      }
      const double sums = 2 * (18 + pairs / split.codes().chunk) * 0x1p-24 * terms;
      CHECK(fabs(got - most_kept) <= sums * kRoom, "D %d, row %d, tile %d: %.9g, not %.9g", dim, r,
            t, got, most_kept);
      CHECK(fabs(got - most) <= 0.5 * margins[r], "D %d, row %d, tile %d: %.9g, not %.9g +- %.3g",
            dim, r, t, got, most, 0.5 * margins[r]);
    }
    CHECK(best[r] == highest && second[r] == next && best_tile[r] == where, "D %d, row %d", dim, r);
    CHECK(tops[r] == highest && tops[rows + r] == next, "D %d, row %d", dim, r);
  }
}

// The most that may be left out, of one dimension: the bound is no more than three times that.
void check_bound_is_tight(const NearestKernel& kernel) {
  const float code = bits_to_float(0x3f807fff), row = code;
  const PackedCodebook packed({&code, DType::f32, 1, 1, 1}, 1);
  float norms[kMaxPanelRows], margins[kMaxPanelRows];
  std::vector<float> panel(kernel.rows);
  kernel.pack({&row, 1, 1}, 1, panel.data(), norms);
  kernel.margins(norms, terms_of(packed.split().bound()), margins);
  const double middle = code - rounded(code), left_out = middle * middle;
  CHECK(margins[0] >= 2 * left_out && margins[0] <= 6 * left_out, "%g for %g", margins[0], left_out);
}

}  // namespace
}  // namespace vqtok

int main() {
  using namespace vqtok;
  for (const Isa* isa : usable_isas()) {
    if (!isa->nearest->split) continue;
    check_bound_is_tight(*isa->nearest);
    for (int dim : {1, 2, 3, 4, 5, 8, 9, 10, 20, 31, 32, 33, 64, 129, 500})
      for (int64_t size : {1, 7, 64, 333}) check_panel(dim, size, *isa->nearest);
  }
  return 0;
}
