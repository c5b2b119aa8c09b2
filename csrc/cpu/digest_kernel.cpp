// The inner loop of digests. Compiled once per instruction set; see simd.h for what may be used.
#include "cpu/digest_kernel.h"

#include "cpu/simd.h"

namespace {

using vqtok::kChunk;
using vqtok::kDigests;

#if defined(__AVX512F__)
constexpr int kWords = 8;
#elif defined(__AVX2__)
constexpr int kWords = 4;
#else
constexpr int kWords = 2;
#endif
typedef uint64_t Words __attribute__((vector_size(kWords * 8)));
typedef uint32_t Halves __attribute__((vector_size(kWords * 8)));

inline Words load_words(const void* p) {
  Words v;
  memcpy(&v, p, sizeof v);
  return v;
}

// Of each word the product of its halves.
inline Words halves_multiplied(Words w) {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_mul_epu32(reinterpret_cast<__m512i>(w),
                                                  reinterpret_cast<__m512i>(w >> 32)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_mul_epu32(reinterpret_cast<__m256i>(w),
                                                  reinterpret_cast<__m256i>(w >> 32)));
#else
  return (w & 0xffffffff) * (w >> 32);
#endif
}

void sum_block(const char* words, int64_t chunks, const uint64_t* key,
               uint64_t sums[kDigests]) {
  constexpr int kParts = kChunk / kWords;
  Words totals[kDigests][kParts] = {};
  for (int64_t c = 0; c < chunks; ++c) {
    UNROLL for (int part = 0; part < kParts; ++part) {
      const int64_t at = c * kChunk + part * kWords;
      const Halves halves = reinterpret_cast<Halves>(load_words(words + at * 8));
      UNROLL for (int i = 0; i < kDigests; ++i) {
        const Halves keyed = halves + reinterpret_cast<Halves>(load_words(key + at + i * kChunk));
        totals[i][part] += halves_multiplied(reinterpret_cast<Words>(keyed));
      }
    }
  }
  for (int i = 0; i < kDigests; ++i) {
    sums[i] = 0;
    for (const Words& total : totals[i])
      for (int w = 0; w < kWords; ++w) sums[i] += total[w];
  }
}

}  // namespace

namespace vqtok {

extern const DigestKernel VQTOK_TABLE(digest_kernel) = {sum_block};

}  // namespace vqtok
