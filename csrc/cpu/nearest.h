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

#include "cpu/buffer.h"
#include "cpu/dtype.h"
#include "cpu/nearest_kernel.h"

namespace vqtok {

// An upper bound of how far apart, in score, a code may fall below the best fp32 score of a row and
// still be the nearest in float64. See codebook.cpp for the derivation.
struct ErrorBound {
  float per_norm = 0, per_squared_norm = 0, constant = 0;
  float squared_norm_limit = 0;  // beyond it fp32 might overflow: the row is searched in float64

  float margin(float norm, float squared_norm) const {
    return per_norm * norm + per_squared_norm * squared_norm + constant;
  }
};

// A codebook laid out for the kernels, with what the error bound needs to know about it.
struct PackedCodebook {
  explicit PackedCodebook(const Matrix& codebook, int threads);

  int64_t size;
  int64_t dim;
  int32_t tiles;
  Buffer<float> values;          // [tiles][dim][8]
  Buffer<float> offsets;         // [tiles][8]
  Buffer<double> exact_values;   // [tiles][dim][8] if float32 does not hold the values, or empty
  Buffer<uint8_t> usable;        // [tiles] bit c: code c of the tile exists and is finite
  int64_t first_bad_code = -1;   // the first with a NaN or Inf
  ErrorBound bound;
};

// Writes one code per row of x; returns the first row with a NaN or Inf, or -1.
int64_t nearest(const PackedCodebook& codebook, const Matrix& x, int64_t* codes, int threads,
                const NearestKernel& kernel);

}  // namespace vqtok
