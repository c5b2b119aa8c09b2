// What an exponential moving average of a codebook needs: per code, how many rows chose it and their
// sum. Each sum is added up in float64 by ascending row, so that it does not depend on the threads.
#pragma once
#include <stdint.h>

#include "common/dtype.h"
#include "cpu/ema_kernel.h"

namespace vqtok {

// counts: [size]; sums: [size][x.dim], double if x is f64, else float. Returns the first row whose
// code is outside [0, size), or -1; nothing is written then.
int64_t ema_update(const Matrix& x, const int64_t* codes, int64_t size, int64_t* counts, void* sums,
                   int threads, const EmaKernel& kernel);

}  // namespace vqtok
