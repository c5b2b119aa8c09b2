// The nearest few codes of groups of rows: of single rows, or of the sums that a beam search keeps,
// which compete with each other.
#pragma once
#include <stdint.h>

#include <vector>

#include "cpu/buffer.h"
#include "cpu/panels.h"

namespace vqtok {

// A code for one of the rows of a group. Distances are as nearest() defines them, +inf if NaN.
struct Choice {
  double distance;
  int32_t member, code;

  // Ties go to the lowest member, then to the lowest code.
  bool before(const Choice& other) const {
    if (distance != other.distance) return distance < other.distance;
    return member != other.member ? member < other.member : code < other.code;
  }
};

// Rows in float64, [groups][members][dim].
struct Groups {
  const double* rows;
  int64_t count;
  int members;
};

// One thread's; keeps its memory from call to call.
//
// All codes are scored in float32 or by split values, a tile at a time. Among the members of a
// group, score s of a row x stands for half a squared distance of h = |x|^2/2 - s, off by at most e
// (half the margin of error_bound.h). The `keep` tiles with the least h + e hold as many codes at
// least that near: with H the largest of these, a tile whose best h is beyond H + e has none of the
// answers. What is left is decided in float64.
class GroupSearch {
 public:
  explicit GroupSearch(const NearestKernel& kernel) : kernel_(kernel), panels_(kernel) {}

  // Writes the `keep` nearest choices of each group, nearest first: choices [groups][keep], where
  // keep <= members * codes.
  void search(const PackedCodebook& codebook, Groups groups, int64_t keep, Choice* choices);

 private:
  // What is known of a member.
  struct Member {
    double half, error;  // of h; an infinite error: float32 says nothing
  };

  void pack(int64_t dim, Groups groups);
  void scan(int64_t dim, int64_t panels, int tops);
  void set_thresholds(Groups groups, int64_t keep, int tops);
  void decide(const PackedCodebook& codebook, Groups groups, int64_t keep, Choice* choices);

  const NearestKernel& kernel_;
  Panels panels_;
  std::vector<float> values_, margins_, maxima_, tops_, thresholds_;
  std::vector<Member> members_;
  std::vector<double> bounds_;
  std::vector<TileHit> hits_;
  std::vector<int64_t> found_;
};

}  // namespace vqtok
