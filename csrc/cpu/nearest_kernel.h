// What nearest_kernel.cpp provides once per instruction set.
//
// Codes are stored in tiles of 8: values [tile][dim][8] and offsets [tile][8], where an offset is
// -|c|^2/2, or -inf for a code that must never win. Rows are stored in panels of `rows` rows:
// [dim][rows]. The score of a row x and a code c is x.c - |c|^2/2: the nearest code scores highest.
#pragma once
#include <stdint.h>

namespace vqtok {

constexpr int kTile = 8;
constexpr int kMaxPanelRows = 64;
constexpr int kWidePanelRows = 32;  // where vectors have 16 lanes

struct TileRange {
  const float* values;   // of tile 0
  const float* offsets;  // of tile 0
  int dim;
  int32_t begin, end;
};

struct TileHit {
  int32_t row, tile;
};

// What makes scores trustworthy (see error_bound.h): float32 only, to be used by any kernel.
struct MarginTerms {
  float per_norm, per_squared_norm, constant, squared_norm_limit;
};

// Rows of a panel, before they are transposed.
struct PanelRows {
  const float* values;
  int64_t stride;
  int count;

  const float* row(int i) const { return values + i * stride; }
};

// The outcome of scanning tiles with a panel: per row.
struct PanelScan {
  float *best, *second;  // the highest tile maximum, and the second
  int32_t* best_tile;    // of the best (the first if equal)
};

struct DigestKernel;
struct FilterKernel;
struct SplitKernel;
struct TreeKernel;

struct NearestKernel {
  int rows;  // per panel

  // Transposes rows (the rest of the panel becomes zero) and writes their squared norms.
  void (*pack)(PanelRows rows, int dim, float* panel, float* squared_norms);

  // How far below its best score a row's code may score; +inf beyond the limit, NaN included. May
  // be written over the norms.
  void (*margins)(const float* squared_norms, MarginTerms terms, float* margins);

  // Updates the outcome by the maxima of the tiles.
  void (*scan)(TileRange tiles, const float* panel, PanelScan scan);

  // Writes the maxima of the tiles, [tiles][rows], and works them into the `count` highest of each
  // row so far, tops [count][rows], highest first.
  void (*scan_tops)(TileRange tiles, const float* panel, int count, float* maxima, float* tops);

  // Lists where such maxima reach the row's threshold, by ascending tile; returns how many. `hits`
  // has room for all.
  int (*list_tiles)(const float* maxima, int32_t begin, int32_t end, const float* thresholds,
                    TileHit* hits);

  // Finishes rows of which one code is ahead of all others by more than the margin: writes that
  // code. Bit r of the result: row r was not like that.
  uint64_t (*settle)(TileRange tiles, PanelRows rows, PanelScan scan, const float* margins,
                     int64_t* codes);

  // Lists the tiles in which a row scores >= its threshold, by ascending tile. Stops while fewer
  // than `rows` places of `capacity` are left; returns the tile to go on from.
  int32_t (*collect)(TileRange tiles, const float* panel, const float* thresholds, TileHit* hits,
                     int capacity, int* count);

  // Squared distances in float64, terms added by ascending dimension, each operation rounded.
  void (*distances_f32)(const float* values, const double* row, int dim, double* distances);
  void (*distances_f64)(const double* values, const double* row, int dim, double* distances);

  const DigestKernel* digest;
  const TreeKernel* tree;
  const FilterKernel* filter;  // null if the instruction set has none
  const SplitKernel* split;    // null if the instruction set has none
};

extern const NearestKernel nearest_kernel_baseline;
extern const NearestKernel nearest_kernel_avx2;
extern const NearestKernel nearest_kernel_avx512;
extern const NearestKernel nearest_kernel_avx512vnni;
extern const NearestKernel nearest_kernel_amx;

}  // namespace vqtok
