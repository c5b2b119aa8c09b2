// The lookup's inner loops for AMX with bfloat16. See simd.h for what may be used.
#include "cpu/split_kernel.h"

#include <immintrin.h>

#include "cpu/simd.h"

namespace {

using vqtok::kSplitTiles;
using vqtok::kTile;
using vqtok::PanelScan;
using vqtok::SplitCodes;
using vqtok::SplitKernel;

constexpr int kRowVectors = 2, kRows = kRowVectors * kLanes;
constexpr int kSplitCodes = kSplitTiles * kTile;
static_assert(kLanes == 16, "vectors are rows of tile registers");

// The nearest bfloat16, in the upper half; of finite values.
inline __m512i high_part(VecF v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return _mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
}

inline VecF minus(VecF v, __m512i high) { return _mm512_sub_ps(v, _mm512_castsi512_ps(high)); }

// Two upper halves as one word, the first in the lower half.
inline __m512i pair(__m512i first, __m512i second) {
  return _mm512_or_si512(_mm512_srli_epi32(first, 16), second);
}

void split(const float* panel, int dim, int pairs, uint32_t* split) {
  const int both = dim, ones = both + (dim + 1) / 2;
  for (int r = 0; r < kRows; r += kLanes) {
    const auto put = [&](int at, __m512i words) {
      _mm512_storeu_si512(split + at * kRows + r, words);
    };
    __m512i before = _mm512_setzero_si512();
    for (int d = 0; d < dim; ++d) {
      const VecF v = load(panel + d * kRows + r);
      const __m512i high = high_part(v);
      put(d, pair(high, high_part(minus(v, high))));
      if (d % 2) put(both + d / 2, pair(before, high));
      before = high;
    }
    if (dim % 2) put(both + dim / 2, pair(before, _mm512_setzero_si512()));
    put(ones, _mm512_set1_epi32(0x3f803f80));
    put(ones + 1, _mm512_set1_epi32(0x3f80));
    for (int at = ones + 2; at < pairs; ++at) put(at, _mm512_setzero_si512());
  }
}

struct TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// Registers: 0-3 scores [16 codes][16 rows], 4-5 codes [16][chunk], 6-7 rows [chunk][16].
void set_tile_shapes(int chunk) {
  alignas(64) TileShapes shapes = {};
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    shapes.bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? chunk * 4 : 64);
    shapes.rows[i] = static_cast<uint8_t>(i >= 6 ? chunk : 16);
  }
  asm volatile("ldtilecfg %0" : : "m"(shapes));  // GCC's intrinsic says it reads 8 bytes
}

// Hands the maxima of tiles to take(tile, first row, maxima), by their scores.
template <class Take> inline void reduce(const float* scores, int32_t first_tile, Take& take) {
  UNROLL for (int t = 0; t < kSplitTiles; ++t)
    UNROLL for (int r = 0; r < kRows; r += kLanes) {
      const float* here = scores + t * kTile * kRows + r;
      VecF even = load(here), odd = load(here + kRows);
      UNROLL for (int c = 2; c < kTile; c += 2) {
        even = max(even, load(here + c * kRows));
        odd = max(odd, load(here + (c + 1) * kRows));
      }
      take(first_tile + t, r, max(even, odd));
    }
}

// Registers of rows stay where they are if there is one chunk alone.
template <bool kOneChunk, class Take>
inline void scan_chunks(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel,
                        Take& take) {
  constexpr int kStride = kRows * sizeof(float);
  alignas(64) float scores[kSplitCodes * kRows];
  set_tile_shapes(codes.chunk);
  const int64_t stride = codes.pairs * int64_t{sizeof(uint32_t)};
  const int pairs = kOneChunk ? codes.chunk : codes.pairs;
  const uint32_t* values = codes.values + int64_t{begin} * kTile * pairs;
  const int blocks = (end - begin) / kSplitTiles;
  if (kOneChunk) {
    _tile_loadd(6, panel, kStride);
    _tile_loadd(7, panel + kLanes, kStride);
  }
  for (int i = 0; i <= blocks; ++i) {
    if (i < blocks) {
      const uint32_t *low = values + i * int64_t{kSplitCodes} * pairs, *high = low + 16 * pairs;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int at = 0; at < pairs; at += codes.chunk) {
        _tile_loadd(4, low + at, stride);
        if (!kOneChunk) {
          _tile_loadd(6, panel + at * kRows, kStride);
          _tile_loadd(7, panel + at * kRows + kLanes, kStride);
        }
        _tile_loadd(5, high + at, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    // The block before, while this one is being multiplied; and before its scores are stored, for
    // loads that seem to touch stores before them would wait.
    if (i > 0) reduce(scores, begin + (i - 1) * kSplitTiles, take);
    if (i < blocks) {
      _tile_stored(0, scores, kStride);
      _tile_stored(1, scores + kLanes, kStride);
      _tile_stored(2, scores + 16 * kRows, kStride);
      _tile_stored(3, scores + 16 * kRows + kLanes, kStride);
    }
  }
  _tile_release();
}

template <class Take>
inline void scan_with(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel,
                      Take& take) {
  if (codes.pairs == codes.chunk) return scan_chunks<true>(codes, begin, end, panel, take);
  scan_chunks<false>(codes, begin, end, panel, take);
}

struct TakeBest {
  VecF best[kRowVectors], second[kRowVectors];
  VecI best_tile[kRowVectors];

  explicit TakeBest(const PanelScan& scan) {
    for (int i = 0; i < kRowVectors; ++i) {
      best[i] = load(scan.best + i * kLanes);
      second[i] = load(scan.second + i * kLanes);
      best_tile[i] = load(scan.best_tile + i * kLanes);
    }
  }

  __attribute__((always_inline)) void operator()(int32_t tile, int r, VecF maxima) {
    const int i = r / kLanes;
    best_tile[i] = if_greater(maxima, best[i], splat(tile), best_tile[i]);
    second[i] = max(second[i], min(best[i], maxima));
    best[i] = max(best[i], maxima);
  }

  void store_to(const PanelScan& scan) const {
    for (int i = 0; i < kRowVectors; ++i) {
      store(scan.best + i * kLanes, best[i]);
      store(scan.second + i * kLanes, second[i]);
      store(scan.best_tile + i * kLanes, best_tile[i]);
    }
  }
};

void scan(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel, PanelScan scan) {
  TakeBest take(scan);
  scan_with(codes, begin, end, panel, take);
  take.store_to(scan);
}

struct TakeTops {
  int32_t begin;
  int count;
  float *maxima, *tops;

  __attribute__((always_inline)) void operator()(int32_t tile, int r, VecF here) const {
    store(maxima + int64_t{tile - begin} * kRows + r, here);
    float* top = tops + r;
    if (!mask_at_least(here, load(top + (count - 1) * kRows))) return;
    for (int i = 0; i < count; ++i, top += kRows) {
      const VecF before = load(top);
      store(top, max(before, here));
      here = min(before, here);
    }
  }
};

void scan_tops(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel, int count,
               float* maxima, float* tops) {
  TakeTops take{begin, count, maxima, tops};
  scan_with(codes, begin, end, panel, take);
}

}  // namespace

namespace vqtok {

extern const SplitKernel VQTOK_TABLE(split_kernel) = {split, scan, scan_tops};

}  // namespace vqtok
