// What digest_kernel.cpp provides once per instruction set: the inner loop of digests of codebooks.
#pragma once
#include <stdint.h>

namespace vqtok {

constexpr int kDigests = 2;            // computed side by side, each with its own key
constexpr int kChunk = 8;              // words of 64 bits
constexpr int64_t kBlockChunks = 64;   // chunks of a block at most
constexpr int64_t kKeyWords = (kBlockChunks + kDigests - 1) * kChunk;

struct DigestKernel {
  // The NH hash of UMAC (Black et al., 1999) of one block: of every word its low half plus that of
  // the key's word, times the same of the high halves, summed up modulo 2^64. Digest i takes the key
  // from word i * kChunk on.
  void (*sum_block)(const char* words, int64_t chunks, const uint64_t* key,
                    uint64_t sums[kDigests]);
};

extern const DigestKernel digest_kernel_baseline;
extern const DigestKernel digest_kernel_avx2;
extern const DigestKernel digest_kernel_avx512;
extern const DigestKernel digest_kernel_avx512vnni;
extern const DigestKernel digest_kernel_amx;

}  // namespace vqtok
