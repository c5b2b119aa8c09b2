// What filter_kernel.cpp provides, for instruction sets that multiply bytes: a fast look at all codes
// in 8-bit integers, which leaves few codes to score in float32.
//
// A code c is stored as signed bytes q_c with c ~ code_scale q_c, a row x as unsigned bytes
// q_x + 128 with x ~ row_scale q_x, both q in [-127, 127]. In units of row_scale * code_scale the
// score x.c - |c|^2/2 is close to the integer
//     I = sum_d (q_x + 128) q_c + start_c,   start_c = round(-|c|^2/2 / unit) - 128 sum_d q_c.
// How close is the caller's business (filter.h). No sum overflows int32: with D <= kMaxFilterDim
// = 2^14, the products add up to less than 2^14 * 255 * 127 < 2^29, 128 sum q_c is less than
// 2^14 * 128 * 127 < 2^28, and the caller raises the first part of start_c to -2^30 at least. So
// every partial sum lies between -2^30 - 2^28 - 2^29 > -2^31 and 2^28 + 2^29 < 2^30.
#pragma once
#include <stdint.h>

#include "cpu/nearest_kernel.h"

namespace vqtok {

constexpr int kMaxFilterDim = 1 << 14;
constexpr int kFilterCodes = 32;  // codes are padded to a multiple
constexpr int kFilterRows = kWidePanelRows;

// Codes as bytes [codes][depth] and their starts [codes]. Rows as bytes [kFilterRows][depth], and as
// a panel [depth / 4][kFilterRows][4]. depth >= dim is a multiple of `chunk`, which is a multiple of
// 4 and at most 64.
struct FilterCodes {
  const int8_t* values;
  const int32_t* starts;
  int depth, chunk;
};

// With e the length of what rounding took from a row and n that of what is left of it, I is off by
// at most e * per_loss + n * per_norm + constant.
struct FilterTerms {
  float row_scale, per_loss, per_norm, constant;
};

struct CodeHit {
  int32_t row, code;
};

// The float32 scores of rows so far: the highest, the highest of the other codes, the best code.
struct RowScores {
  float *best, *second;
  int32_t* code;
};

// `size` codes [size][dim], one after the other; offsets [codes], -inf from `size` on.
struct CodeRows {
  const float *values, *offsets;
  int64_t size;
  int dim;
};

struct FilterKernel {
  // starts[k] = round(max(offsets[k] * inverse_unit, -2^30)) - 128 * sums[k]
  void (*start)(const float* offsets, const int32_t* sums, double inverse_unit, int64_t count,
                int32_t* starts);

  // Rounds rows to bytes (read up to 12 beyond their end), bounds the errors of I, and adds up the
  // squares of each. Rows that the panel lacks become zero.
  void (*round)(PanelRows rows, int dim, int depth, FilterTerms terms, uint8_t* bytes,
                uint8_t* panel, float* errors, float* squared_norms);

  // The largest I of each tile in [begin, end), multiples of 4: maxima [tiles][kFilterRows].
  void (*scan)(FilterCodes codes, int32_t begin, int32_t end, const uint8_t* panel,
               int32_t* maxima);

  // The code with the largest I of each of the first `count` rows.
  void (*best_codes)(FilterCodes codes, int32_t begin, int32_t end, const int32_t* maxima,
                     const uint8_t* bytes, int count, int32_t* best);

  // The least I that a code scoring best - margin may have; never reached where margin is +inf.
  void (*thresholds)(const float* best, const float* margins, const float* errors,
                     float inverse_unit, int32_t* thresholds);

  // Lists the codes that reach their row's threshold, except one of each row; returns how many.
  // `scratch` has room for all tiles of all rows, `hits` for all codes, and 16 more each.
  int (*collect)(FilterCodes codes, int32_t begin, int32_t end, const int32_t* maxima,
                 const uint8_t* bytes, const int32_t* thresholds, const int32_t* except,
                 int32_t* scratch, CodeHit* hits);

  // Scores the listed codes in float32.
  void (*rescore)(CodeRows codes, PanelRows rows, const CodeHit* hits, int count, RowScores scores);
};

extern const FilterKernel filter_kernel_avx512vnni;
extern const FilterKernel filter_kernel_amx;

}  // namespace vqtok
