// What prior_kernel.cpp provides once per instruction set: the inner loops of the integer prior.
#pragma once
#include <stdint.h>

namespace vqtok {

constexpr int kOutBlock = 16;      // outputs are padded to multiples of it
constexpr int kInBlock = 4;        // inputs too
constexpr int kWeightBits = 19;    // of the largest weight of an outcome

struct PriorKernel {
  // y[row][o] = bias[o] + sum of x[row][i] * weight[o][i], exactly: x is 0..127, the weights are
  // int8 in blocks [out / 16][in / 4][16][4]. in and out are padded.
  void (*dense)(const uint8_t* x, int64_t rows, int64_t in, const int8_t* weights,
                const int32_t* bias, int64_t out, int32_t* y);
  // x = clip((y + 2^(shift - 1)) >> shift, 0, 127); count is a multiple of 16.
  void (*activate)(const int32_t* y, int64_t count, int shift, uint8_t* x);
  // Weights of `count` outcomes, 0 for those that fill up the block; returns their sum.
  uint32_t (*weigh)(const int32_t* y, int64_t count, int shift, uint32_t* weights);
  // The sum of the weights before an outcome.
  uint32_t (*sum_before)(const uint32_t* weights, int64_t outcome);
  // The outcome that a position below the sum of all lies in; the sum before it is stored.
  int64_t (*find)(const uint32_t* weights, uint32_t position, uint32_t* before);
};

extern const PriorKernel prior_kernel_baseline;
extern const PriorKernel prior_kernel_avx2;
extern const PriorKernel prior_kernel_avx512;
extern const PriorKernel prior_kernel_avx512vnni;
extern const PriorKernel prior_kernel_amx;

}  // namespace vqtok
