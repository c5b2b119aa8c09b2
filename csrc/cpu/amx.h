// Tile registers of AMX, for kernels. See simd.h for what may be used.
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace {

struct TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// To multiply 32 codes by 32 rows, `words` of 4 bytes of each at a time. Registers: 0-3 sums
// [16 codes][16 rows], 4-5 codes [16][words], 6-7 rows [words][16].
inline void set_tile_shapes(int words) {
  alignas(64) TileShapes shapes = {};
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    shapes.bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? words * 4 : 64);
    shapes.rows[i] = static_cast<uint8_t>(i >= 6 ? words : 16);
  }
  asm volatile("ldtilecfg %0" : : "m"(shapes));  // GCC's intrinsic says it reads 8 bytes
}

}  // namespace
