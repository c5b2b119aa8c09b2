#include "cpu/beam.h"

#include <math.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "cpu/group_search.h"
#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr double kProductsPerThread = 1e6;  // fewer are not worth waking a thread for
constexpr int64_t kPanelsOfLarge = 8;       // that share a look at a codebook too large for the cache
constexpr int64_t kLargeCodebook = 1 << 18; // values

// Rows in float64, and the first that holds a NaN or Inf.
class Rows {
 public:
  Rows(const Matrix& x, int64_t most) : x_(x), values_(most * x.dim) {}

  const double* load(int64_t first, int64_t count) {
    for (int64_t n = 0; n < count; ++n) {
      double* row = &values_[n * x_.dim];
      load_row(x_, first + n, row);
      const bool finite = std::all_of(row, row + x_.dim, [](double v) { return isfinite(v); });
      if (!finite && (first_bad_ < 0 || first + n < first_bad_)) first_bad_ = first + n;
    }
    return values_.data();
  }

  int64_t first_bad() const { return first_bad_; }

 private:
  const Matrix& x_;
  Buffer<double> values_;
  int64_t first_bad_ = -1;
};

// Runs search(first, count, rows, groups) on blocks of the rows of x; returns the first bad row.
template <class Search>
int64_t share_blocks(const Matrix& x, int64_t block, double products, int threads,
                     const NearestKernel& kernel, Search&& search) {
  const int64_t blocks = (x.rows + block - 1) / block;
  threads = static_cast<int>(std::clamp(products / kProductsPerThread, 1.0, double(threads)));
  std::atomic<int64_t> next{0};
  std::mutex lock;
  int64_t first_bad_row = -1;
  run_team(static_cast<int>(std::min<int64_t>(threads, blocks)), [&](int, int) {
    GroupSearch groups(kernel);
    Rows rows(x, std::min(block, x.rows));
    for (int64_t b; (b = next++) < blocks;) {
      const int64_t first = b * block, count = std::min(block, x.rows - first);
      search(first, count, rows.load(first, count), groups);
    }
    std::lock_guard<std::mutex> hold(lock);
    const int64_t bad = rows.first_bad();
    if (bad >= 0 && (first_bad_row < 0 || bad < first_bad_row)) first_bad_row = bad;
  });
  return first_bad_row;
}

double code_value(const PackedCodebook& codebook, int64_t code, int64_t d) {
  const int64_t at = (code / kTile * codebook.dim + d) * kTile + code % kTile;
  return codebook.exact_values.size() ? codebook.exact_values[at] : double{codebook.values[at]};
}

// The sums kept of a block of rows, level by level.
class Beam {
 public:
  Beam(int64_t dim, int64_t levels, const double* rows, int64_t count)
      : dim_(dim), levels_(levels), count_(count), rest_(rows, rows + count * dim) {}

  void add(const PackedCodebook& codebook, int beam, GroupSearch& search) {
    const int64_t keep = std::min<int64_t>(beam, kept_ * codebook.size);
    choices_.resize(count_ * keep);
    search.search(codebook, {rest_.data(), count_, static_cast<int>(kept_)}, keep, choices_.data());
    std::vector<double> rest(count_ * keep * dim_);
    std::vector<int32_t> paths(count_ * keep * levels_);
    for (int64_t i = 0; i < count_ * keep; ++i) {
      const Choice& choice = choices_[i];
      const int64_t from = i / keep * kept_ + choice.member;
      for (int64_t d = 0; d < dim_; ++d)
        rest[i * dim_ + d] = rest_[from * dim_ + d] - code_value(codebook, choice.code, d);
      if (level_) std::copy_n(&paths_[from * levels_], level_, &paths[i * levels_]);
      paths[i * levels_ + level_] = choice.code;
    }
    rest_.swap(rest);
    paths_.swap(paths);
    kept_ = keep;
    ++level_;
  }

  const int32_t* best_path(int64_t row) const { return &paths_[row * kept_ * levels_]; }

 private:
  int64_t dim_, levels_, count_, kept_ = 1, level_ = 0;
  std::vector<double> rest_;    // [rows][kept][dim]
  std::vector<int32_t> paths_;  // [rows][kept][levels]
  std::vector<Choice> choices_;
};

}  // namespace

int64_t nearest_few(const PackedCodebook& codebook, const Matrix& x, int64_t keep, int64_t* codes,
                    float* distances, int threads, const NearestKernel& kernel) {
  const IeeeArithmetic ieee;
  const bool large = codebook.values.size() > kLargeCodebook;
  const int64_t block = kernel.rows * (large ? kPanelsOfLarge : 1);
  const double products = double(x.rows) * double(codebook.dim) * double(codebook.size);
  return share_blocks(x, block, products, threads, kernel,
                      [&](int64_t first, int64_t count, const double* rows, GroupSearch& search) {
    std::vector<Choice> choices(count * keep);
    search.search(codebook, {rows, count, 1}, keep, choices.data());
    for (int64_t i = 0; i < count * keep; ++i) {
      codes[first * keep + i] = choices[i].code;
      distances[first * keep + i] = static_cast<float>(choices[i].distance);
    }
  });
}

int64_t beam_search(const std::vector<const PackedCodebook*>& codebooks, const Matrix& x, int beam,
                    int64_t* codes, int threads, const NearestKernel& kernel) {
  const IeeeArithmetic ieee;
  const int64_t levels = static_cast<int64_t>(codebooks.size());
  double products = 0;
  bool large = false;
  for (const PackedCodebook* codebook : codebooks) {
    products += double(x.rows) * beam * double(codebook->dim) * double(codebook->size);
    large = large || codebook->values.size() > kLargeCodebook;
  }
  const int64_t block = kernel.rows * (large ? std::max<int64_t>(1, kPanelsOfLarge / beam) : 1);
  return share_blocks(x, block, products, threads, kernel,
                      [&](int64_t first, int64_t count, const double* rows, GroupSearch& search) {
    Beam sums(x.dim, levels, rows, count);
    for (const PackedCodebook* codebook : codebooks) sums.add(*codebook, beam, search);
    for (int64_t n = 0; n < count; ++n)
      std::copy_n(sums.best_path(n), levels, codes + (first + n) * levels);
  });
}

}  // namespace vqtok
