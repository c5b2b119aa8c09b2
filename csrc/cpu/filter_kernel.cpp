// The inner loops of the 8-bit filter, for AVX-512 with VNNI or AMX. See simd.h for what may be used.
#include "cpu/filter_kernel.h"

#include <immintrin.h>

#include "cpu/simd.h"
#if defined(__AMX_INT8__)
#include "cpu/amx.h"
#endif

namespace {

using vqtok::CodeHit;
using vqtok::CodeRows;
using vqtok::FilterCodes;
using vqtok::FilterKernel;
using vqtok::FilterTerms;
using vqtok::kFilterCodes;
using vqtok::kFilterRows;
using vqtok::kTile;
using vqtok::PanelRows;
using vqtok::RowScores;

constexpr int kVectors = kFilterRows / kLanes;
static_assert(kLanes == 16 && kVectors == 2, "two vectors of rows");

// A function: a constant could be computed at start-up, on CPUs that lack the instructions.
inline __m512i lane_numbers() {
  return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

inline __m512i load_words(const void* p) { return _mm512_loadu_si512(p); }

void start(const float* offsets, const int32_t* sums, double inverse_unit, int64_t count,
           int32_t* starts) {
  for (int64_t k = 0; k < count; k += 8) {  // a multiple of kTile
    const __m512d offset = _mm512_cvtps_pd(_mm256_loadu_ps(offsets + k));
    const __m512d units = _mm512_max_pd(_mm512_mul_pd(offset, _mm512_set1_pd(inverse_unit)),
                                        _mm512_set1_pd(-0x1p30));
    const __m256i sum = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + k));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(starts + k),
                        _mm256_sub_epi32(_mm512_cvtpd_epi32(units), _mm256_slli_epi32(sum, 7)));
  }
}

inline __mmask16 first_lanes(int count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff : (1 << count) - 1);
}

// Bytes [kFilterRows][depth] as a panel.
inline void transpose(const uint8_t* bytes, int depth, uint8_t* panel) {
  const int words = depth / 4;
  for (int w = 0; w < words; w += 4)
    for (int r = 0; r < kFilterRows; r += 4) {
      __m128 lines[4];
      UNROLL for (int i = 0; i < 4; ++i)
          lines[i] = _mm_loadu_ps(reinterpret_cast<const float*>(bytes + (r + i) * depth + w * 4));
      _MM_TRANSPOSE4_PS(lines[0], lines[1], lines[2], lines[3]);
      float* out = reinterpret_cast<float*>(panel) + w * kFilterRows + r;
      UNROLL for (int i = 0; i < 4; ++i)
        if (w + i < words) _mm_storeu_ps(out + i * kFilterRows, lines[i]);
    }
}

void round_rows(PanelRows rows, int dim, int depth, FilterTerms terms, uint8_t* bytes,
                uint8_t* panel, float* errors, float* squared_norms) {
  const VecF scale = splat(terms.row_scale), inverse = splat(1.0f / terms.row_scale);
  float norms[kFilterRows] = {}, losses[kFilterRows] = {};
  memset(bytes, 0x80, static_cast<size_t>(kFilterRows) * depth);
  memset(squared_norms, 0, kFilterRows * sizeof(float));
  for (int r = 0; r < rows.count; ++r) {
    VecF norm = splat(0.0f), loss = norm, squared = norm;
    for (int d = 0; d < dim; d += kLanes) {
      const __mmask16 mask = first_lanes(dim - d);
      const VecF v = _mm512_maskz_loadu_ps(mask, rows.row(r) + d);
      const VecF bounded = max(min(_mm512_mul_ps(v, inverse), splat(127.0f)), splat(-127.0f));
      const __m512i q = _mm512_cvtps_epi32(bounded);
      const VecF kept = _mm512_mul_ps(_mm512_cvtepi32_ps(q), scale);
      const VecF lost = _mm512_sub_ps(v, kept);
      norm = multiply_add(kept, kept, norm);
      loss = multiply_add(lost, lost, loss);
      squared = multiply_add(v, v, squared);
      // q + 128 as a byte is q with its top bit flipped
      const __m128i byte = _mm_xor_si128(_mm512_cvtepi32_epi8(q), _mm_set1_epi8(-128));
      _mm_mask_storeu_epi8(bytes + int64_t{r} * depth + d, mask, byte);
    }
    norms[r] = _mm512_reduce_add_ps(norm);
    losses[r] = _mm512_reduce_add_ps(loss);
    squared_norms[r] = _mm512_reduce_add_ps(squared);
  }
  for (int r = 0; r < kFilterRows; r += kLanes) {
    const VecF lost =
        multiply_add(square_root(load(losses + r)), splat(terms.per_loss), splat(terms.constant));
    store(errors + r, multiply_add(square_root(load(norms + r)), splat(terms.per_norm), lost));
  }
  transpose(bytes, depth, panel);
}

#if defined(__AMX_INT8__)

// Tile maxima of 32 codes from the sums of their products.
inline void reduce(const int32_t* sums, const int32_t* starts, int32_t* maxima) {
  UNROLL for (int tile = 0; tile < 4; ++tile)
    UNROLL for (int r = 0; r < kFilterRows; r += kLanes) {
      __m512i most[2];
      UNROLL for (int c = 0; c < kTile; ++c) {
        const int k = tile * kTile + c;
        const __m512i sum = _mm512_add_epi32(load_words(sums + k * kFilterRows + r),
                                             _mm512_set1_epi32(starts[k]));
        most[c % 2] = c < 2 ? sum : _mm512_max_epi32(most[c % 2], sum);
      }
      _mm512_storeu_si512(maxima + tile * kFilterRows + r, _mm512_max_epi32(most[0], most[1]));
    }
}

void scan_blocks(FilterCodes codes, int32_t begin, int32_t end, const uint8_t* panel,
                 int32_t* maxima) {
  constexpr int kStride = kFilterRows * sizeof(int32_t);
  alignas(64) int32_t ring[2][kFilterCodes * kFilterRows];
  set_tile_shapes(codes.chunk / 4);
  const int64_t depth = codes.depth;
  const int8_t* values = codes.values + begin * kTile * depth;
  const int32_t* starts = codes.starts + int64_t{begin} * kTile;
  const int blocks = (end - begin) / 4;
  for (int b = 0; b <= blocks; ++b) {
    if (b < blocks) {
      const int8_t* first = values + b * kFilterCodes * depth;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int at = 0; at < codes.depth; at += codes.chunk) {
        const uint8_t* rows = panel + at * kFilterRows;
        _tile_loadd(4, first + at, depth);
        _tile_loadd(6, rows, kStride);
        _tile_loadd(7, rows + 64, kStride);
        _tile_loadd(5, first + 16 * depth + at, depth);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
      }
      int32_t* sums = ring[b % 2];
      _tile_stored(0, sums, kStride);
      _tile_stored(1, sums + kLanes, kStride);
      _tile_stored(2, sums + 16 * kFilterRows, kStride);
      _tile_stored(3, sums + 16 * kFilterRows + kLanes, kStride);
    }
    if (b > 0)  // the block before, while this one is being multiplied
      reduce(ring[(b - 1) % 2], starts + (b - 1) * kFilterCodes,
             maxima + (b - 1) * 4 * kFilterRows);
  }
  _tile_release();
}

constexpr int kLeastBlockDepth = 16;  // below, vectors are faster

#endif

template <int kWords>
void scan_tiles(FilterCodes codes, int32_t begin, int32_t end, const uint8_t* panel,
                int32_t* maxima) {
  const int words = kWords ? kWords : codes.depth / 4;
  const int64_t depth = words * 4;
  for (int32_t t = begin; t < end; ++t) {
    const int8_t* values = codes.values + t * kTile * depth;
    __m512i sums[kVectors][kTile];
    UNROLL for (int c = 0; c < kTile; ++c)
      UNROLL for (int r = 0; r < kVectors; ++r)
          sums[r][c] = _mm512_set1_epi32(codes.starts[t * int64_t{kTile} + c]);
    UNROLL for (int w = 0; w < words; ++w) {
      __m512i x[kVectors];
      UNROLL for (int r = 0; r < kVectors; ++r)
          x[r] = load_words(panel + (w * kFilterRows + r * kLanes) * 4);
      UNROLL for (int c = 0; c < kTile; ++c) {
        int32_t four;
        memcpy(&four, values + c * depth + w * 4, sizeof four);
        const __m512i code = _mm512_set1_epi32(four);
        UNROLL for (int r = 0; r < kVectors; ++r)
            sums[r][c] = _mm512_dpbusd_epi32(sums[r][c], x[r], code);
      }
    }
    UNROLL for (int r = 0; r < kVectors; ++r) {
      UNROLL for (int width = kTile / 2; width > 0; width /= 2)
        UNROLL for (int c = 0; c < width; ++c)
            sums[r][c] = _mm512_max_epi32(sums[r][c], sums[r][c + width]);
      _mm512_storeu_si512(maxima + (t - begin) * kFilterRows + r * kLanes, sums[r][0]);
    }
  }
}

void scan(FilterCodes codes, int32_t begin, int32_t end, const uint8_t* panel, int32_t* maxima) {
#if defined(__AMX_INT8__)
  if (codes.depth >= kLeastBlockDepth) return scan_blocks(codes, begin, end, panel, maxima);
#endif
  switch (codes.depth) {
    case 4: return scan_tiles<1>(codes, begin, end, panel, maxima);
    case 8: return scan_tiles<2>(codes, begin, end, panel, maxima);
    default: return scan_tiles<0>(codes, begin, end, panel, maxima);
  }
}

// I of a row, given its bytes, and the codes of a tile.
inline __m256i integer_scores(FilterCodes codes, int32_t tile, const uint8_t* row) {
  const int64_t depth = codes.depth;
  const int8_t* values = codes.values + tile * kTile * depth;
  __m512i sums[kTile];
  UNROLL for (int c = 0; c < kTile; ++c) sums[c] = _mm512_setzero_si512();
  for (int at = 0; at < depth; at += 64) {
    const __mmask16 mask = first_lanes((codes.depth - at) / 4);
    const __m512i x = _mm512_maskz_loadu_epi32(mask, row + at);
    UNROLL for (int c = 0; c < kTile; ++c)
        sums[c] = _mm512_dpbusd_epi32(
            sums[c], x, _mm512_maskz_loadu_epi32(mask, values + c * depth + at));
  }
  __m512i fours[2];  // each quarter: sums of four codes
  UNROLL for (int i = 0; i < 2; ++i) {
    const __m512i* s = sums + 4 * i;
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]),
                                        _mm512_unpackhi_epi32(s[0], s[1]));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]),
                                        _mm512_unpackhi_epi32(s[2], s[3]));
    fours[i] =
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  }
  const __m512i halves = _mm512_add_epi32(_mm512_shuffle_i64x2(fours[0], fours[1], 0x44),
                                          _mm512_shuffle_i64x2(fours[0], fours[1], 0xee));
  // its quarters: two of the first four codes, two of the others
  const __m256i low = _mm512_castsi512_si256(halves), high = _mm512_extracti64x4_epi64(halves, 1);
  const __m256i all = _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                                       _mm256_permute2x128_si256(low, high, 0x31));
  return _mm256_add_epi32(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(
                                   codes.starts + int64_t{tile} * kTile)));
}

void best_codes(FilterCodes codes, int32_t begin, int32_t end, const int32_t* maxima,
                const uint8_t* bytes, int count, int32_t* best) {
  for (int first = 0; first < count; first += kLanes) {
    __m512i most = _mm512_set1_epi32(INT32_MIN), tile = _mm512_set1_epi32(begin);
    for (int32_t t = begin; t < end; ++t) {
      const __m512i here = load_words(maxima + (t - begin) * kFilterRows + first);
      tile = _mm512_mask_mov_epi32(tile, _mm512_cmpgt_epi32_mask(here, most),
                                   _mm512_set1_epi32(t));
      most = _mm512_max_epi32(most, here);
    }
    int32_t tiles[kLanes], highest[kLanes];
    _mm512_storeu_si512(tiles, tile);
    _mm512_storeu_si512(highest, most);
    for (int r = first; r < count && r < first + kLanes; ++r) {
      const __m256i scores =
          integer_scores(codes, tiles[r - first], bytes + int64_t{r} * codes.depth);
      const unsigned here =
          _mm256_cmpeq_epi32_mask(scores, _mm256_set1_epi32(highest[r - first]));
      best[r] = tiles[r - first] * kTile + __builtin_ctz(here);
    }
  }
}

void thresholds(const float* best, const float* margins, const float* errors, float inverse_unit,
                int32_t* thresholds) {
  for (int r = 0; r < kFilterRows; r += kLanes) {
    const VecF margin = load(margins + r);
    const VecF units = _mm512_mul_ps(_mm512_sub_ps(load(best + r), margin), splat(inverse_unit));
    // float32 has rounded three times, by less than 2^-22 of the result in all
    const VecF slack = multiply_add(_mm512_abs_ps(units), splat(0x1p-20f), load(errors + r));
    // NaN, from infinite errors, becomes the least
    const VecF least = min(max(_mm512_sub_ps(units, slack), splat(-0x1.fp30f)), splat(0x1p30f));
    const __m512i whole = _mm512_cvt_roundps_epi32(least, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const __mmask16 never = _mm512_cmp_ps_mask(margin, splat(__builtin_inff()), _CMP_EQ_OQ);
    _mm512_storeu_si512(thresholds + r,
                        _mm512_mask_mov_epi32(whole, never, _mm512_set1_epi32(INT32_MAX)));
  }
}

int collect(FilterCodes codes, int32_t begin, int32_t end, const int32_t* maxima,
            const uint8_t* bytes, const int32_t* thresholds, const int32_t* except,
            int32_t* tile_hits, CodeHit* hits) {
  int tiles = 0;
  for (int first = 0; first < kFilterRows; first += kLanes) {
    const __m512i least = load_words(thresholds + first);
    const __m512i rows = _mm512_add_epi32(_mm512_set1_epi32(first), lane_numbers());
    for (int32_t t = begin; t < end; ++t) {
      const __m512i most = load_words(maxima + (t - begin) * kFilterRows + first);
      const __mmask16 reach = _mm512_cmpge_epi32_mask(most, least);
      if (!reach) continue;
      // row and tile in one word: these are few tiles
      const __m512i packed = _mm512_or_si512(rows, _mm512_set1_epi32((t - begin) * kFilterRows));
      _mm512_storeu_si512(tile_hits + tiles, _mm512_maskz_compress_epi32(reach, packed));
      tiles += __builtin_popcount(reach);
    }
  }
  int count = 0;
  for (int h = 0; h < tiles; ++h) {  // without branches, which nobody could predict
    const int r = tile_hits[h] % kFilterRows, t = begin + tile_hits[h] / kFilterRows;
    const __m256i value = integer_scores(codes, t, bytes + int64_t{r} * codes.depth);
    const __m256i numbers =
        _mm256_add_epi32(_mm256_set1_epi32(t * kTile), _mm512_castsi512_si256(lane_numbers()));
    const __mmask8 reach =
        _mm256_cmpge_epi32_mask(value, _mm256_set1_epi32(thresholds[r])) &
        _mm256_cmpneq_epi32_mask(numbers, _mm256_set1_epi32(except[r]));
    const __m512i pairs = _mm512_or_si512(
        _mm512_slli_epi64(_mm512_cvtepu32_epi64(numbers), 32), _mm512_set1_epi64(r));
    _mm512_storeu_si512(hits + count, _mm512_maskz_compress_epi64(reach, pairs));
    count += __builtin_popcount(reach);
  }
  return count;
}

inline float dot(const float* a, const float* b, int dim) {
  VecF even = splat(0.0f), odd = splat(0.0f);
  int d = 0;
  for (; d + 2 * kLanes <= dim; d += 2 * kLanes) {
    even = multiply_add(load(a + d), load(b + d), even);
    odd = multiply_add(load(a + d + kLanes), load(b + d + kLanes), odd);
  }
  for (; d < dim; d += kLanes) {
    const __mmask16 mask = first_lanes(dim - d);
    even = multiply_add(_mm512_maskz_loadu_ps(mask, a + d), _mm512_maskz_loadu_ps(mask, b + d), even);
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
}

void rescore(CodeRows codes, PanelRows rows, const CodeHit* hits, int count, RowScores scores) {
  for (int h = 0; h < count; ++h) {
    const int r = hits[h].row;
    const int64_t k = hits[h].code, there = k < codes.size ? k : codes.size - 1;
    // NaN, from a code that is not finite, is neither the best nor the second
    const float score =
        dot(codes.values + there * codes.dim, rows.row(r), codes.dim) + codes.offsets[k];
    const float best = scores.best[r], second = scores.second[r];
    const float lower = score > best ? best : score;
    const int32_t better = -static_cast<int32_t>(score > best);
    scores.second[r] = lower > second ? lower : second;
    scores.best[r] = score > best ? score : best;
    scores.code[r] = (static_cast<int32_t>(k) & better) | (scores.code[r] & ~better);
  }
}

}  // namespace

namespace vqtok {

extern const FilterKernel VQTOK_TABLE(filter_kernel) = {
    start, round_rows, scan, best_codes, thresholds, collect, rescore,
};

}  // namespace vqtok
