// What PriorNetwork::run does with the outcomes that a network predicts.
#pragma once
#include <stdint.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "cpu/counters.h"
#include "cpu/planes.h"
#include "cpu/prior_kernel.h"
#include "cpu/range_coder.h"

namespace vqtok {

// How likely the outcomes of a layer are. `most` of them are in the largest of the layers that take
// its place.
struct Outcomes {
  const uint32_t* weights;
  int64_t count, most;
  uint32_t total;
};

// Coders: `place` numbers the position, `known` is the outcome where the coder knows_codes; one that
// learns is told where each code begins.
struct Encode {
  static constexpr bool knows_codes = true, chooses = false, learns = false;
  RangeEncoder coder;

  int64_t outcome(const PriorKernel& kernel, const Outcomes& of, int64_t, int64_t known) {
    coder.symbol(kernel.sum_before(of.weights, known), of.weights[known], of.total);
    return known;
  }
};

struct Decode {
  static constexpr bool knows_codes = false, chooses = false, learns = false;
  RangeDecoder coder;
  uint32_t* codes;

  int64_t outcome(const PriorKernel& kernel, const Outcomes& of, int64_t, int64_t) {
    uint32_t before = 0;
    const int64_t found = kernel.find(of.weights, coder.position(of.total), &before);
    coder.take(before, of.weights[found]);
    return found;
  }
};

struct Weigh {
  static constexpr bool knows_codes = true, chooses = false, learns = false;
  uint32_t* weights;  // two for each outcome
  bool grouped;

  int64_t outcome(const PriorKernel&, const Outcomes& of, int64_t place, int64_t known) {
    // the group's come first, then the member's
    uint32_t* to = weights + place * 4;
    if (!grouped || to[0]) to += 2;
    to[0] = of.weights[known];
    to[1] = of.total;
    return known;
  }
};

// Levels of a tree of so many outcomes.
inline int levels_of(int64_t outcomes) {
  int levels = 0;
  while (int64_t{1} << levels < outcomes) ++levels;
  return levels;
}

// Codes outcomes bit after bit, each predicted by the network and by counters together, which learn
// from the plane as it goes.
template <class Coder, int kModels> class Mixed {
 public:
  static constexpr bool knows_codes = std::is_same_v<Coder, RangeEncoder>;
  static constexpr bool chooses = false, learns = true;

  // `codes`: where a decoder's go. `levels`: of the trees of a code's outcomes together.
  Mixed(const Planes& planes, int levels, Coder coder, uint32_t* codes)
      : coder(std::move(coder)), codes(codes), planes_(planes), counters_(planes.size(), levels) {
    weights_[kModels] = 52429;
  }

  void begin(int64_t row, int64_t column) { counters_.begin(Contexts(planes_, row, column)); }

  int64_t outcome(const PriorKernel& kernel, const Outcomes& of, int64_t, int64_t known) {
    int64_t low = 0;
    uint32_t total = of.total;  // of what is at `low` and after it, as far as the tree goes here
    for (int level = levels_of(of.most) - 1; level >= 0; --level) {
      const int64_t half = int64_t{1} << level, middle = low + half;
      const int64_t rest = std::min(half, of.count - middle);
      const uint32_t of_one = rest > 0 ? kernel.sum_before(of.weights + middle, rest) : 0;
      counters_.next();
      if (!of_one) {
        counters_.pass(false);
        continue;
      }
      const bool one = bit(static_cast<uint32_t>((uint64_t{of_one} << 16) / total),
                           known >= middle);
      total = one ? of_one : total - of_one;
      if (one) low = middle;
    }
    return low;
  }

  Coder coder;
  uint32_t* codes;

 private:
  static constexpr int kRate = 2;  // of the weights, in 2^-16
  static constexpr int32_t kRound = 1 << 15;

  bool bit(uint32_t of_network, bool value) {
    int32_t inputs[kModels + 1];
    for (int m = 0; m < kModels; ++m) inputs[m] = counters_.input(m);
    inputs[kModels] = stretch(of_network);
    int64_t sum = kRound;
    for (int m = 0; m <= kModels; ++m) sum += int64_t{weights_[m]} * inputs[m];
    const int32_t one = squash(sum >> 16);
    value = coder.bit(static_cast<uint32_t>(one), value);
    const int32_t error = (value ? 65536 : 0) - one;
    for (int m = 0; m <= kModels; ++m)
      weights_[m] = limited(weights_[m] + ((inputs[m] * kRate * error + kRound) >> 16));
    counters_.learn(value);
    return value;
  }

  const Planes planes_;
  Counters<kModels> counters_;
  int32_t weights_[kModels + 1] = {};  // the network's is the last
};

}  // namespace vqtok
