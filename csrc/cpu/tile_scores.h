// The scores of one row against the 8 codes of a tile, for kernels. See simd.h for what may be used.
#pragma once
#include "cpu/nearest_kernel.h"
#include "cpu/simd.h"

namespace {

using vqtok::kTile;

#if defined(__AVX2__)  // 8 lanes also where vectors have 16

typedef __m256 TileScores;
static_assert(kTile == 8, "one 256-bit vector");

inline TileScores score_tile(const float* values, const float* offsets, const float* row, int dim) {
  const auto add = [&](int d, __m256 sum) __attribute__((always_inline)) {
    return _mm256_fmadd_ps(_mm256_broadcast_ss(row + d), _mm256_loadu_ps(values + d * kTile), sum);
  };
  __m256 even = _mm256_loadu_ps(offsets), odd = _mm256_setzero_ps();
  int d = 0;
  if (dim >= 16) {  // more sums at a time: one waits for itself
    __m256 third = odd, fourth = odd;
    for (; d + 4 <= dim; d += 4) {
      even = add(d, even);
      odd = add(d + 1, odd);
      third = add(d + 2, third);
      fourth = add(d + 3, fourth);
    }
    even = _mm256_add_ps(even, third);
    odd = _mm256_add_ps(odd, fourth);
  }
  for (; d + 2 <= dim; d += 2) {
    even = add(d, even);
    odd = add(d + 1, odd);
  }
  if (d < dim) even = add(d, even);
  return _mm256_add_ps(even, odd);
}

inline float largest(TileScores s) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// Bit c: code c scores at least `limit`.
inline uint32_t codes_at_least(TileScores s, float limit) {
  return static_cast<uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(s, _mm256_set1_ps(limit), _CMP_GE_OQ)));
}

#else

constexpr int kParts = kTile / kLanes;
struct TileScores { VecF part[kParts]; };

inline TileScores score_tile(const float* values, const float* offsets, const float* row, int dim) {
  TileScores s;
  for (int i = 0; i < kParts; ++i) s.part[i] = load(offsets + i * kLanes);
  for (int d = 0; d < dim; ++d)
    for (int i = 0; i < kParts; ++i)
      s.part[i] = multiply_add(splat(row[d]), load(values + d * kTile + i * kLanes), s.part[i]);
  return s;
}

inline float largest(const TileScores& s) {
  VecF most = s.part[0];
  for (int i = 1; i < kParts; ++i) most = max(most, s.part[i]);
  float value = most[0];
  for (int lane = 1; lane < kLanes; ++lane) value = most[lane] > value ? most[lane] : value;
  return value;
}

inline uint32_t codes_at_least(const TileScores& s, float limit) {
  uint32_t mask = 0;
  for (int i = 0; i < kParts; ++i) mask |= mask_at_least(s.part[i], splat(limit)) << (i * kLanes);
  return mask;
}

#endif

}  // namespace
