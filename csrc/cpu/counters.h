// Counters of bits under contexts: what the adaptive model and a prior that learns from the sample
// predict with. FORMAT.md defines them.
#pragma once
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/planes.h"

namespace vqtok {

constexpr int kMostModels = 5;
constexpr int kReach = 2047;                 // of the logistic domain, in 1/256
constexpr int32_t kMostWeight = 1 << 20;     // of an input, in 2^-16
constexpr int kLevels = 3;                   // of a group of counters
constexpr int kGroupBits = 18;
constexpr uint32_t kMostGroups = 1u << kGroupBits;  // that one model keeps, and one
constexpr int kNodeBits = 24;
constexpr uint16_t kMostSeen = 60;

// A probability of 1, in 2^-16, above the number of bits seen: 16 bits each.
using Counter = uint32_t;
constexpr Counter kNewCounter = 32768u << 16;

struct CounterTables {
  CounterTables();

  uint16_t squash[4096];         // of x + 2048
  int16_t stretch[4096];         // of a probability in 2^-12
  uint16_t rate[kMostSeen + 1];  // of a counter that has seen so many bits
};
extern const CounterTables counter_tables;

// What keys of groups are multiplied by to find their slots: odd, and another one each time the module
// is loaded. Streams do not depend on it, and nobody can make one whose groups all want the same slots.
extern const uint64_t slot_multiplier;

// 65536 / (1 + exp(-x / 256)) of x, limited to what it reaches.
inline int32_t squash(int64_t x) {
  return counter_tables.squash[std::min<int64_t>(std::max<int64_t>(x, -kReach), kReach) + 2048];
}

// The inverse, of a probability in 2^-16.
inline int32_t stretch(uint32_t probability) { return counter_tables.stretch[probability >> 4]; }

inline int32_t limited(int32_t weight) {
  return std::min(std::max(weight, -kMostWeight), kMostWeight);
}

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

  // The group of a key below 2^46, made if it is new; of a full map a fresh one that nobody will
  // find again. A slot holds the number of a group below a tag, which with the group's half of the
  // key tells the other half (of 14 bits), too.
  Group* find(uint64_t key) {
    const uint32_t low = static_cast<uint32_t>(key);
    uint64_t hash = key * slot_multiplier;
    hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15u;
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

// How many models predict the codes of plane q.
constexpr int models_of(int q) { return q < 2 ? 4 : 5; }

// Their contexts at a position: numbers up to 2^20.
struct Contexts {
  Contexts(const Planes& planes, int64_t row, int64_t column) {
    const int64_t columns = planes.columns, at = row * columns + column;
    const uint32_t* here = planes.plane(planes.q);
    if (column) of[1] = here[at - 1] + 1;
    if (row) of[2] = here[at - columns] + 1;
    if (planes.q)
      of[3] = planes.plane(planes.q - 1)[at] + 1;
    else if (row && column + 1 < columns)
      of[3] = here[at - columns + 1] + 1;
    if (planes.q > 1) of[4] = planes.plane(0)[at] + 1;
  }

  uint64_t of[kMostModels] = {};
};

// The counters of all models for the bits of a code, one after the other.
template <int kModels> class Counters {
 public:
  // For `count` codes of so many bits.
  Counters(int64_t count, int bits) {
    groups_.reserve(kModels);
    for (int m = 0; m < kModels; ++m) groups_.emplace_back(count * ((bits + 2) / kLevels));
  }

  void begin(const Contexts& contexts) {
    memcpy(contexts_, contexts.of, sizeof contexts_);
    node_ = 1;
    level_ = 0;
  }

  // A 1 followed by the bits so far.
  uint64_t node() const { return node_; }

  // Turns to the next bit.
  void next() {
    if (level_++ % kLevels == 0) {
      inside_ = 1;
      for (int m = 0; m < kModels; ++m)
        found_[m] = groups_[m].find(contexts_[m] << kNodeBits | node_);
    }
  }

  // Bits that a model's counter has seen, and what it says.
  uint32_t seen(int model) const { return counter(model) & 0xffff; }
  int32_t input(int model) const { return seen(model) ? stretch(counter(model) >> 16) : 0; }

  // Notes the bit, once next() was there, without or with learning from it.
  void pass(bool bit) {
    node_ = node_ * 2 + bit;
    inside_ = inside_ * 2 + bit;
  }
  void learn(bool bit) {
    const int32_t target = bit ? 65535 : 0;
    for (int m = 0; m < kModels; ++m) {
      Counter& counter = found_[m]->counters[inside_ - 1];
      const Counter seen = counter & 0xffff;
      const int32_t before = static_cast<int32_t>(counter >> 16);
      const int32_t step = static_cast<int32_t>(
          (int64_t{target - before} * counter_tables.rate[seen]) >> 16);
      counter = static_cast<Counter>(before + step) << 16 | (seen + (seen < kMostSeen));
    }
    pass(bit);
  }

 private:
  Counter counter(int model) const { return found_[model]->counters[inside_ - 1]; }

  std::vector<Groups> groups_;
  uint64_t contexts_[kMostModels];
  Group* found_[kModels];
  uint64_t node_ = 1, inside_ = 1;
  int level_ = 0;
};

}  // namespace vqtok
