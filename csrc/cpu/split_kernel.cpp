// The lookup's inner loops for AMX with bfloat16. See simd.h for what may be used.
#include "cpu/split_kernel.h"

#include <immintrin.h>

#include "cpu/amx.h"
#include "cpu/simd.h"

namespace {

using vqtok::kNarrowDim;
using vqtok::kSplitTiles;
using vqtok::kTile;
using vqtok::PanelScan;
using vqtok::SplitCodes;
using vqtok::SplitKernel;
using vqtok::SplitLayout;

constexpr int kRowVectors = 2, kRows = kRowVectors * kLanes;
constexpr int kSplitCodes = kSplitTiles * kTile;
static_assert(kLanes == 16, "vectors are rows of tile registers");
static_assert(kRows == vqtok::kWidePanelRows, "panels are those of nearest_kernel.cpp");

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

void split(SplitLayout layout, const float* panel, uint32_t* split) {
  const int dim = layout.dim;
  const bool narrow = dim <= kNarrowDim;
  const int ones = dim + (dim + 1) / 2;
  memset(split, 0, static_cast<size_t>(layout.words) * kRows * sizeof *split);
  for (int r = 0; r < kRows && narrow; r += kLanes) {
    _mm512_storeu_si512(split + ones * kRows + r, _mm512_set1_epi32(0x3f803f80));
    _mm512_storeu_si512(split + (ones + 1) * kRows + r, _mm512_set1_epi32(0x3f80));
  }
  for (int r = 0; r < kRows; r += kLanes)
    for (int d = 0; d < dim; d += 2) {
      const VecF a = load(panel + d * kRows + r);
      const VecF b = d + 1 < dim ? load(panel + (d + 1) * kRows + r) : splat(0.0f);
      const __m512i a_high = high_part(a), b_high = high_part(b);
      const __m512i a_middle = high_part(minus(a, a_high)), b_middle = high_part(minus(b, b_high));
      const auto put = [&](int word, __m512i v) {
        _mm512_storeu_si512(split + word * kRows + r, v);
      };
      if (narrow) {
        put(d, pair(a_high, a_middle));
        if (d + 1 < dim) put(d + 1, pair(b_high, b_middle));
        put(dim + d / 2, pair(a_high, b_high));
      } else {
        const int word = d / 32 * 32 + d % 32 / 2;
        put(word, pair(a_high, b_high));
        put(word + 16, pair(a_middle, b_middle));
      }
    }
}

// Hands the maxima of a tile to take(tile, first row, maxima).
template <bool kAddOffsets, class Take>
inline void reduce(const float* products, const float* offsets, int32_t tile, Take& take) {
  UNROLL for (int r = 0; r < kRows; r += kLanes) {
    VecF most[2];
    UNROLL for (int c = 0; c < kTile; ++c) {
      VecF score = load(products + c * kRows + r);
      if (kAddOffsets) score = _mm512_add_ps(score, splat(offsets[c]));
      most[c % 2] = c < 2 ? score : max(most[c % 2], score);
    }
    take(tile, r, max(most[0], most[1]));
  }
}

enum class Layout { one_step, narrow, wide };

template <Layout kLayout, class Take>
inline void scan_as(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel,
                    Take& take) {
  constexpr int kStride = kRows * sizeof(float);
  constexpr bool kWide = kLayout == Layout::wide;
  constexpr int kTogether = kLayout == Layout::one_step ? kSplitTiles : 1;
  alignas(64) float products[kSplitCodes * kRows];
  const int words = codes.layout.words, step = words < 16 ? words : 16;
  const int steps = kLayout == Layout::one_step ? 1 : codes.layout.steps;
  const int64_t stride = words * int64_t{sizeof(uint32_t)};
  const uint32_t* block = codes.values + int64_t{begin} * kTile * words;
  set_tile_shapes(step);
  const auto load_codes = [&](int at) __attribute__((always_inline)) {
    _tile_loadd(4, block + at, stride);
    _tile_loadd(5, block + 16 * words + at, stride);
  };
  const auto load_rows = [&](int at) __attribute__((always_inline)) {
    _tile_loadd(6, panel + at * kRows, kStride);
    _tile_loadd(7, panel + at * kRows + kLanes, kStride);
  };
  // The tiles of the block before are looked at while this one is being multiplied; and before its
  // products are stored, for loads that seem to touch stores before them would wait.
  int32_t looked_at = begin;
  const auto reduce_until = [&](int32_t tile) __attribute__((always_inline)) {
    for (; looked_at < tile; looked_at += kTogether)
      UNROLL for (int i = 0; i < kTogether; ++i)
          reduce<kWide>(products + (looked_at % kSplitTiles + i) * kTile * kRows,
                        codes.offsets + int64_t{looked_at + i} * kTile, looked_at + i, take);
  };
  if (kLayout == Layout::one_step) load_rows(0);
  for (int32_t t = begin; t < end; t += kSplitTiles, block += kSplitCodes * words) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    int done = 0;
    const auto multiply = [&]() __attribute__((always_inline)) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      ++done;
      if (t > begin) reduce_until(t - kSplitTiles + done * kSplitTiles / steps);
    };
    if (kLayout == Layout::one_step) {
      load_codes(0);
      multiply();
    }
    if (kLayout == Layout::narrow)
      for (int at = 0; at < words; at += 16) {
        load_codes(at);
        load_rows(at);
        multiply();
      }
    if (kWide)
      for (int at = 0; at < words; at += 32) {
        load_codes(at);
        load_rows(at);
        multiply();
        load_codes(at + 16);
        multiply();
        load_rows(at + 16);
        multiply();
      }
    _tile_stored(0, products, kStride);
    _tile_stored(1, products + kLanes, kStride);
    _tile_stored(2, products + 16 * kRows, kStride);
    _tile_stored(3, products + 16 * kRows + kLanes, kStride);
  }
  _tile_release();
  reduce_until(end);
}

template <class Take>
inline void scan_with(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel,
                      Take& take) {
  if (codes.layout.steps == 1) return scan_as<Layout::one_step>(codes, begin, end, panel, take);
  if (codes.layout.dim <= kNarrowDim) return scan_as<Layout::narrow>(codes, begin, end, panel, take);
  scan_as<Layout::wide>(codes, begin, end, panel, take);
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
