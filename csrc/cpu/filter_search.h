// The lookup by an 8-bit filter: a look at all codes in integers, then float32 for the few that may
// be nearest.
#pragma once
#include <atomic>

#include "cpu/filter.h"
#include "cpu/float_search.h"

namespace vqtok {

// One thread's share of a lookup.
class FilterSearch {
 public:
  FilterSearch(const Lookup& lookup, const Blocking& blocking, const Filter& filter,
               ExactSearch& exact);

  // Decides the rows of a block. False, having decided nothing, if so many codes come through that
  // scoring all of them in float32 is faster (never if `insist`).
  bool search(int64_t block, bool insist) {
    if (!scan(block, 0, tiles(), insist)) return false;
    settle(block);
    return true;
  }

  // The two halves of it, the first for some of the tiles, from a multiple of 4 on.
  bool scan(int64_t block, int32_t begin, int32_t end, bool insist);
  void settle(int64_t block);

  int32_t tiles() const { return filter_.book().tiles; }
  Found found() { return {best_.data(), second_.data(), code_.data()}; }

 private:
  void pack(int64_t panel, int count);
  bool look(int64_t panel, int count, int32_t begin, int32_t end, const int32_t* maxima, bool first,
            double& left);
  RowScores scores(int64_t panel);

  const Lookup& lookup_;
  const Blocking& blocking_;
  const Filter& filter_;
  const FilterKernel& kernel_;
  const CodeRows codes_;
  ExactSearch& exact_;
  int32_t chunk_tiles_;
  int64_t together_;  // panels that look at a chunk in turn
  int32_t span_tiles_;
  FloatRows rows_;
  Buffer<uint8_t> bytes_, panels_;
  Buffer<int32_t> maxima_;
  Buffer<float> margins_, errors_, best_, second_;
  Buffer<int32_t> code_, scratch_;
  Buffer<CodeHit> hits_;
};

}  // namespace vqtok
