// The few nearest codes of rows, and residual lookup by a beam search with them.
#pragma once
#include <stdint.h>

#include <vector>

#include "cpu/nearest.h"

namespace vqtok {

// For each row of x the `keep` nearest codes, nearest first, and their squared distances: codes and
// distances [rows][keep], 1 <= keep <= codes. A distance that is NaN counts as +inf. Returns the first
// row with a NaN or Inf, or -1.
int64_t nearest_few(const PackedCodebook& codebook, const Matrix& x, int64_t keep, int64_t* codes,
                    float* distances, int threads, const NearestKernel& kernel);

// For each row of x: codes [rows][codebooks]. After each codebook the `beam` sums nearest to the row
// are kept. What a sum leaves of the row is float64: the row, less the codes by ascending codebook,
// each difference rounded; ties go to what comes from the better sum before, then to the lowest
// code. Returns the first row with a NaN or Inf, or -1; such a row has code 0 in every codebook.
int64_t beam_search(const std::vector<const PackedCodebook*>& codebooks, const Matrix& x, int beam,
                    int64_t* codes, int threads, const NearestKernel& kernel);

}  // namespace vqtok
