// Exact lookup by angle.
//
// The unit vector of v is v / |v| in float64: v is first scaled by a power of two, so that its
// largest element lies in [0.5, 1) and |v| neither overflows nor vanishes; |v|^2 is added up by
// ascending d, every operation rounded. The code of a row is the nearest, as cpu/nearest.h defines
// it, among unit vectors. A vector of zeros has none: such a row gets code 0, such a code is never
// chosen while another has a direction; likewise those with a NaN or Inf.
#pragma once
#include <stdint.h>

#include <memory>

#include "cpu/nearest.h"

namespace vqtok {

// The unit vectors [rows][dim] of a matrix, NaN for those without; returns the first row that
// holds a NaN or Inf, or -1.
int64_t unit_rows(const Matrix& x, double* units, int threads);

// A codebook of unit vectors. Its first_bad_code is the first of `codebook` with a NaN or Inf: zeros,
// which have no direction, do not count.
std::unique_ptr<PackedCodebook> pack_units(const Matrix& codebook, int threads);

// Writes one code per row of x; returns the first row with a NaN or Inf, or -1.
int64_t nearest_cosine(const PackedCodebook& codebook, const Matrix& x, int64_t* codes, int threads,
                       const NearestKernel& kernel);

}  // namespace vqtok
