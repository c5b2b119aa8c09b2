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

struct TileRange {
  const float* values;   // of tile 0
  const float* offsets;  // of tile 0
  int dim;
  int32_t begin, end;
};

struct TileHit {
  int32_t row, tile;
};

struct NearestKernel {
  int rows;  // per panel

  // Transposes `count` rows (the rest of the panel becomes zero) and writes their squared norms.
  void (*pack)(const float* rows, int64_t stride, int count, int dim, float* panel, float* norms);

  // Updates per row the best tile maximum, the second best, and the best's tile (first if equal).
  void (*scan)(TileRange tiles, const float* panel, float* best, float* second, int32_t* best_tile);

  // Lists the tiles in which a row scores >= its threshold, by ascending tile. Stops while fewer
  // than `rows` places of `capacity` are left; returns the tile to go on from.
  int32_t (*collect)(TileRange tiles, const float* panel, const float* thresholds, TileHit* hits,
                     int capacity, int* count);

  // Scores of one row against the 8 codes of a tile.
  void (*score_tile)(const float* values, const float* offsets, const float* row, int dim,
                     float* scores);

  // Squared distances in float64, terms added by ascending dimension, each operation rounded.
  void (*distances_f32)(const float* values, const double* row, int dim, double* distances);
  void (*distances_f64)(const double* values, const double* row, int dim, double* distances);
};

extern const NearestKernel nearest_kernel_baseline;
extern const NearestKernel nearest_kernel_avx2;
extern const NearestKernel nearest_kernel_avx512;

}  // namespace vqtok
