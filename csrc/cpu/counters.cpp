#include "cpu/counters.h"

#include <chrono>

namespace vqtok {
namespace {

// 65536 / (1 + exp(-x / 256)) for x = -2048, -1920, ..., 2048, at most 65535.
constexpr int32_t kSquash[33] = {
    22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

// A number that nobody who makes a file can know: of the clock and of where the stack lies.
uint64_t unknown_number() {
  const int64_t now = std::chrono::steady_clock::now().time_since_epoch().count();
  return (static_cast<uint64_t>(now) ^ reinterpret_cast<uintptr_t>(&now) << 20) *
         0x9e3779b97f4a7c15u;
}

}  // namespace

const uint64_t slot_multiplier = unknown_number() | 1;

CounterTables::CounterTables() {
  for (int at = 0; at < 4096; ++at) {
    const int32_t low = kSquash[at >> 7], step = kSquash[(at >> 7) + 1] - low;
    squash[at] = static_cast<uint16_t>(low + ((step * (at & 127)) >> 7));
  }
  int32_t x = -kReach;
  for (int p = 0; p < 4096; ++p) {
    while (x < kReach && squash[x + 2048] < p * 16 + 8) ++x;
    stretch[p] = static_cast<int16_t>(x);
  }
  for (int n = 0; n <= kMostSeen; ++n) rate[n] = static_cast<uint16_t>(131072 / (2 * n + 3));
}

const CounterTables counter_tables;

}  // namespace vqtok
