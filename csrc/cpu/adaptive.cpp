#include "cpu/adaptive.h"

#include <string.h>

#include "cpu/counters.h"
#include "cpu/range_coder.h"

namespace vqtok {
namespace {

constexpr int kMixRate = 5;  // of the weights, in 2^-16
constexpr int kSets = 1024;  // of weights

struct Tables {
  uint8_t bucket[kMostSeen + 1];       // of the bits that a counter has seen
  int32_t weights[kSets][kMostModels];  // at the start, by the buckets of the models

  Tables() {
    for (int n = 0; n <= kMostSeen; ++n)
      bucket[n] = static_cast<uint8_t>(n < 2 ? n : n < 4 ? 2 : 3);
    constexpr int32_t kTrust[4] = {0, 26214, 39322, 52429}, kMost = 72090;
    for (int key = 0; key < kSets; ++key) {
      int32_t total = 0;
      for (int m = 0; m < kMostModels; ++m) total += kTrust[key >> 2 * m & 3];
      for (int m = 0; m < kMostModels; ++m) {
        const int64_t trust = kTrust[key >> 2 * m & 3];
        weights[key][m] = static_cast<int32_t>(total > kMost ? trust * kMost / total : trust);
      }
    }
  }
};
const Tables tables;

template <class Coder, int kModels> class Mixer {
 public:
  // For `count` codes, each below `size`.
  Mixer(Coder& coder, int64_t size, int64_t count)
      : coder_(coder), size_(size), bits_(bits_of(size)), counters_(count, bits_) {
    memcpy(weights_, tables.weights, sizeof weights_);
  }

  // Codes one code.
  uint32_t code(const Contexts& contexts, uint32_t code) {
    counters_.begin(contexts);
    for (int rest = bits_ - 1; rest >= 0; --rest) {
      counters_.next();
      const uint64_t first_of_one =
          ((counters_.node() * 2 + 1) << rest) - (uint64_t{1} << bits_);
      if (first_of_one < static_cast<uint64_t>(size_))
        bit(code >> rest & 1);
      else
        counters_.pass(false);
    }
    return static_cast<uint32_t>(counters_.node() - (uint64_t{1} << bits_));
  }

 private:
  static int bits_of(int64_t size) {
    int bits = 1;
    while (bits < 20 && int64_t{1} << bits < size) ++bits;
    return bits;
  }

  void bit(bool value) {
    int32_t inputs[kModels];
    int key = 0;
    for (int m = 0; m < kModels; ++m) {
      key |= tables.bucket[counters_.seen(m)] << 2 * m;
      inputs[m] = counters_.input(m);
    }
    int32_t* weights = weights_[key];
    int64_t sum = 0;
    for (int m = 0; m < kModels; ++m) sum += int64_t{weights[m]} * inputs[m];
    const int32_t one = squash(sum >> 16);
    value = coder_.bit(static_cast<uint32_t>(one), value);
    const int32_t error = (value ? 65536 : 0) - one;
    for (int m = 0; m < kModels; ++m)
      weights[m] = limited(weights[m] + ((inputs[m] * kMixRate * error) >> 16));
    counters_.learn(value);
  }

  Coder& coder_;
  const int64_t size_;
  const int bits_;
  Counters<kModels> counters_;
  int32_t weights_[kSets][kMostModels];
};

template <int kModels, class Coder, class Visit>
void code_plane(Coder& coder, const Planes& planes, int64_t size, Visit&& visit) {
  Mixer<Coder, kModels> mixer(coder, size, planes.size());
  for (int64_t row = 0, at = 0; row < planes.rows; ++row)
    for (int64_t column = 0; column < planes.columns; ++column, ++at)
      visit(at, mixer, Contexts(planes, row, column));
}

template <class Coder, class Visit>
void code_plane(Coder& coder, const Planes& planes, int64_t size, Visit&& visit) {
  if (models_of(planes.q) == 4) return code_plane<4>(coder, planes, size, visit);
  return code_plane<5>(coder, planes, size, visit);
}

}  // namespace

std::vector<uint8_t> adaptive_encode(Planes planes, int64_t codebook_size) {
  RangeEncoder coder;
  const uint32_t* codes = planes.plane(planes.q);
  code_plane(coder, planes, codebook_size, [&](int64_t at, auto& mixer, const Contexts& contexts) {
    mixer.code(contexts, codes[at]);
  });
  return coder.finish();
}

bool adaptive_decode(Planes planes, int64_t codebook_size, const uint8_t* bytes, int64_t count,
                     uint32_t* codes) {
  RangeDecoder coder(bytes, count);
  code_plane(coder, planes, codebook_size, [&](int64_t at, auto& mixer, const Contexts& contexts) {
    codes[at] = mixer.code(contexts, 0);
  });
  return !coder.has_rest();
}

}  // namespace vqtok
