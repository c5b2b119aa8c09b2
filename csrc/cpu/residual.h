// Residual lookup: each codebook codes what the ones before it left over.
#pragma once
#include <stdint.h>

#include <vector>

#include "cpu/nearest.h"

namespace vqtok {

struct Codebook {
  const PackedCodebook* packed;
  const float* values;  // [size][dim]
};

// For each row of x (float32): codes [rows][codebooks], and quantized [rows][dim], the sum of the
// chosen codes by ascending codebook. The codebook after a sum s looks up x - s; sums and
// differences are float32, each operation rounded. Returns the first row with a NaN or Inf (of its
// own, or left over), or -1; such a row has code 0 in every codebook from there on.
int64_t residual(const std::vector<Codebook>& codebooks, const Matrix& x, int64_t* codes,
                 float* quantized, int threads, const NearestKernel& kernel);

}  // namespace vqtok
