// The inner loops of the lookup. Compiled once per instruction set; see simd.h for what may be used.
#include "cpu/nearest_kernel.h"

#include "cpu/digest_kernel.h"
#include "cpu/filter_kernel.h"
#include "cpu/simd.h"
#include "cpu/split_kernel.h"
#include "cpu/tile_scores.h"
#include "cpu/tree_kernel.h"

namespace {

using vqtok::MarginTerms;
using vqtok::NearestKernel;
using vqtok::PanelRows;
using vqtok::PanelScan;
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
static_assert(kLanes != 16 || kRows == vqtok::kWidePanelRows, "panels go to other kernels, too");

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
void scan_tiles(TileRange tiles, const float* panel, PanelScan scan) {
  VecF best[kRowVectors], second[kRowVectors];
  VecI best_tile[kRowVectors];
  for (int r = 0; r < kRowVectors; ++r) {
    best[r] = load(scan.best + r * kLanes);
    second[r] = load(scan.second + r * kLanes);
    best_tile[r] = load(scan.best_tile + r * kLanes);
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
    store(scan.best + r * kLanes, best[r]);
    store(scan.second + r * kLanes, second[r]);
    store(scan.best_tile + r * kLanes, best_tile[r]);
  }
}

void scan(TileRange tiles, const float* panel, PanelScan scan) {
  switch (tiles.dim) {  // small dimensions are worth unrolling
    case 4: return scan_tiles<4>(tiles, panel, scan);
    case 8: return scan_tiles<8>(tiles, panel, scan);
    default: return scan_tiles<0>(tiles, panel, scan);
  }
}

template <int kDim>
void scan_tops_of(TileRange tiles, const float* panel, int count, float* maxima, float* tops) {
  const int64_t step = static_cast<int64_t>(tiles.dim) * kTile;
  for (int32_t t = tiles.begin; t < tiles.end; ++t, maxima += kRows) {
    VecF highest[kRowVectors];
    tile_maxima<kDim>(tiles.values + t * step, tiles.offsets + int64_t{t} * kTile, panel, tiles.dim,
                      highest);
    for (int r = 0; r < kRowVectors; ++r) {
      VecF here = highest[r];
      float* top = tops + r * kLanes;
      store(maxima + r * kLanes, here);
      if (!mask_at_least(here, load(top + (count - 1) * kRows))) continue;
      for (int i = 0; i < count; ++i, top += kRows) {
        const VecF before = load(top);
        store(top, max(before, here));
        here = min(before, here);
      }
    }
  }
}

void scan_tops(TileRange tiles, const float* panel, int count, float* maxima, float* tops) {
  switch (tiles.dim) {
    case 4: return scan_tops_of<4>(tiles, panel, count, maxima, tops);
    case 8: return scan_tops_of<8>(tiles, panel, count, maxima, tops);
    default: return scan_tops_of<0>(tiles, panel, count, maxima, tops);
  }
}

int list_tiles(const float* maxima, int32_t begin, int32_t end, const float* thresholds,
               TileHit* hits) {
  int found = 0;
  for (int32_t t = begin; t < end; ++t, maxima += kRows)
    for (int r = 0; r < kRows; r += kLanes) {
      uint32_t mask = mask_at_least(load(maxima + r), load(thresholds + r));
      for (; mask; mask &= mask - 1) hits[found++] = {r + __builtin_ctz(mask), t};
    }
  return found;
}

template <int kDim>
uint64_t settle_rows(TileRange tiles, PanelRows rows, PanelScan scan, const float* margins,
                     int64_t* codes) {
  const int dim = kDim ? kDim : tiles.dim;
  uint64_t open = 0;
  for (int r = 0; r < rows.count; ++r) {
    const int64_t tile = scan.best_tile[r];
    const TileScores scores = score_tile(tiles.values + tile * dim * kTile,
                                         tiles.offsets + tile * kTile, rows.row(r), dim);
    const uint32_t rivals = codes_at_least(scores, largest(scores) - margins[r]);
    const bool certain = scan.best[r] - scan.second[r] > margins[r] && (rivals & (rivals - 1)) == 0;
    codes[r] = tile * kTile + (rivals ? __builtin_ctz(rivals) : 0);
    open |= static_cast<uint64_t>(!certain) << r;
  }
  return open;
}

uint64_t settle(TileRange tiles, PanelRows rows, PanelScan scan, const float* margins,
                int64_t* codes) {
  switch (tiles.dim) {
    case 4: return settle_rows<4>(tiles, rows, scan, margins, codes);
    case 8: return settle_rows<8>(tiles, rows, scan, margins, codes);
    default: return settle_rows<0>(tiles, rows, scan, margins, codes);
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

void pack(PanelRows rows, int dim, float* panel, float* squared_norms) {
  const int quad_rows = rows.count / 4 * 4, quad_dim = dim / 4 * 4;
  for (int r = 0; r < quad_rows; r += 4)
    for (int d = 0; d < quad_dim; d += 4)
      transpose_quad(rows.row(r) + d, rows.stride, panel + d * kRows + r);
  for (int r = 0; r < kRows; ++r)
    for (int d = r < quad_rows ? quad_dim : 0; d < dim; ++d)
      panel[d * kRows + r] = r < rows.count ? rows.row(r)[d] : 0.0f;
  VecF sums[kRowVectors];
  for (int r = 0; r < kRowVectors; ++r) sums[r] = splat(0.0f);
  for (int d = 0; d < dim; ++d)
    UNROLL for (int r = 0; r < kRowVectors; ++r) {
      const VecF v = load(panel + d * kRows + r * kLanes);
      sums[r] = multiply_add(v, v, sums[r]);
    }
  for (int r = 0; r < kRowVectors; ++r) store(squared_norms + r * kLanes, sums[r]);
}

void margins(const float* squared_norms, MarginTerms terms, float* margins) {
  for (int r = 0; r < kRows; r += kLanes) {
    float squared[kLanes];  // margins may be written over them
    memcpy(squared, squared_norms + r, sizeof squared);
    const VecF norms = load(squared);
    const VecF rest = multiply_add(splat(terms.per_squared_norm), norms, splat(terms.constant));
    store(margins + r, multiply_add(splat(terms.per_norm), square_root(norms), rest));
    for (int i = 0; i < kLanes; ++i)
      if (!(squared[i] <= terms.squared_norm_limit)) margins[r + i] = __builtin_inff();
  }
}

}  // namespace

namespace vqtok {

extern const NearestKernel VQTOK_TABLE(nearest_kernel) = {
    kRows, pack, margins, scan, scan_tops, list_tiles, settle, collect, distances<float>, distances<double>,
    &VQTOK_TABLE(digest_kernel), &VQTOK_TABLE(tree_kernel),
#if defined(__AVX512VNNI__)
    &VQTOK_TABLE(filter_kernel),
#else
    nullptr,
#endif
#if defined(__AMX_BF16__)
    &VQTOK_TABLE(split_kernel),
#else
    nullptr,
#endif
};

}  // namespace vqtok
