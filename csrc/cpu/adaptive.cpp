#include "cpu/adaptive.h"

#include <string.h>

#include <algorithm>
#include <array>

#include "cpu/range_coder.h"

namespace vqtok {
namespace {

constexpr int kMostModels = 5;
constexpr int kLevels = 3;                   // of a group of counters
constexpr uint32_t kMostGroups = 1u << 18;   // that one model keeps
constexpr uint16_t kMostSeen = 60;
constexpr int kReach = 2047;                 // of the logistic domain, in 1/256
constexpr int kMixRate = 5;                  // of the weights, in 2^-16

// 65536 / (1 + exp(-x / 256)) for x = -2048, -1920, ..., 2048, at most 65535.
constexpr int32_t kSquash[33] = {
    22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

inline int32_t squash(int32_t x) {
  const int32_t at = x + 2048, low = kSquash[at >> 7];
  return low + (((kSquash[(at >> 7) + 1] - low) * (at & 127)) >> 7);
}

struct Tables {
  int16_t stretch[4096];               // of a probability in 2^-12
  uint16_t rate[kMostSeen + 1];        // of a counter that has seen so many bits
  uint8_t bucket[kMostSeen + 1];
  int32_t weights[1024][kMostModels];  // at the start, by the buckets of the models

  Tables() {
    int32_t x = -kReach;
    for (int p = 0; p < 4096; ++p) {
      while (x < kReach && squash(x) < p * 16 + 8) ++x;
      stretch[p] = static_cast<int16_t>(x);
    }
    for (int n = 0; n <= kMostSeen; ++n) {
      rate[n] = static_cast<uint16_t>(131072 / (2 * n + 3));
      bucket[n] = static_cast<uint8_t>(n < 2 ? n : n < 4 ? 2 : 3);
    }
    constexpr int32_t kTrust[4] = {0, 26214, 39322, 52429}, kMost = 72090;
    for (int key = 0; key < 1024; ++key) {
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

struct Counter {
  uint16_t one = 32768;  // probability of 1, in 2^-16
  uint16_t seen = 0;
};

struct Group {
  Counter counters[8];  // of the nodes 1..7 of three levels of the tree
};

// From (context, first node) to a group, exactly; grows with what it holds.
class Groups {
 public:
  Groups() : slots_(1 << 10, 0), groups_(1) {}

  // The group of a key, made if it is new; of a full map a fresh one that nobody will find again.
  Group* find(uint64_t key) {
    const uint64_t mask = slots_.size() - 1;
    const uint64_t tag = (key + 1) << 18;  // the key has at most 42 bits
    uint64_t at = (key * 0x9e3779b97f4a7c15u) >> 32 & mask;
    for (; slots_[at]; at = (at + 1) & mask)
      if ((slots_[at] ^ tag) < kMostGroups) return &groups_[slots_[at] & (kMostGroups - 1)];
    if (groups_.size() == kMostGroups) {
      groups_[0] = Group();
      return &groups_[0];
    }
    slots_[at] = tag | groups_.size();
    groups_.emplace_back();
    if (groups_.size() * 2 > slots_.size()) grow();
    return &groups_.back();
  }

 private:
  void grow() {
    std::vector<uint64_t> old(slots_.size() * 2, 0);
    old.swap(slots_);
    const uint64_t mask = slots_.size() - 1;
    for (uint64_t slot : old) {
      if (!slot) continue;
      uint64_t at = (((slot >> 18) - 1) * 0x9e3779b97f4a7c15u) >> 32 & mask;
      while (slots_[at]) at = (at + 1) & mask;
      slots_[at] = slot;
    }
  }

  std::vector<uint64_t> slots_;
  std::vector<Group> groups_;
};

template <class Coder, int kModels> class Mixer {
 public:
  Mixer(Coder& coder, int64_t size) : coder_(coder), size_(size) {
    while (bits_ < 20 && int64_t{1} << bits_ < size) ++bits_;
    memcpy(weights_, tables.weights, sizeof weights_);
  }

  // Codes one code under the contexts of the models.
  uint32_t code(const uint64_t* contexts, uint32_t code) {
    Group* groups[kModels];
    uint64_t node = 1, inside = 1;
    for (int level = 0; level < bits_; ++level, node = node * 2 + (inside & 1)) {
      if (level % kLevels == 0) {
        inside = 1;
        for (int m = 0; m < kModels; ++m)
          groups[m] = groups_[m].find(contexts[m] << 20 | node);
      }
      const int rest = bits_ - 1 - level;
      const uint64_t first_of_one = ((node * 2 + 1) << rest) - (uint64_t{1} << bits_);
      bool bit = false;
      if (first_of_one < static_cast<uint64_t>(size_)) {
        Counter* counters[kModels];
        for (int m = 0; m < kModels; ++m) counters[m] = &groups[m]->counters[inside];
        bit = this->bit(counters, code >> rest & 1);
      }
      inside = inside * 2 + bit;
    }
    return static_cast<uint32_t>(node - (uint64_t{1} << bits_));
  }

 private:
  bool bit(Counter* const* counters, bool value) {
    int32_t inputs[kModels];
    int key = 0;
    for (int m = 0; m < kModels; ++m) {
      key |= tables.bucket[counters[m]->seen] << 2 * m;
      inputs[m] = counters[m]->seen ? tables.stretch[counters[m]->one >> 4] : 0;
    }
    int32_t* weights = weights_[key];
    int64_t sum = 0;
    for (int m = 0; m < kModels; ++m) sum += int64_t{weights[m]} * inputs[m];
    const int32_t mixed =
        static_cast<int32_t>(std::min<int64_t>(std::max<int64_t>(sum >> 16, -kReach), kReach));
    const int32_t one = squash(mixed);
    value = coder_.bit(static_cast<uint32_t>(one), value);
    const int32_t error = (value ? 65536 : 0) - one;
    for (int m = 0; m < kModels; ++m) {
      const int32_t weight = weights[m] + ((inputs[m] * kMixRate * error) >> 16);
      weights[m] = std::min(std::max(weight, -kMostWeight), kMostWeight);
      Counter& counter = *counters[m];
      const int64_t target = value ? 65535 : 0;
      counter.one = static_cast<uint16_t>(
          counter.one + (((target - counter.one) * tables.rate[counter.seen]) >> 16));
      counter.seen += counter.seen < kMostSeen;
    }
    return value;
  }

  static constexpr int32_t kMostWeight = 1 << 20;
  Coder& coder_;
  int bits_ = 1;
  int64_t size_;
  Groups groups_[kModels];
  int32_t weights_[1024][kMostModels];
};

template <int kModels, class Coder, class Visit>
void code_plane(Coder& coder, Planes planes, int64_t size, const uint32_t* known, Visit&& visit) {
  Mixer<Coder, kModels> mixer(coder, size);
  const uint32_t* here = known;
  const uint32_t* before = planes.q ? planes.plane(planes.q - 1) : nullptr;
  const uint32_t* first = planes.plane(0);
  const int64_t columns = planes.columns;
  for (int64_t row = 0, at = 0; row < planes.rows; ++row)
    for (int64_t column = 0; column < columns; ++column, ++at) {
      uint64_t contexts[kMostModels] = {};
      if (column) contexts[1] = here[at - 1] + 1;
      if (row) contexts[2] = here[at - columns] + 1;
      if (planes.q)
        contexts[3] = before[at] + 1;
      else if (row && column + 1 < columns)
        contexts[3] = here[at - columns + 1] + 1;
      if (kModels > 4) contexts[4] = first[at] + 1;
      visit(at, mixer, contexts);
    }
}

template <class Coder, class Visit>
void code_plane(Coder& coder, Planes planes, int64_t size, const uint32_t* known, Visit&& visit) {
  if (planes.q < 2) return code_plane<4>(coder, planes, size, known, visit);
  return code_plane<5>(coder, planes, size, known, visit);
}

}  // namespace

std::vector<uint8_t> adaptive_encode(Planes planes, int64_t codebook_size) {
  RangeEncoder coder;
  const uint32_t* codes = planes.plane(planes.q);
  code_plane(coder, planes, codebook_size, codes,
             [&](int64_t at, auto& mixer, const uint64_t* contexts) {
               mixer.code(contexts, codes[at]);
             });
  return coder.finish();
}

bool adaptive_decode(Planes planes, int64_t codebook_size, const uint8_t* bytes, int64_t count,
                     uint32_t* codes) {
  RangeDecoder coder(bytes, count);
  code_plane(coder, planes, codebook_size, codes,
             [&](int64_t at, auto& mixer, const uint64_t* contexts) {
               codes[at] = mixer.code(contexts, 0);
             });
  return !coder.has_rest();
}

}  // namespace vqtok
