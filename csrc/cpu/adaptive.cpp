#include "cpu/adaptive.h"

#include <string.h>

#include <algorithm>
#include <memory>

#include "cpu/range_coder.h"

namespace vqtok {
namespace {

constexpr int kMostModels = 5;
constexpr int kLevels = 3;                   // of a group of counters
constexpr int kGroupBits = 18;
constexpr uint32_t kMostGroups = 1u << kGroupBits;  // that one model keeps, and one
constexpr uint16_t kMostSeen = 60;
constexpr int kReach = 2047;                 // of the logistic domain, in 1/256
constexpr int kMixRate = 5;                  // of the weights, in 2^-16

// 65536 / (1 + exp(-x / 256)) for x = -2048, -1920, ..., 2048, at most 65535.
constexpr int32_t kSquash[33] = {
    22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

struct Tables {
  uint16_t squash[4096];               // of x + 2048
  int16_t stretch[4096];               // of a probability in 2^-12
  uint16_t rate[kMostSeen + 1];        // of a counter that has seen so many bits
  uint8_t bucket[kMostSeen + 1];
  int32_t weights[1024][kMostModels];  // at the start, by the buckets of the models

  Tables() {
    for (int at = 0; at < 4096; ++at) {
      const int32_t low = kSquash[at >> 7], step = kSquash[(at >> 7) + 1] - low;
      squash[at] = static_cast<uint16_t>(low + ((step * (at & 127)) >> 7));
    }
    int32_t x = -kReach;
    for (int p = 0; p < 4096; ++p) {
      while (x < kReach && squash[x + 2048] < p * 16 + 8) ++x;
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

// A probability of 1, in 2^-16, above the number of bits seen: 16 bits each.
using Counter = uint32_t;
constexpr Counter kNewCounter = 32768u << 16;

struct Group {
  uint32_t key;         // the low half of what it is found by
  Counter counters[7];  // of the nodes 1..7 of three levels of the tree
};
constexpr Group kNewGroup = {0, {kNewCounter, kNewCounter, kNewCounter, kNewCounter, kNewCounter,
                                 kNewCounter, kNewCounter}};

// From (context, first node) to a group, exactly.
class Groups {
 public:
  // For at most `most` groups; memory is touched as they are made.
  explicit Groups(int64_t most) {
    most = std::min<int64_t>(most, kMostGroups - 1);
    size_t slots = 16;
    while (slots < static_cast<size_t>(most) * 2) slots *= 2;
    slots_.resize(slots);
    groups_.reset(new Group[most + 1]);
  }

  // The group of a key, made if it is new; of a full map a fresh one that nobody will find again.
  // A slot holds the number of a group below a tag, which with the group's half of the key tells
  // the other half (of 10 bits), too.
  Group* find(uint64_t key) {
    const uint32_t low = static_cast<uint32_t>(key);
    const uint64_t hash = key * 0x9e3779b97f4a7c15u;
    const uint32_t tag =
        static_cast<uint32_t>((low * 0x85ebca6bu) >> 22 ^ key >> 32) << kGroupBits;
    const size_t mask = slots_.size() - 1;
    size_t at = hash >> 32 & mask;
    for (; slots_[at]; at = (at + 1) & mask) {
      Group& found = groups_[slots_[at] & (kMostGroups - 1)];
      if ((slots_[at] ^ tag) < kMostGroups && found.key == low) return &found;
    }
    Group& made = groups_[count_ < kMostGroups ? count_ : 0];
    made = kNewGroup;
    if (count_ == kMostGroups) return &made;
    made.key = low;
    slots_[at] = tag | count_++;
    return &made;
  }

 private:
  std::vector<uint32_t> slots_;
  std::unique_ptr<Group[]> groups_;
  uint32_t count_ = 1;
};

template <class Coder, int kModels> class Mixer {
 public:
  // For `count` codes, each below `size`.
  Mixer(Coder& coder, int64_t size, int64_t count) : coder_(coder), size_(size) {
    while (bits_ < 20 && int64_t{1} << bits_ < size) ++bits_;
    groups_.reserve(kModels);
    for (int m = 0; m < kModels; ++m) groups_.emplace_back(count * ((bits_ + 2) / kLevels));
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
        for (int m = 0; m < kModels; ++m) counters[m] = &groups[m]->counters[inside - 1];
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
      const Counter counter = *counters[m], seen = counter & 0xffff;
      key |= tables.bucket[seen] << 2 * m;
      inputs[m] = seen ? tables.stretch[counter >> 20] : 0;
    }
    int32_t* weights = weights_[key];
    int64_t sum = 0;
    for (int m = 0; m < kModels; ++m) sum += int64_t{weights[m]} * inputs[m];
    const int64_t mixed = std::min<int64_t>(std::max<int64_t>(sum >> 16, -kReach), kReach);
    const int32_t one = tables.squash[mixed + 2048];
    value = coder_.bit(static_cast<uint32_t>(one), value);
    const int32_t error = (value ? 65536 : 0) - one, target = value ? 65535 : 0;
    for (int m = 0; m < kModels; ++m) {
      const int32_t weight = weights[m] + ((inputs[m] * kMixRate * error) >> 16);
      weights[m] = std::min(std::max(weight, -kMostWeight), kMostWeight);
      const Counter counter = *counters[m], seen = counter & 0xffff;
      const int32_t before = static_cast<int32_t>(counter >> 16);
      const int32_t step = static_cast<int32_t>(
          (int64_t{target - before} * tables.rate[seen]) >> 16);
      *counters[m] = static_cast<Counter>(before + step) << 16 | (seen + (seen < kMostSeen));
    }
    return value;
  }

  static constexpr int32_t kMostWeight = 1 << 20;
  Coder& coder_;
  int bits_ = 1;
  int64_t size_;
  std::vector<Groups> groups_;
  int32_t weights_[1024][kMostModels];
};

template <int kModels, class Coder, class Visit>
void code_plane(Coder& coder, Planes planes, int64_t size, const uint32_t* known, Visit&& visit) {
  Mixer<Coder, kModels> mixer(coder, size, planes.size());
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
