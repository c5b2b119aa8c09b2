// Exact nearest-code lookup on a GPU: the contract of cpu/nearest.h.
#pragma once
#include <stdint.h>

#include "common/dtype.h"
#include "cuda/report.h"

namespace vqtok {

struct CudaReport {
  int64_t first_bad_code, first_bad_row;  // with a NaN or Inf, or kNoneBad
  uint64_t largest_squared_norm;          // of a code: the bits of a float64
  uint64_t open_rows;                     // rows that the scan did not decide
};

// Bytes of device memory that nearest_cuda works in; the CudaReport lies at their start.
int64_t nearest_cuda_workspace(int64_t rows, int64_t size, int64_t dim);

// Queues the lookup on a stream of a device; x, codebook, codes and workspace lie on it. Returns
// nullptr, or what went wrong.
const char* nearest_cuda(int device, void* stream, const Matrix& x, const Matrix& codebook,
                         int64_t* codes, void* workspace);

}  // namespace vqtok
