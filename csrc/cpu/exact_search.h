// Decides in float64 what float32 cannot: shared by all methods of the lookup.
#pragma once
#include <limits>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/nearest.h"

namespace vqtok {

// One call of nearest().
struct Lookup {
  const PackedCodebook& codebook;
  const Matrix& x;
  int64_t* codes;
  const NearestKernel& kernel;
  const float* rows;  // the codes [size][dim], or null

  int dim() const { return static_cast<int>(codebook.dim); }
  TileRange tiles(int32_t begin, int32_t end) const {
    return {codebook.values.data(), codebook.offsets.data(), dim(), begin, end};
  }
  MarginTerms margin_terms() const { return terms_of(codebook.bound); }
};

// One thread's undecided rows. A code whose float32 score is below the row's threshold is out.
class ExactSearch {
 public:
  explicit ExactSearch(const Lookup& lookup);

  // For rows out of float32's safe range, NaN and Inf included: decides at once.
  void search_all(int64_t row);

  // Decides at once which code of a few tiles, given in ascending order, is nearest.
  void search_tiles(int64_t row, const int32_t* tiles, int count);

  // Leaves a row for a scan of all codes, together with others.
  void leave_open(int64_t row, float threshold);

  // Decides the rows still open.
  void finish() { scan_open(static_cast<int>(open_.size())); }

  int64_t first_bad_row() const { return first_bad_row_; }  // with a NaN or Inf, or -1

 private:
  struct Winner {
    double distance = std::numeric_limits<double>::infinity();
    int64_t code = 0;
  };
  struct OpenRow {
    int64_t row;
    float threshold;
  };

  void scan_open(int count);
  void compare_tile(int32_t tile, Winner& winner) const;

  const Lookup& lookup_;
  Buffer<double> row_;  // the one being decided
  std::vector<OpenRow> open_;
  int64_t first_bad_row_ = -1;
};

}  // namespace vqtok
