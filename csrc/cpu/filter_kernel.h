// What filter_kernel.cpp provides, for instruction sets that multiply bytes: a fast look at all codes
// in 8-bit integers, which leaves few tiles to score in float32.
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
constexpr int kFilterRows = 32;   // per panel

// Bytes: codes [codes][depth] and starts [codes]; a panel is [depth / 4][kFilterRows][4].
// depth >= dim is a multiple of `chunk`, which is a multiple of 4 and at most 64.
struct FilterCodes {
  const int8_t* values;
  const int32_t* starts;
  int depth, chunk;
};

// The float32 scores of rows so far.
struct RowScores {
  float *best, *second;  // the highest score, and the highest of the other codes
  int32_t* code;         // of the best
};

struct FilterKernel {
  // Rounds a float32 panel [dim][kFilterRows] to bytes; per row the squared norms of what it became
  // and of what was lost.
  void (*round)(const float* panel, int dim, int depth, float row_scale, uint8_t* bytes,
                float* squared_norms, float* squared_losses);

  // The largest I of each row in each tile: maxima [tile - begin][kFilterRows]. begin and end are
  // multiples of 4 tiles.
  void (*scan)(FilterCodes codes, int32_t begin, int32_t end, const uint8_t* panel,
               int32_t* maxima);

  // The tile in which each row's maximum is largest.
  void (*best_tiles)(const int32_t* maxima, int32_t begin, int32_t end, int32_t* tiles);

  // Lists the maxima >= the row's threshold by ascending tile, but for one tile of each row;
  // returns how many.
  int (*collect)(const int32_t* maxima, int32_t begin, int32_t end, const int32_t* thresholds,
                 const int32_t* except, TileHit* hits);

  // Scores the listed tiles in float32. Two codes of a tile within the margin make second = best.
  void (*rescore)(TileRange tiles, PanelRows rows, const TileHit* hits, int count,
                  const float* margins, RowScores scores);
};

extern const FilterKernel filter_kernel_avx512vnni;
extern const FilterKernel filter_kernel_amx;

}  // namespace vqtok
