// What ema_kernel.cpp provides once per instruction set.
#pragma once
#include <stdint.h>

namespace vqtok {

// Adds up, in float64 and in their order, the rows of x that are listed.
struct EmaKernel {
  void (*sum_f32)(const float* x, int64_t stride, const int64_t* rows, int64_t count, int64_t dim,
                  float* sum);
  void (*sum_f64)(const double* x, int64_t stride, const int64_t* rows, int64_t count, int64_t dim,
                  double* sum);
};

extern const EmaKernel ema_kernel_baseline;
extern const EmaKernel ema_kernel_avx2;
extern const EmaKernel ema_kernel_avx512;
extern const EmaKernel ema_kernel_avx512vnni;
extern const EmaKernel ema_kernel_amx;

}  // namespace vqtok
