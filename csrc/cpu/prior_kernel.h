// What prior_kernel.cpp provides once per instruction set: the inner loops of the integer prior.
#pragma once
#include <stdint.h>

namespace vqtok {

constexpr int kOutBlock = 16;      // outputs are padded to multiples of it
constexpr int kInBlock = 4;        // inputs too
constexpr int kWeightBits = 19;    // of the largest weight of an outcome
constexpr int kMostSteps = kWeightBits * 32;  // of 1/32 bit, from the largest weight to 1

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
  // As dense, of 16-bit numbers in blocks [out / 16][in / 2][16][2]; no sum may exceed 32 bits.
  void (*dense_wide)(const int16_t* x, int64_t rows, int64_t in, const int16_t* weights,
                     const int32_t* bias, int64_t out, int32_t* y);
  // The `keep` outcomes of least distance + (weight * min(d, kMostSteps) >> weight_shift), d as in
  // weigh: steps of 1/32 bit below the likeliest, ascending, the first first among equals; with these
  // sums, which do not exceed 31 bits. Where there are fewer, INT32_MAX and 0 fill up.
  void (*cheapest)(const int32_t* distances, const int32_t* y, int64_t count, int shift,
                   int32_t weight, int weight_shift, int keep, int32_t* sums, int32_t* outcomes);
  // The least of `count` numbers.
  int32_t (*lowest)(const int32_t* numbers, int64_t count);
};

extern const PriorKernel prior_kernel_baseline;
extern const PriorKernel prior_kernel_avx2;
extern const PriorKernel prior_kernel_avx512;
extern const PriorKernel prior_kernel_avx512vnni;
extern const PriorKernel prior_kernel_amx;

}  // namespace vqtok
