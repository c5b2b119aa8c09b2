// The inner loops of the lookup. Compiled once per instruction set; see simd.h for what may be used.
#include "cpu/nearest_kernel.h"

#include "cpu/simd.h"

namespace {

using vqtok::kTile;
using vqtok::NearestKernel;
using vqtok::TileHit;
using vqtok::TileRange;

// A register tile is kRowVectors x kCodes accumulators: lanes are rows, codes are broadcast.
#if defined(__AVX512F__)
constexpr int kRowVectors = 2, kCodes = 8;
#elif defined(__AVX2__)
constexpr int kRowVectors = 3, kCodes = 4;
#elif defined(__aarch64__)
constexpr int kRowVectors = 3, kCodes = 8;
#else
constexpr int kRowVectors = 2, kCodes = 4;
#endif
constexpr int kRows = kRowVectors * kLanes;
static_assert(kRows <= vqtok::kMaxPanelRows, "callers size their buffers by kMaxPanelRows");

// The best score of each row within one tile. kDim is the dimension, or 0 if known at run time only.
template <int kDim>
__attribute__((always_inline)) inline void tile_maxima(const float* values, const float* offsets,
                                                       const float* panel, int dim,
                                                       VecF (&maxima)[kRowVectors]) {
  const int depth = kDim ? kDim : dim;
  UNROLL for (int first = 0; first < kTile; first += kCodes) {
    VecF scores[kRowVectors][kCodes];
    UNROLL for (int c = 0; c < kCodes; ++c) {
      const VecF offset = splat(offsets[first + c]);
      UNROLL for (int r = 0; r < kRowVectors; ++r) scores[r][c] = offset;
    }
    UNROLL for (int d = 0; d < depth; ++d) {
      VecF x[kRowVectors];
      UNROLL for (int r = 0; r < kRowVectors; ++r) x[r] = load(panel + d * kRows + r * kLanes);
      UNROLL for (int c = 0; c < kCodes; ++c) {
        const VecF value = splat(values[d * kTile + first + c]);
        UNROLL for (int r = 0; r < kRowVectors; ++r)
            scores[r][c] = multiply_add(x[r], value, scores[r][c]);
      }
    }
    UNROLL for (int r = 0; r < kRowVectors; ++r) {
      UNROLL for (int width = kCodes / 2; width > 0; width /= 2)
        UNROLL for (int c = 0; c < width; ++c)
            scores[r][c] = max(scores[r][c], scores[r][c + width]);
      maxima[r] = first ? max(maxima[r], scores[r][0]) : scores[r][0];
    }
  }
}

template <int kDim>
void scan_tiles(TileRange tiles, const float* panel, float* best_out, float* second_out,
                int32_t* tile_out) {
  VecF best[kRowVectors], second[kRowVectors];
  VecI best_tile[kRowVectors];
  for (int r = 0; r < kRowVectors; ++r) {
    best[r] = load(best_out + r * kLanes);
    second[r] = load(second_out + r * kLanes);
    best_tile[r] = load(tile_out + r * kLanes);
  }
  const int64_t step = static_cast<int64_t>(tiles.dim) * kTile;
  for (int32_t t = tiles.begin; t < tiles.end; ++t) {
    VecF maxima[kRowVectors];
    tile_maxima<kDim>(tiles.values + t * step, tiles.offsets + int64_t{t} * kTile, panel, tiles.dim,
                      maxima);
    const VecI tile = splat(t);
    UNROLL for (int r = 0; r < kRowVectors; ++r) {
      best_tile[r] = if_greater(maxima[r], best[r], tile, best_tile[r]);
      second[r] = max(second[r], min(best[r], maxima[r]));
      best[r] = max(best[r], maxima[r]);
    }
  }
  for (int r = 0; r < kRowVectors; ++r) {
    store(best_out + r * kLanes, best[r]);
    store(second_out + r * kLanes, second[r]);
    store(tile_out + r * kLanes, best_tile[r]);
  }
}

void scan(TileRange tiles, const float* panel, float* best, float* second, int32_t* tile) {
  switch (tiles.dim) {  // small dimensions are worth unrolling
    case 4: return scan_tiles<4>(tiles, panel, best, second, tile);
    case 8: return scan_tiles<8>(tiles, panel, best, second, tile);
    default: return scan_tiles<0>(tiles, panel, best, second, tile);
  }
}

int32_t collect(TileRange tiles, const float* panel, const float* thresholds, TileHit* hits,
                int capacity, int* count) {
  const int64_t step = static_cast<int64_t>(tiles.dim) * kTile;
  int found = 0;
  int32_t t = tiles.begin;
  for (; t < tiles.end && found + kRows <= capacity; ++t) {
    VecF maxima[kRowVectors];
    tile_maxima<0>(tiles.values + t * step, tiles.offsets + int64_t{t} * kTile, panel, tiles.dim,
                   maxima);
    for (int r = 0; r < kRowVectors; ++r) {
      uint32_t mask = mask_at_least(maxima[r], load(thresholds + r * kLanes));
      for (; mask; mask &= mask - 1) hits[found++] = {r * kLanes + __builtin_ctz(mask), t};
    }
  }
  *count = found;
  return t;
}

void score_tile(const float* values, const float* offsets, const float* row, int dim,
                float* scores) {
  constexpr int kParts = kTile / (kLanes < kTile ? kLanes : kTile);
#if defined(__AVX2__)  // 8 lanes also where vectors have 16
  static_assert(kTile == 8, "one 256-bit vector");
  __m256 even = _mm256_loadu_ps(offsets), odd = _mm256_setzero_ps();
  int d = 0;
  for (; d + 2 <= dim; d += 2) {
    const float* v = values + d * kTile;
    even = _mm256_fmadd_ps(_mm256_broadcast_ss(row + d), _mm256_loadu_ps(v), even);
    odd = _mm256_fmadd_ps(_mm256_broadcast_ss(row + d + 1), _mm256_loadu_ps(v + kTile), odd);
  }
  if (d < dim)
    even = _mm256_fmadd_ps(_mm256_broadcast_ss(row + d), _mm256_loadu_ps(values + d * kTile), even);
  _mm256_storeu_ps(scores, _mm256_add_ps(even, odd));
  (void)kParts;
#else
  VecF sums[kParts];
  for (int i = 0; i < kParts; ++i) sums[i] = load(offsets + i * kLanes);
  for (int d = 0; d < dim; ++d)
    for (int i = 0; i < kParts; ++i)
      sums[i] = multiply_add(splat(row[d]), load(values + d * kTile + i * kLanes), sums[i]);
  for (int i = 0; i < kParts; ++i) store(scores + i * kLanes, sums[i]);
#endif
}

template <class T>
void distances(const T* values, const double* row, int dim, double* out) {
  double sums[kTile] = {};
  for (int d = 0; d < dim; ++d)
    UNROLL for (int c = 0; c < kTile; ++c) {
      const double difference = row[d] - static_cast<double>(values[d * kTile + c]);
      sums[c] += difference * difference;
    }
  for (int c = 0; c < kTile; ++c) out[c] = sums[c];
}

typedef float Quad __attribute__((vector_size(16)));

// Four elements of four rows, to four lanes of four panel lines.
inline void transpose_quad(const float* rows, int64_t stride, float* panel) {
  Quad a, b, c, d;
  memcpy(&a, rows, sizeof a);
  memcpy(&b, rows + stride, sizeof b);
  memcpy(&c, rows + 2 * stride, sizeof c);
  memcpy(&d, rows + 3 * stride, sizeof d);
  const Quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Quad ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Quad cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Quad cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Quad lines[4] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                         __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) memcpy(panel + i * kRows, &lines[i], sizeof(Quad));
}

void pack(const float* rows, int64_t stride, int count, int dim, float* panel, float* norms) {
  const int quad_rows = count / 4 * 4, quad_dim = dim / 4 * 4;
  for (int r = 0; r < quad_rows; r += 4)
    for (int d = 0; d < quad_dim; d += 4)
      transpose_quad(rows + r * stride + d, stride, panel + d * kRows + r);
  for (int r = 0; r < kRows; ++r)
    for (int d = r < quad_rows ? quad_dim : 0; d < dim; ++d)
      panel[d * kRows + r] = r < count ? rows[r * stride + d] : 0.0f;
  for (int r = 0; r < kRows; r += kLanes) {
    VecF sum = splat(0.0f);
    for (int d = 0; d < dim; ++d) {
      const VecF v = load(panel + d * kRows + r);
      sum = multiply_add(v, v, sum);
    }
    store(norms + r, sum);
  }
}

}  // namespace

namespace vqtok {

extern const NearestKernel VQTOK_TABLE(nearest_kernel) = {
    kRows, pack, scan, collect, score_tile, distances<float>, distances<double>,
};

}  // namespace vqtok
