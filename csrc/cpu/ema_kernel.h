// What ema_kernel.cpp provides once per instruction set.
#pragma once
#include <stdint.h>

namespace vqtok {

// Both ways add up in float64, every sum by ascending row.
struct EmaKernel {
  // Adds `width` elements of each row of x to row codes[n] of sums [codes][width].
  void (*add_f32)(const float* x, int64_t stride, const int64_t* codes, int64_t rows, int64_t width,
                  double* sums);
  void (*add_f64)(const double* x, int64_t stride, const int64_t* codes, int64_t rows,
                  int64_t width, double* sums);

  // The sum of the rows of x that are listed.
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
