// Digests of codebooks, on every instruction set.
#include "cpu/digest.h"

#include <set>

#include "tests/check.h"
#include "tests/usable_isas.h"

namespace vqtok {
namespace {

// The sums of a block by their definition, on every instruction set.
void test_sums_of_blocks() {
  std::mt19937_64 random(3);
  uint64_t words[kBlockChunks * kChunk], key[kKeyWords];
  for (uint64_t& word : words) word = random();
  for (uint64_t& word : key) word = random();
  for (int64_t chunks : {int64_t{1}, int64_t{7}, kBlockChunks}) {
    uint64_t wanted[kDigests] = {}, found[kDigests];
    for (int i = 0; i < kDigests; ++i)
      for (int64_t w = 0; w < chunks * kChunk; ++w) {
        const uint64_t k = key[i * kChunk + w];
        const uint32_t low = static_cast<uint32_t>(words[w]) + static_cast<uint32_t>(k);
        const uint32_t high =
            static_cast<uint32_t>(words[w] >> 32) + static_cast<uint32_t>(k >> 32);
        wanted[i] += uint64_t{low} * high;
      }
    for (const Isa* isa : usable_isas()) {
      isa->nearest->digest->sum_block(reinterpret_cast<const char*>(words), chunks, key, found);
      for (int i = 0; i < kDigests; ++i) CHECK(found[i] == wanted[i], "%s: sum %d", isa->name, i);
    }
  }
}

// Any bit matters, and where it stands.
void test_digests() {
  const DigestKernel& kernel = *choose_isa("baseline").nearest->digest;
  for (int64_t count : {1, 63, 64, 4096, 4097, 9000}) {
    std::vector<char> bytes(static_cast<size_t>(count + 1), 7);
    std::set<Digest> seen{digest(bytes.data(), count, kernel)};
    for (int64_t i = 0; i < count; i += count < 100 ? 1 : 37) {
      bytes[i] ^= static_cast<char>(1 << i % 8);
      seen.insert(digest(bytes.data(), count, kernel));
      bytes[i] ^= static_cast<char>(1 << i % 8);
    }
    const size_t tried = static_cast<size_t>(count < 100 ? count : (count + 36) / 37) + 1;
    CHECK(seen.size() == tried, "%zu digests of %zu", seen.size(), tried);
    const Digest aligned = digest(bytes.data(), count, kernel);
    for (const Isa* isa : usable_isas())
      CHECK(digest(bytes.data() + 1, count, *isa->nearest->digest) == aligned, "%s", isa->name);
  }
}

}  // namespace
}  // namespace vqtok

int main() {
  vqtok::test_sums_of_blocks();
  vqtok::test_digests();
}
