// The inner loops of the 8-bit filter, for AVX-512 with VNNI or AMX. See simd.h for what may be used.
#include "cpu/filter_kernel.h"

#include <immintrin.h>

#include "cpu/simd.h"
#include "cpu/tile_scores.h"

namespace {

using vqtok::FilterCodes;
using vqtok::FilterKernel;
using vqtok::kFilterRows;
using vqtok::PanelRows;
using vqtok::RowScores;
using vqtok::TileHit;
using vqtok::TileRange;

constexpr int kVectors = kFilterRows / kLanes;
static_assert(kLanes == 16 && kVectors == 2, "two vectors of rows");

inline __m512i load_words(const void* p) { return _mm512_loadu_si512(p); }

void round_panel(const float* panel, int dim, int depth, float row_scale, uint8_t* bytes,
                 float* squared_norms, float* squared_losses) {
  const VecF scale = splat(row_scale), inverse = splat(1.0f / row_scale);
  for (int r = 0; r < kFilterRows; r += kLanes) {
    VecF norm = splat(0.0f), loss = splat(0.0f);
    for (int first = 0; first < depth; first += 4) {
      __m512i word = _mm512_set1_epi32(static_cast<int>(0x80808080u));
      for (int i = 0; i < 4 && first + i < dim; ++i) {
        const VecF v = load(panel + (first + i) * kFilterRows + r);
        const VecF bounded = max(min(_mm512_mul_ps(v, inverse), splat(127.0f)), splat(-127.0f));
        const __m512i q = _mm512_cvtps_epi32(bounded);
        const VecF kept = _mm512_mul_ps(_mm512_cvtepi32_ps(q), scale);
        const VecF lost = _mm512_sub_ps(v, kept);
        norm = multiply_add(kept, kept, norm);
        loss = multiply_add(lost, lost, loss);
        // q + 128 as a byte is q with its top bit flipped: 0x80 is there already
        const __m512i byte = _mm512_and_si512(q, _mm512_set1_epi32(0xff));
        word = _mm512_xor_si512(word, _mm512_slli_epi32(byte, 8 * i));
      }
      _mm512_storeu_si512(bytes + (first / 4 * kFilterRows + r) * 4, word);
    }
    store(squared_norms + r, norm);
    store(squared_losses + r, loss);
  }
}

#if defined(__AMX_INT8__)

struct TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// Registers: 0-3 sums [16 codes][16 rows], 4-5 codes [16][chunk bytes], 6-7 rows [chunk / 4][16][4].
void set_tile_shapes(int chunk) {
  alignas(64) TileShapes shapes = {};
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    shapes.bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? chunk : 64);
    shapes.rows[i] = static_cast<uint8_t>(i >= 6 ? chunk / 4 : 16);
  }
  _tile_loadconfig(&shapes);
}

constexpr int kBlock = 16 * 16;

// Tile maxima of 32 codes from their sums: [2][2][16 codes][16 rows] by 16 codes and 16 rows.
inline void reduce(const int32_t* sums, const int32_t* starts, int32_t* maxima) {
  UNROLL for (int tile = 0; tile < 4; ++tile)
    UNROLL for (int r = 0; r < kVectors; ++r) {
      const int32_t* of_codes = sums + (tile / 2 * 2 + r) * kBlock + tile % 2 * kTile * kLanes;
      __m512i most[2];
      UNROLL for (int c = 0; c < kTile; ++c) {
        const __m512i sum = _mm512_add_epi32(load_words(of_codes + c * kLanes),
                                             _mm512_set1_epi32(starts[tile * kTile + c]));
        most[c % 2] = c < 2 ? sum : _mm512_max_epi32(most[c % 2], sum);
      }
      _mm512_storeu_si512(maxima + tile * kFilterRows + r * kLanes,
                          _mm512_max_epi32(most[0], most[1]));
    }
}

void scan(FilterCodes codes, int32_t begin, int32_t end, const uint8_t* panel, int32_t* maxima) {
  alignas(64) int32_t sums[2][4 * kBlock];  // one being written, one being read
  set_tile_shapes(codes.chunk);
  const int64_t depth = codes.depth;
  const int8_t* values = codes.values + begin * kTile * depth;
  const int32_t* starts = codes.starts + int64_t{begin} * kTile;
  const int groups = (end - begin) / 4;
  for (int g = 0; g < groups; ++g) {
    const int8_t* first = values + g * 32 * depth;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int at = 0; at < codes.depth; at += codes.chunk) {
      const uint8_t* rows = panel + at * kFilterRows;
      _tile_loadd(4, first + at, depth);
      _tile_loadd(6, rows, kFilterRows * 4);
      _tile_loadd(7, rows + 64, kFilterRows * 4);
      _tile_loadd(5, first + 16 * depth + at, depth);
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(3, 5, 7);
    }
    int32_t* sum = sums[g % 2];
    _tile_stored(0, sum, 64);
    _tile_stored(1, sum + kBlock, 64);
    _tile_stored(2, sum + 2 * kBlock, 64);
    _tile_stored(3, sum + 3 * kBlock, 64);
    if (g > 0)
      reduce(sums[(g - 1) % 2], starts + (g - 1) * 32, maxima + (g - 1) * 4 * kFilterRows);
  }
  if (groups > 0)
    reduce(sums[(groups - 1) % 2], starts + (groups - 1) * 32,
           maxima + (groups - 1) * 4 * kFilterRows);
  _tile_release();
}

#else

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
  switch (codes.depth) {
    case 4: return scan_tiles<1>(codes, begin, end, panel, maxima);
    case 8: return scan_tiles<2>(codes, begin, end, panel, maxima);
    default: return scan_tiles<0>(codes, begin, end, panel, maxima);
  }
}

#endif

void best_tiles(const int32_t* maxima, int32_t begin, int32_t end, int32_t* tiles) {
  for (int r = 0; r < kFilterRows; r += kLanes) {
    __m512i best = _mm512_set1_epi32(INT32_MIN), tile = _mm512_set1_epi32(begin);
    for (int32_t t = begin; t < end; ++t) {
      const __m512i most = load_words(maxima + (t - begin) * kFilterRows + r);
      tile = _mm512_mask_mov_epi32(tile, _mm512_cmpgt_epi32_mask(most, best),
                                   _mm512_set1_epi32(t));
      best = _mm512_max_epi32(best, most);
    }
    _mm512_storeu_si512(tiles + r, tile);
  }
}

int collect(const int32_t* maxima, int32_t begin, int32_t end, const int32_t* thresholds,
            const int32_t* except, TileHit* hits) {
  const __m512i low = load_words(thresholds), high = load_words(thresholds + kLanes);
  int found = 0;
  for (int32_t t = begin; t < end; ++t) {
    const int32_t* of_rows = maxima + (t - begin) * kFilterRows;
    uint32_t mask = _mm512_cmpge_epi32_mask(load_words(of_rows), low) |
                    static_cast<uint32_t>(_mm512_cmpge_epi32_mask(load_words(of_rows + kLanes), high))
                        << kLanes;
    for (; mask; mask &= mask - 1) {
      const int r = __builtin_ctz(mask);
      hits[found] = {r, t};
      found += t != except[r];
    }
  }
  return found;
}

void rescore(TileRange tiles, PanelRows rows, const TileHit* hits, int count, const float* margins,
             RowScores scores) {
  const int64_t step = int64_t{tiles.dim} * kTile;
  for (int h = 0; h < count; ++h) {
    const int r = hits[h].row;
    const int64_t tile = hits[h].tile;
    const TileScores found = score_tile(tiles.values + tile * step, tiles.offsets + tile * kTile,
                                        rows.row(r), tiles.dim);
    const float most = largest(found), best = scores.best[r];
    const uint32_t rivals = codes_at_least(found, most - margins[r]);
    const float lower = most > best && (rivals & (rivals - 1)) == 0 ? best : most;
    scores.second[r] = lower > scores.second[r] ? lower : scores.second[r];
    scores.code[r] =
        most > best ? static_cast<int32_t>(tile * kTile) + __builtin_ctz(rivals | 256u)
                    : scores.code[r];
    scores.best[r] = most > best ? most : best;
  }
}

}  // namespace

namespace vqtok {

extern const FilterKernel VQTOK_TABLE(filter_kernel) = {
    round_panel, scan, best_tiles, collect, rescore,
};

}  // namespace vqtok
