// The entropy coder: round trips, and streams that nobody made. Under the sanitizers that other
// tests run under, so that nothing is read or written outside.
#include <string.h>

#include "cpu/adaptive.h"
#include "cpu/range_coder.h"
#include "tests/check.h"

namespace vqtok {
namespace {

using Random = std::mt19937_64;

void check_range_coder(Random& random) {
  struct Step { uint32_t below, frequency, total; bool is_bit, value; };
  std::vector<Step> steps(random() % 300);
  for (Step& s : steps) {
    s.is_bit = random() & 1;
    s.value = random() & 1;
    s.total = static_cast<uint32_t>(random() >> (33 + random() % 30)) + 1;
    s.below = static_cast<uint32_t>(random() % s.total);
    s.frequency = static_cast<uint32_t>(1 + random() % (s.total - s.below));
    if (s.is_bit) s.frequency = static_cast<uint32_t>(1 + random() % 65535);
  }
  RangeEncoder coder;
  for (const Step& s : steps)
    s.is_bit ? void(coder.bit(s.frequency, s.value)) : coder.symbol(s.below, s.frequency, s.total);
  const std::vector<uint8_t> stream = coder.finish();
  CHECK(stream.empty() || stream.back() != 0, "a zero at the end");
  RangeDecoder decoder(stream.data(), static_cast<int64_t>(stream.size()));
  for (const Step& s : steps) {
    if (s.is_bit) {
      CHECK(decoder.bit(s.frequency, false) == s.value, "bit");
    } else {
      const uint32_t position = decoder.position(s.total);
      CHECK(position >= s.below && position - s.below < s.frequency, "position %u", position);
      decoder.take(s.below, s.frequency);
    }
  }
  CHECK(!decoder.has_rest(), "bytes left over");
}

// Planes with repeats, [count][rows][columns].
std::vector<uint32_t> some_planes(Random& random, int count, int64_t rows, int64_t columns,
                                  int64_t size) {
  std::vector<uint32_t> codes(count * rows * columns);
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = i && random() % 2 ? codes[i - 1 - random() % std::min<size_t>(i, columns)]
                                 : static_cast<uint32_t>(random() % size);
  return codes;
}

// Flips, drops, adds and repeats bytes.
std::vector<uint8_t> damaged(Random& random, std::vector<uint8_t> stream) {
  for (int n = 1 + static_cast<int>(random() % 4); n > 0; --n) {
    const size_t at = stream.empty() ? 0 : random() % stream.size();
    switch (random() % 5) {
      case 0: if (!stream.empty()) stream[at] ^= static_cast<uint8_t>(1 << random() % 8); break;
      case 1: stream.resize(at); break;
      case 2: stream.push_back(static_cast<uint8_t>(random())); break;
      case 3: if (!stream.empty()) stream[at] = random() & 1 ? 0 : 255; break;
      default: stream.insert(stream.end(), stream.begin(), stream.begin() + at); break;
    }
    if (stream.size() > 4096) stream.resize(4096);
  }
  return stream;
}

void check_adaptive(Random& random, int64_t size, int count, int64_t rows, int64_t columns,
                    int mutants) {
  const std::vector<uint32_t> codes = some_planes(random, count, rows, columns, size);
  const Planes planes{codes.data(), count - 1, rows, columns};
  const std::vector<uint8_t> stream = adaptive_encode(planes, size);
  std::vector<uint32_t> found = codes;
  uint32_t* plane = found.data() + (count - 1) * planes.size();
  const Planes known{found.data(), count - 1, rows, columns};
  std::fill(plane, plane + planes.size(), 0u);
  CHECK(adaptive_decode(known, size, stream.data(), static_cast<int64_t>(stream.size()), plane),
        "bytes left over");
  CHECK(found == codes, "%lld codes of %lld", static_cast<long long>(planes.size()),
        static_cast<long long>(size));
  for (int n = 0; n < mutants; ++n) {
    const std::vector<uint8_t> bad = damaged(random, stream);
    adaptive_decode(known, size, bad.data(), static_cast<int64_t>(bad.size()), plane);
    for (int64_t i = 0; i < planes.size(); ++i)
      CHECK(plane[i] < size, "code %u of %lld", plane[i], static_cast<long long>(size));
  }
}

}  // namespace
}  // namespace vqtok

// Arguments: seed, and rounds of damage, for those who have time.
int main(int argc, char** argv) {
  using namespace vqtok;
  std::mt19937_64 random(argc > 1 ? strtoull(argv[1], nullptr, 10) : 1);
  const int rounds = argc > 2 ? atoi(argv[2]) : 20;
  for (int n = 0; n < 20 * rounds; ++n) check_range_coder(random);
  for (int64_t size : {1, 2, 3, 5, 8, 255, 1024, 1025, 65536, 1 << 20})
    for (int count : {1, 2, 4}) {
      check_adaptive(random, size, count, 1, 1, rounds);
      check_adaptive(random, size, count, 9, 13, rounds);
      check_adaptive(random, size, count, 60, 1, rounds);
    }
  return 0;
}
