// What the entropy coder works on.
#pragma once
#include <stdint.h>

#include <atomic>
#include <vector>

#include "cpu/team.h"

namespace vqtok {

// One sample's codes of codebook q, and those of the codebooks before it: [q + 1][rows][columns].
struct Planes {
  const uint32_t* codes;
  int q;
  int64_t rows, columns;

  int64_t size() const { return rows * columns; }
  const uint32_t* plane(int index) const { return codes + index * size(); }
};

// encode(q), a stream of bytes, for `count` planes.
template <class Encode>
std::vector<std::vector<uint8_t>> encode_planes(int count, int threads, Encode&& encode) {
  std::vector<std::vector<uint8_t>> streams(count);
  std::atomic<int> next{0};
  run_team(threads < count ? threads : count, [&](int, int) {
    for (int q; (q = next.fetch_add(1)) < count;) streams[q] = encode(q);
  });
  return streams;
}

}  // namespace vqtok
