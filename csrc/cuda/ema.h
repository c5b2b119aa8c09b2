// Counts and sums per code on a GPU: the contract of cpu/ema.h, and the same bits.
#pragma once
#include <stdint.h>

#include "common/dtype.h"
#include "cuda/report.h"

namespace vqtok {

// Bytes of device memory that ema_update_cuda works in. It starts with an int64: the first row whose
// code is outside the codebook, or kNoneBad.
int64_t ema_cuda_workspace(int64_t rows, int64_t size);

// Queues the update on a stream of a device, where all arrays lie. counts: [size]; sums:
// [size][x.dim], double if x is f64, else float. Rows whose code is outside count for nothing.
// Returns nullptr, or what went wrong.
const char* ema_update_cuda(int device, void* stream, const Matrix& x, const int64_t* codes,
                            int64_t size, int64_t* counts, void* sums, void* workspace);

}  // namespace vqtok
