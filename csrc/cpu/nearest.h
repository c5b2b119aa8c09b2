// Exact nearest-code lookup.
//
// The code of a row x is the k that minimises sum_d (x_d - c_kd)^2, evaluated in float64 on the
// exact input values, terms added by ascending d, every operation rounded (no fused multiply-add);
// ties go to the lowest k. A distance that is NaN or +inf never wins, so a row with a NaN or Inf
// gets code 0, and a code with a NaN or Inf is never chosen while another has a finite distance.
//
// No N x K matrix is formed, and every instruction set, thread count and batch gives the same codes.
#pragma once
#include <stdint.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/filter.h"
#include "cpu/split.h"
#include "cpu/tree.h"
#include "common/dtype.h"
#include "cpu/nearest_kernel.h"
#include "common/error_bound.h"

namespace vqtok {

// A codebook laid out for the kernels, with what the error bound needs to know about it.
struct PackedCodebook {
  explicit PackedCodebook(const Matrix& codebook, int threads);

  int64_t size;
  int64_t dim;
  int32_t tiles;
  Buffer<float> values;          // [tiles][dim][8]
  Buffer<float> offsets;         // [tiles][8], -inf for codes that are not usable
  Buffer<double> exact_values;   // [tiles][dim][8] if float32 does not hold the values, or empty
  Buffer<uint8_t> usable;        // [tiles] bit c: code c of the tile may be an answer, that is, it
                                 // exists, is finite and unlike all codes before it
  std::vector<int32_t> next_equal;  // [size] the next code equal to each, or -1; empty if none is
  int64_t first_bad_code = -1;   // the first with a NaN or Inf
  double largest_squared_norm = 0;  // of usable codes
  ErrorBound bound;

  // Made when first asked for.
  const ByteCodebook& bytes() const;
  const SplitCodebook& split() const;
  const Tree& tree() const;
  const float* rows() const;  // [size][dim]

  // Rows looked up so far: whether making these is worth while. Returns how many there are with those
  // of a new lookup.
  int64_t count_rows(int64_t rows) const { return rows_seen_.fetch_add(rows) + rows; }

 private:
  bool equal(int64_t a, int64_t b) const;
  void drop_duplicates(const uint64_t* hashes);

  mutable std::atomic<int64_t> rows_seen_{0};
  mutable std::once_flag tree_once_;
  mutable std::unique_ptr<Tree> tree_;
  mutable std::once_flag bytes_once_;
  mutable std::unique_ptr<ByteCodebook> bytes_;
  mutable std::once_flag split_once_;
  mutable std::unique_ptr<SplitCodebook> split_;
  mutable std::once_flag rows_once_;
  mutable Buffer<float> rows_;
};

// For kernels.
inline MarginTerms terms_of(const ErrorBound& b) {
  return {b.per_norm, b.per_squared_norm, b.constant, b.squared_norm_limit};
}

// How codes are found: this affects time alone. A method that cannot be used gives way to float32.
enum class Method : int { automatic = 0, float32 = 1, filter = 2, tree = 3, split = 4 };

// For tests and benchmarks: what all lookups of this process use from now on.
void force_method(Method method);

// The split codebook if scoring all codes for some rows is faster by it, or null.
const SplitCodebook* useful_split(const PackedCodebook& codebook, int64_t rows,
                                  const NearestKernel& kernel);

// Writes one code per row of x; returns the first row with a NaN or Inf, or -1. `rows` are what was
// packed, float32 [size][dim], if the caller has that: a copy is made and kept otherwise.
int64_t nearest(const PackedCodebook& codebook, const Matrix& x, int64_t* codes, int threads,
                const NearestKernel& kernel, const float* rows = nullptr);

}  // namespace vqtok
