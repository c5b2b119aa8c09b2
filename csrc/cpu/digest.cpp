#include "cpu/digest.h"

#include <string.h>

#include <algorithm>
#include <random>

namespace vqtok {
namespace {

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

struct Key {
  Key() {
    std::random_device device;
    for (uint64_t& word : words) word = uint64_t{device()} << 32 | device();
    for (uint64_t& point : points) point = (uint64_t{device()} << 32 | device()) >> 3;
  }
  alignas(64) uint64_t words[kKeyWords];
  uint64_t points[kDigests];  // at which the polynomials are evaluated
};

// sum * point + term modulo 2^61 - 1, of numbers below 2^61.
uint64_t horner(uint64_t sum, uint64_t point, uint64_t term) {
  const unsigned __int128 product = static_cast<unsigned __int128>(sum) * point + term;
  const uint64_t folded =
      static_cast<uint64_t>(product & kPrime) + static_cast<uint64_t>(product >> 61);
  return folded >= kPrime ? folded - kPrime : folded;
}

}  // namespace

// Two blocks that differ have the same NH with a probability of 2^-32. The NH of all blocks, as
// numbers of 32 bits, are the coefficients of a polynomial, of which two agree at a random point
// with a probability of their number divided by 2^61.
Digest digest(const void* bytes, int64_t count, const DigestKernel& kernel) {
  static const Key key;
  constexpr int64_t kChunkBytes = kChunk * 8, kBlockBytes = kBlockChunks * kChunkBytes;
  Digest sums{};
  for (int64_t at = 0; at < count; at += kBlockBytes) {
    const int64_t here = std::min(count - at, kBlockBytes);
    const char* from = static_cast<const char*>(bytes) + at;
    char last[kBlockBytes];
    uint64_t block[kDigests];
    const int64_t chunks = (here + kChunkBytes - 1) / kChunkBytes;
    if (here % kChunkBytes != 0) {  // filled up with zeros
      memcpy(last, from, static_cast<size_t>(here));
      memset(last + here, 0, static_cast<size_t>(chunks * kChunkBytes - here));
      from = last;
    }
    kernel.sum_block(from, chunks, key.words, block);
    for (int i = 0; i < kDigests; ++i) {
      sums[i] = horner(sums[i], key.points[i], block[i] >> 32);
      sums[i] = horner(sums[i], key.points[i], block[i] & 0xffffffff);
    }
  }
  return sums;
}

}  // namespace vqtok
