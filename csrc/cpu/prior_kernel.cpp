// The inner loops of the integer prior. Compiled once per instruction set; see simd.h for what may
// be used. All sums are of integers that cannot overflow, so their order does not matter.
#include "cpu/prior_kernel.h"

#include "cpu/simd.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace {

using vqtok::kInBlock;
using vqtok::kMostSteps;
using vqtok::kOutBlock;
using vqtok::kWeightBits;

constexpr int kVectors = kOutBlock / kLanes;

inline VecI splat_bytes(const uint8_t* four) {
  int32_t word;
  memcpy(&word, four, sizeof word);
  return splat(word);
}

inline VecI load_bytes(const int8_t* p) { return load(reinterpret_cast<const int32_t*>(p)); }

// sum + the products of four bytes of x (0..127) and four of w, in each lane. Two products of 127
// by 128 fit into the 16 bits where some instructions saturate.
inline VecI add_products(VecI sum, VecI x, VecI w) {
#if defined(__AVX512VNNI__)
  return _mm512_dpbusd_epi32(sum, x, w);
#elif defined(__AVX512F__)
  const VecI pairs = _mm512_maddubs_epi16(x, w);
  return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#elif defined(__AVX2__)
  const VecI pairs = _mm256_maddubs_epi16(x, w);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#elif defined(__SSE2__)
  const __m128i xs = reinterpret_cast<__m128i>(x), ws = reinterpret_cast<__m128i>(w);
  const __m128i even = _mm_madd_epi16(_mm_and_si128(xs, _mm_set1_epi16(0xff)),
                                      _mm_srai_epi16(_mm_slli_epi16(ws, 8), 8));
  const __m128i odd = _mm_madd_epi16(_mm_srli_epi16(xs, 8), _mm_srai_epi16(ws, 8));
  return sum + reinterpret_cast<VecI>(_mm_add_epi32(even, odd));
#elif defined(__aarch64__)
  const int8x16_t xs = vreinterpretq_s8_s32(reinterpret_cast<int32x4_t>(x));
  const int8x16_t ws = vreinterpretq_s8_s32(reinterpret_cast<int32x4_t>(w));
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(xs), vget_low_s8(ws)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(xs, ws));
  return sum + reinterpret_cast<VecI>(vpaddq_s32(low, high));
#else
  int8_t xs[sizeof(VecI)], ws[sizeof(VecI)];
  memcpy(xs, &x, sizeof xs);
  memcpy(ws, &w, sizeof ws);
  for (int i = 0; i < static_cast<int>(sizeof xs); ++i) sum[i / 4] += xs[i] * ws[i];
  return sum;
#endif
}

// sum + the products of two 16-bit numbers of x and two of w, in each lane.
inline VecI add_wide_products(VecI sum, VecI x, VecI w) {
#if defined(__AVX512VNNI__)
  return _mm512_dpwssd_epi32(sum, x, w);
#elif defined(__AVX512F__)
  return _mm512_add_epi32(sum, _mm512_madd_epi16(x, w));
#elif defined(__AVX2__)
  return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
#elif defined(__SSE2__)
  const __m128i xs = reinterpret_cast<__m128i>(x), ws = reinterpret_cast<__m128i>(w);
  return sum + reinterpret_cast<VecI>(_mm_madd_epi16(xs, ws));
#elif defined(__aarch64__)
  const int16x8_t xs = vreinterpretq_s16_s32(reinterpret_cast<int32x4_t>(x));
  const int16x8_t ws = vreinterpretq_s16_s32(reinterpret_cast<int32x4_t>(w));
  const int32x4_t low = vmull_s16(vget_low_s16(xs), vget_low_s16(ws));
  return sum + reinterpret_cast<VecI>(vpaddq_s32(low, vmull_high_s16(xs, ws)));
#else
  int16_t xs[sizeof(VecI) / 2], ws[sizeof(VecI) / 2];
  memcpy(xs, &x, sizeof xs);
  memcpy(ws, &w, sizeof ws);
  for (int i = 0; i < static_cast<int>(sizeof xs / 2); ++i) sum[i / 2] += xs[i] * ws[i];
  return sum;
#endif
}

using AddProducts = VecI (*)(VecI, VecI, VecI);

// kRows rows and kBlocks blocks of outputs, all sums in registers. `in` counts bytes.
template <AddProducts kAdd, int kRows, int kBlocks>
void dense_tile(const uint8_t* x, int64_t in, const int8_t* weights, const int32_t* bias,
                int64_t out, int32_t* y) {
  VecI sums[kRows][kBlocks * kVectors];
  UNROLL for (int v = 0; v < kBlocks * kVectors; ++v) {
    const VecI start = load(bias + v * kLanes);
    UNROLL for (int r = 0; r < kRows; ++r) sums[r][v] = start;
  }
  const int64_t stride = in * kOutBlock;
  for (int64_t i = 0; i < in; i += kInBlock) {
    VecI inputs[kRows];
    UNROLL for (int r = 0; r < kRows; ++r) inputs[r] = splat_bytes(x + r * in + i);
    UNROLL for (int b = 0; b < kBlocks; ++b)
      UNROLL for (int v = 0; v < kVectors; ++v) {
        const VecI w = load_bytes(weights + b * stride + i * kOutBlock + v * kLanes * kInBlock);
        UNROLL for (int r = 0; r < kRows; ++r)
          sums[r][b * kVectors + v] = kAdd(sums[r][b * kVectors + v], inputs[r], w);
      }
  }
  UNROLL for (int r = 0; r < kRows; ++r)
    UNROLL for (int v = 0; v < kBlocks * kVectors; ++v)
      store(y + r * out + v * kLanes, sums[r][v]);
}

template <AddProducts kAdd, int kRows, int kBlocks>
void dense_rows(const uint8_t* x, int64_t in, const int8_t* weights, const int32_t* bias,
                int64_t out, int32_t* y) {
  int64_t o = 0;
  for (; o + kBlocks * kOutBlock <= out; o += kBlocks * kOutBlock)
    dense_tile<kAdd, kRows, kBlocks>(x, in, weights + o * in, bias + o, out, y + o);
  for (; o < out; o += kOutBlock)
    dense_tile<kAdd, kRows, 1>(x, in, weights + o * in, bias + o, out, y + o);
}

#if defined(__AVX512F__)
constexpr int kTileRows = 8, kTileBlocks = 2, kRowBlocks = 8;
#elif defined(__AVX2__)
constexpr int kTileRows = 4, kTileBlocks = 1, kRowBlocks = 4;
#else
constexpr int kTileRows = 2, kTileBlocks = 1, kRowBlocks = 2;
#endif

template <AddProducts kAdd>
void dense_bytes(const uint8_t* x, int64_t rows, int64_t in, const int8_t* weights,
                 const int32_t* bias, int64_t out, int32_t* y) {
  int64_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows)
    dense_rows<kAdd, kTileRows, kTileBlocks>(x + r * in, in, weights, bias, out, y + r * out);
  for (; r + 2 <= rows; r += 2)
    dense_rows<kAdd, 2, kTileBlocks>(x + r * in, in, weights, bias, out, y + r * out);
  if (r < rows) dense_rows<kAdd, 1, kRowBlocks>(x + r * in, in, weights, bias, out, y + r * out);
}

void dense(const uint8_t* x, int64_t rows, int64_t in, const int8_t* weights, const int32_t* bias,
           int64_t out, int32_t* y) {
  dense_bytes<add_products>(x, rows, in, weights, bias, out, y);
}

void dense_wide(const int16_t* x, int64_t rows, int64_t in, const int16_t* weights,
                const int32_t* bias, int64_t out, int32_t* y) {
  dense_bytes<add_wide_products>(reinterpret_cast<const uint8_t*>(x), rows, in * 2,
                                 reinterpret_cast<const int8_t*>(weights), bias, out, y);
}

void activate(const int32_t* y, int64_t count, int shift, uint8_t* x) {
  const int32_t half = 1 << (shift - 1);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t value = (y[i] + half) >> shift;
    x[i] = static_cast<uint8_t>(value < 0 ? 0 : value > 127 ? 127 : value);
  }
}

// 2^(19 - i / 32), rounded down.
alignas(64) constexpr uint32_t kPowers[32] = {
    524288, 513053, 502059, 491301, 480774, 470472, 460390, 450525, 440871, 431424, 422180,
    413133, 404281, 395618, 387141, 378845, 370727, 362783, 355009, 347402, 339958, 332674,
    325545, 318569, 311743, 305063, 298526, 292129, 285870, 279744, 273750, 267884};

#if defined(__AVX512F__)

uint32_t weigh(const int32_t* y, int64_t count, int shift, uint32_t* weights) {
  VecI highest = splat(INT32_MIN);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) highest = _mm512_max_epi32(highest, load(y + i));
  const __mmask16 rest = static_cast<__mmask16>((1 << (count - i)) - 1);
  highest = _mm512_mask_max_epi32(highest, rest, highest, load(y + i - (rest ? 0 : kLanes)));
  const VecI most = splat(_mm512_reduce_max_epi32(highest)), one = splat(1);
  const VecI low = load(reinterpret_cast<const int32_t*>(kPowers));
  const VecI high = load(reinterpret_cast<const int32_t*>(kPowers + kLanes));
  const __m128i by = _mm_cvtsi32_si128(shift);
  VecI sum = splat(0);
  for (i = 0; i < count; i += kLanes) {
    const VecI below = _mm512_srl_epi32(_mm512_sub_epi32(most, load(y + i)), by);
    const VecI power = _mm512_permutex2var_epi32(low, below, high);  // by the lowest five bits
    const VecI weight = _mm512_add_epi32(
        _mm512_srlv_epi32(power, _mm512_srli_epi32(below, 5)), one);
    const __mmask16 mask =
        static_cast<__mmask16>(count - i >= kLanes ? 0xffff : (1 << (count - i)) - 1);
    const VecI kept = _mm512_maskz_mov_epi32(mask, weight);
    store(reinterpret_cast<int32_t*>(weights + i), kept);
    sum = _mm512_add_epi32(sum, kept);
  }
  // the sum of 4096 of the largest weights exceeds 2^31, so it is none of signed numbers
  alignas(64) uint32_t sums[kLanes];
  store(reinterpret_cast<int32_t*>(sums), sum);
  uint32_t total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += sums[lane];
  return total;
}

#else

uint32_t weigh(const int32_t* y, int64_t count, int shift, uint32_t* weights) {
  int32_t most = y[0];
  for (int64_t i = 1; i < count; ++i) most = y[i] > most ? y[i] : most;
  uint32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t below = (static_cast<uint32_t>(most) - static_cast<uint32_t>(y[i])) >> shift;
    const uint32_t octaves = below >> 5;
    weights[i] = 1 + (octaves > kWeightBits ? 0 : kPowers[below & 31] >> octaves);
    sum += weights[i];
  }
  for (int64_t i = count; i % kOutBlock; ++i) weights[i] = 0;
  return sum;
}

#endif

uint32_t sum_before(const uint32_t* weights, int64_t outcome) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < outcome; ++i) sum += weights[i];
  return sum;
}

int64_t find(const uint32_t* weights, uint32_t position, uint32_t* before) {
  uint32_t sum = 0;
  int64_t at = 0;
  for (;; at += kOutBlock) {
    uint32_t block = 0;
    for (int i = 0; i < kOutBlock; ++i) block += weights[at + i];
    if (position - sum < block) break;
    sum += block;
  }
  for (; position - sum >= weights[at]; ++at) sum += weights[at];
  *before = sum;
  return at;
}

int32_t lowest(const int32_t* numbers, int64_t count) {
  int32_t low = numbers[0];
  for (int64_t i = 1; i < count; ++i) low = numbers[i] < low ? numbers[i] : low;
  return low;
}

void cheapest(const int32_t* distances, const int32_t* y, int64_t count, int shift, int32_t weight,
              int weight_shift, int keep, int32_t* sums, int32_t* outcomes) {
  int32_t most = y[0];
  for (int64_t i = 1; i < count; ++i) most = y[i] > most ? y[i] : most;
  for (int k = 0; k < keep; ++k) {
    sums[k] = INT32_MAX;
    outcomes[k] = 0;
  }
  int32_t block[kOutBlock];
  for (int64_t first = 0; first < count; first += kOutBlock) {
    for (int i = 0; i < kOutBlock; ++i) {
      uint32_t steps =
          (static_cast<uint32_t>(most) - static_cast<uint32_t>(y[first + i])) >> shift;
      steps = steps < kMostSteps ? steps : kMostSteps;
      const int32_t cost = weight * static_cast<int32_t>(steps) >> weight_shift;
      // What fills up the last block may exceed 31 bits, and is left out below.
      block[i] = static_cast<int32_t>(static_cast<uint32_t>(distances[first + i]) +
                                      static_cast<uint32_t>(cost));
    }
    const int64_t here = count - first < kOutBlock ? count - first : kOutBlock;
    for (int64_t i = here; i < kOutBlock; ++i) block[i] = INT32_MAX;
    if (lowest(block, kOutBlock) >= sums[keep - 1]) continue;
    for (int i = 0; i < kOutBlock; ++i) {
      int at = keep;
      for (; at > 0 && block[i] < sums[at - 1]; --at) {
        if (at == keep) continue;
        sums[at] = sums[at - 1];
        outcomes[at] = outcomes[at - 1];
      }
      if (at == keep) continue;
      sums[at] = block[i];
      outcomes[at] = static_cast<int32_t>(first + i);
    }
  }
}

}  // namespace

namespace vqtok {

extern const PriorKernel VQTOK_TABLE(prior_kernel) = {
    dense, activate, weigh, sum_before, find, dense_wide, cheapest, lowest};

}  // namespace vqtok
