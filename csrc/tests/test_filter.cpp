// The inner loops of the 8-bit filter, each against its definition.
#include <string.h>

#include <algorithm>

#include "cpu/filter_kernel.h"
#include "tests/check.h"
#include "tests/usable_isas.h"

namespace vqtok {
namespace {

constexpr int32_t kTiles = 44, kBegin = 8;  // of a codebook, and the first that is looked at

// Random codes, and rows that were rounded to bytes. Arrays have exactly the size needed, so that
// the address sanitizer sees any access outside; but rows are read up to 12 bytes beyond their end.
struct Case {
  int dim, depth, chunk, count;
  std::vector<int8_t> values;
  std::vector<int32_t> starts;
  std::vector<float> rows;
  std::vector<uint8_t> bytes, panel;
  std::vector<float> errors, norms;

  Case(int dim_, int count_, const FilterTerms& terms, const FilterKernel& kernel)
      : dim(dim_), count(count_) {
    const int chunks = (dim + 63) / 64;
    chunk = ((dim + chunks - 1) / chunks + 3) / 4 * 4;
    depth = chunks * chunk;
    std::mt19937 random(dim * 37 + count);
    std::normal_distribution<float> normal(0, 40);
    values.resize(int64_t{kTiles} * kTile * depth);
    starts.resize(int64_t{kTiles} * kTile);
    rows.resize(int64_t{count} * dim);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<int>(i) % depth < dim ? static_cast<int8_t>(random() % 255 - 127) : 0;
    for (auto& start : starts) start = static_cast<int32_t>(random() % 200000) - 100000;
    for (auto& row : rows) row = normal(random) * terms.row_scale;
    bytes.assign(int64_t{kFilterRows} * depth + 12, 0);
    panel.assign(int64_t{kFilterRows} * depth, 0);
    errors.assign(kFilterRows, -1);
    norms.assign(kFilterRows, -1);
    kernel.round({rows.data(), dim, count}, dim, depth, terms, bytes.data(), panel.data(),
                 errors.data(), norms.data());
  }

  FilterCodes codes() const { return {values.data(), starts.data(), depth, chunk}; }

  int32_t score(int row, int64_t code) const {
    int32_t sum = starts[code];
    for (int d = 0; d < depth; ++d) sum += bytes[row * depth + d] * values[code * depth + d];
    return sum;
  }
};

void check_rounding(const Case& c, const FilterTerms& terms) {
  for (int r = 0; r < kFilterRows; ++r) {
    double kept = 0, lost = 0, norm = 0;
    for (int d = 0; d < c.depth; ++d) {
      const float v = r < c.count && d < c.dim ? c.rows[r * c.dim + d] : 0.0f;
      const double q = std::min(std::max(rint(double{v} / terms.row_scale), -127.0), 127.0);
      const int byte = c.bytes[r * c.depth + d];
      CHECK(byte == static_cast<int>(q) + 128, "row %d, element %d: byte %d of %g", r, d, byte, v);
      CHECK(c.panel[(d / 4 * kFilterRows + r) * 4 + d % 4] == byte, "row %d, element %d", r, d);
      kept += q * q * terms.row_scale * terms.row_scale;
      lost += (v - q * terms.row_scale) * (v - q * terms.row_scale);
      norm += double{v} * v;
    }
    const double error = sqrt(lost) * terms.per_loss + sqrt(kept) * terms.per_norm + terms.constant;
    CHECK(fabs(c.errors[r] - error) <= 1e-4 * error, "row %d: %g, not %g", r, c.errors[r], error);
    CHECK(fabs(c.norms[r] - norm) <= 1e-4 * norm, "row %d: |x|^2 %g, not %g", r, c.norms[r], norm);
  }
}

void check_looks(const Case& c, int32_t end, const FilterKernel& kernel) {
  std::vector<int32_t> maxima((end - kBegin) * kFilterRows), best(c.count);
  kernel.scan(c.codes(), kBegin, end, c.panel.data(), maxima.data());
  kernel.best_codes(c.codes(), kBegin, end, maxima.data(), c.bytes.data(), c.count, best.data());
  std::vector<int32_t> thresholds(kFilterRows, INT32_MAX), except(kFilterRows, -1);
  std::vector<std::pair<int32_t, int32_t>> want;
  for (int r = 0; r < kFilterRows; ++r) {
    std::vector<int32_t> scores;
    for (int64_t k = int64_t{kBegin} * kTile; k < int64_t{end} * kTile; ++k)
      scores.push_back(c.score(r, k));
    for (int32_t t = 0; t < end - kBegin; ++t) {
      const int32_t most = *std::max_element(&scores[t * kTile], &scores[t * kTile] + kTile);
      CHECK(maxima[t * kFilterRows + r] == most, "row %d, tile %d: %d, not %d", r, t,
            maxima[t * kFilterRows + r], most);
    }
    if (r >= c.count) continue;
    const int32_t highest = *std::max_element(scores.begin(), scores.end());
    CHECK(scores[best[r] - kBegin * kTile] == highest, "row %d: code %d", r, best[r]);
    auto sorted = scores;
    std::sort(sorted.rbegin(), sorted.rend());
    thresholds[r] = sorted[r % 3 * 5];  // 1, 6 or 11 codes
    except[r] = r % 2 ? best[r] : -1;
    for (size_t k = 0; k < scores.size(); ++k) {
      const int32_t code = kBegin * kTile + static_cast<int32_t>(k);
      if (scores[k] >= thresholds[r] && code != except[r]) want.push_back({r, code});
    }
  }
  std::vector<int32_t> scratch((end - kBegin) * kFilterRows + 16);
  std::vector<CodeHit> hits(scratch.size() * kTile);
  const int found = kernel.collect(c.codes(), kBegin, end, maxima.data(), c.bytes.data(),
                                   thresholds.data(), except.data(), scratch.data(), hits.data());
  std::vector<std::pair<int32_t, int32_t>> got;
  for (int h = 0; h < found; ++h) got.push_back({hits[h].row, hits[h].code});
  std::sort(got.begin(), got.end());
  CHECK(got == want, "depth %d: %d hits, not %d", c.depth, found, static_cast<int>(want.size()));
}

// Written over the norms they come from; without a bound beyond the limit.
void check_margins(const NearestKernel& kernel) {
  std::vector<float> values(kMaxPanelRows, 4.0f);
  values[1] = 2e37f;
  values[2] = NAN;
  values[3] = INFINITY;
  kernel.margins(values.data(), {3.0f, 0.5f, 1.0f, 1e37f}, values.data());
  CHECK(values[0] == 9.0f, "%g", values[0]);
  for (int r = 1; r < 4; ++r) CHECK(values[r] == INFINITY, "row %d: %g", r, values[r]);
}

}  // namespace
}  // namespace vqtok

int main() {
  using namespace vqtok;
  const FilterTerms terms{0.5f, 2.0f, 0.25f, 3.0f};
  for (const Isa* isa : usable_isas()) {
    check_margins(*isa->nearest);
    if (!isa->nearest->filter) continue;
    const FilterKernel& kernel = *isa->nearest->filter;
    for (int dim : {1, 4, 7, 8, 12, 16, 19, 20, 33, 64, 65, 68, 128, 200, 1087})
      for (int count : {1, 15, 16, 17, 31, 32}) {
        const Case c(dim, count, terms, kernel);
        check_rounding(c, terms);
        check_looks(c, kBegin + 4, kernel);
        check_looks(c, kTiles, kernel);
      }
  }
  return 0;
}
