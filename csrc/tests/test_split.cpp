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

// x.c without what is left out.
double kept_product(double x, double c) {
  const double x_high = rounded(x), c_high = rounded(c);
  return x_high * c_high + rounded(x - x_high) * c_high + x_high * rounded(c - c_high);
}

void check_panel(int dim, int64_t size, const NearestKernel& kernel) {
  const int rows = kernel.rows;
  std::mt19937 random(dim * 31 + static_cast<unsigned>(size));
  std::vector<float> codes(size * dim), x(int64_t{rows} * dim);
  for (auto& v : codes) v = hard_value(random);
  for (auto& v : x) v = hard_value(random);
  const PackedCodebook packed({codes.data(), DType::f32, size, dim, dim}, 1);
  const SplitCodebook& split = packed.split();
  const int words = split.layout().words, ones = dim + (dim + 1) / 2;
  std::vector<float> panel(int64_t{rows} * dim), norms(rows), margins(rows);
  std::vector<uint32_t> halves(int64_t{words} * rows);
  kernel.pack({x.data(), dim, rows}, dim, panel.data(), norms.data());
  kernel.split->split(split.layout(), panel.data(), halves.data());
  kernel.margins(norms.data(), terms_of(split.bound()), margins.data());

  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < 2 * words; ++i) {
      const auto high = [&](int d) { return d < dim ? rounded(x[r * dim + d]) : 0; };
      const auto middle = [&](int d) { return d < dim ? rounded(x[r * dim + d] - high(d)) : 0; };
      double want = 0;
      if (dim > kNarrowDim)
        want = i / 32 % 2 ? middle(i / 64 * 32 + i % 32) : high(i / 64 * 32 + i % 32);
      else if (i < 2 * dim)
        want = i % 2 ? middle(i / 2) : high(i / 2);
      else if (i < 2 * ones)
        want = high(i - 2 * dim);
      else if (i < 2 * ones + 3)
        want = 1;
      const float got = half_of(halves[i / 2 * rows + r], i % 2);
      CHECK(got == want, "D %d, row %d, half %d: %g, not %g", dim, r, i, got, want);
    }

  std::vector<float> best(rows, -INFINITY), second(rows, -INFINITY), maxima, tops(2 * rows, -INFINITY);
  std::vector<int32_t> best_tile(rows, -1);
  maxima.resize(int64_t{split.tiles()} * rows);
  const PanelScan scan{best.data(), second.data(), best_tile.data()};
  const int32_t middle = split.tiles() / 2 / kSplitTiles * kSplitTiles;
  kernel.split->scan(split.codes(), 0, middle, halves.data(), scan);
  kernel.split->scan(split.codes(), middle, split.tiles(), halves.data(), scan);
  kernel.split->scan_tops(split.codes(), 0, split.tiles(), halves.data(), 2, maxima.data(),
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
          score += a * c;
          kept += kept_product(a, c);
          size_of += 1.02 * fabs(a * c);
        }
        most = std::max(most, score);
        most_kept = std::max(most_kept, kept);
        terms = std::max(terms, size_of);
      }
      if (most == -INFINITY) {
        CHECK(got == -INFINITY, "D %d, row %d: padding scores %g", dim, r, got);
        continue;
      }
      const double sums = 2 * (19 + split.layout().steps) * 0x1p-24 * terms;
      CHECK(fabs(got - most_kept) <= sums * kRoom, "D %d, row %d, tile %d: %.9g, not %.9g", dim, r,
            t, got, most_kept);
      CHECK(fabs(got - most) <= 0.5 * margins[r], "D %d, row %d, tile %d: %.9g, not %.9g +- %.3g",
            dim, r, t, got, most, 0.5 * margins[r]);
    }
    CHECK(best[r] == highest && second[r] == next && best_tile[r] == where, "D %d, row %d", dim, r);
    CHECK(tops[r] == highest && tops[rows + r] == next, "D %d, row %d", dim, r);
  }
}

// Half the margins of rows [rows][dim], as `kernel` computes them.
std::vector<float> bounds_of(const PackedCodebook& packed, const std::vector<float>& x,
                             const NearestKernel& kernel) {
  const int dim = static_cast<int>(packed.dim);
  std::vector<float> panel(int64_t{kernel.rows} * dim), bounds(kernel.rows);
  kernel.pack({x.data(), dim, kernel.rows}, dim, panel.data(), bounds.data());
  kernel.margins(bounds.data(), terms_of(packed.split().bound()), bounds.data());
  for (auto& bound : bounds) bound *= 0.5f;
  return bounds;
}

// What is left out of one product is never beyond the bound, and sometimes near it: so none of the
// bound's parts is too small or idle.
void check_left_out(const NearestKernel& kernel) {
  std::mt19937 random(1);
  std::vector<float> x(kernel.rows);
  double nearest = 0, nearest_of_exact_codes = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto near_half = [&] { return bits_to_float(0x3f807f00u + random() % 0x101); };
    const bool exact = i % 4 == 0;  // codes of which nothing is left out
    const float code = exact ? 1.0f : near_half();
    for (auto& v : x) v = near_half();
    const PackedCodebook packed({&code, DType::f32, 1, 1, 1}, 1);
    const std::vector<float> bounds = bounds_of(packed, x, kernel);
    for (int r = 0; r < kernel.rows; ++r) {
      const double left_out = fabs(double{x[r]} * code - kept_product(x[r], code));
      CHECK(left_out <= bounds[r], "%.9g by %.9g: %g, not %g", x[r], code, left_out, bounds[r]);
      double& most = exact ? nearest_of_exact_codes : nearest;
      most = std::max(most, left_out / bounds[r]);
    }
  }
  CHECK(nearest > 0.6, "%g of the bound", nearest);
  CHECK(nearest_of_exact_codes > 0.5, "%g of the bound", nearest_of_exact_codes);
}

// Where parts, products and sums are subnormal, and count as zero.
void check_small_values(const NearestKernel& kernel) {
  std::mt19937 random(2);
  for (int dim : {1, 4, 33})
    for (int x_scale : {-140, -126, -110, -75, -63, -20})
      for (int code_scale : {-126, -63, -50, -16, 0, 20}) {
        std::vector<float> codes(32 * dim), x(int64_t{kernel.rows} * dim);
        for (auto& v : codes) v = ldexpf(hard_value(random), code_scale);
        for (auto& v : x) v = ldexpf(hard_value(random), x_scale);
        const PackedCodebook packed({codes.data(), DType::f32, 32, dim, dim}, 1);
        const SplitCodebook& split = packed.split();
        const std::vector<float> bounds = bounds_of(packed, x, kernel);
        std::vector<float> panel(x.size()), norms(kernel.rows), maxima(4 * kernel.rows),
            tops(kernel.rows, -INFINITY);
        std::vector<uint32_t> halves(int64_t{split.layout().words} * kernel.rows);
        kernel.pack({x.data(), dim, kernel.rows}, dim, panel.data(), norms.data());
        kernel.split->split(split.layout(), panel.data(), halves.data());
        kernel.split->scan_tops(split.codes(), 0, 4, halves.data(), 1, maxima.data(), tops.data());
        for (int r = 0; r < kernel.rows; ++r) {
          double most = -INFINITY;
          for (int k = 0; k < 32; ++k) {
            if (!(packed.usable[k / kTile] >> k % kTile & 1)) continue;
            double score = 0;
            for (int d = 0; d < dim; ++d) {
              const double c = codes[k * dim + d];
              score += (x[r * dim + d] - 0.5 * c) * c;
            }
            most = std::max(most, score);
          }
          CHECK(fabs(tops[r] - most) <= bounds[r], "D %d, 2^%d by 2^%d, row %d: %g, not %g +- %g",
                dim, x_scale, code_scale, r, tops[r], most, bounds[r]);
        }
      }
}

}  // namespace
}  // namespace vqtok

int main() {
  using namespace vqtok;
  for (const Isa* isa : usable_isas()) {
    if (!isa->nearest->split) continue;
    check_left_out(*isa->nearest);
    check_small_values(*isa->nearest);
    for (int dim : {1, 2, 3, 4, 5, 8, 9, 10, 20, 21, 31, 32, 33, 64, 129, 500})
      for (int64_t size : {1, 7, 64, 333}) check_panel(dim, size, *isa->nearest);
  }
  return 0;
}
