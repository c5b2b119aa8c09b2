// The lookup by a k-d partition of the codes: each row visits only the boxes that are near enough.
#pragma once
#include "cpu/exact_search.h"
#include "cpu/float_search.h"
#include "cpu/tree.h"

namespace vqtok {

// One thread's share of a lookup.
class TreeSearch {
 public:
  TreeSearch(const Lookup& lookup, const Blocking& blocking, const Tree& tree, ExactSearch& exact);

  void search(int64_t block);

  // How many boxes a row visits, on average over a few rows from everywhere.
  double sample(int64_t count);

 private:
  void search_row(int64_t row, const float* values);

  const Lookup& lookup_;
  const Blocking& blocking_;
  const Tree& tree_;
  ExactSearch& exact_;
  FloatRows rows_;
  Buffer<float> bounds_;
  int64_t visited_ = 0;
};

}  // namespace vqtok
