// The inner loops of the search in boxes. See simd.h for what may be used.
#include "cpu/tree_kernel.h"

#include "cpu/simd.h"

namespace {

using vqtok::BoxView;
using vqtok::kBoxCodes;
using vqtok::kBoxGroup;
using vqtok::TreeHit;
using vqtok::TreeKernel;
using vqtok::TreeRow;

constexpr int kGroupVectors = kBoxGroup / kLanes;
constexpr int kCodeVectors = kBoxCodes / kLanes;

inline float largest(VecF v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(v);
#else
  float lanes[kLanes], most;
  store(lanes, v);
  most = lanes[0];
  for (int i = 1; i < kLanes; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
#endif
}

// Squared distances from the row to all boxes; returns the nearest box.
template <int kDim>
int32_t bound_boxes(const BoxView& boxes, const float* row, float* bounds) {
  const int dim = kDim ? kDim : boxes.dim;
  VecF least[kGroupVectors];  // per lane, and the group that has it
  VecI group[kGroupVectors];
  for (int i = 0; i < kGroupVectors; ++i) {
    least[i] = splat(__builtin_inff());
    group[i] = splat(0);
  }
  for (int32_t g = 0; g < boxes.groups; ++g) {
    const float* low = boxes.low + int64_t{g} * dim * kBoxGroup;
    const float* high = boxes.high + int64_t{g} * dim * kBoxGroup;
    VecF sums[kGroupVectors];
    UNROLL for (int i = 0; i < kGroupVectors; ++i) sums[i] = splat(0.0f);
    UNROLL for (int d = 0; d < dim; ++d) {
      const VecF x = splat(row[d]);
      UNROLL for (int i = 0; i < kGroupVectors; ++i) {
        const int at = d * kBoxGroup + i * kLanes;
        const VecF inside = min(max(x, load(low + at)), load(high + at));
        const VecF out = subtract(x, inside);
        sums[i] = multiply_add(out, out, sums[i]);
      }
    }
    UNROLL for (int i = 0; i < kGroupVectors; ++i) {
      store(bounds + g * kBoxGroup + i * kLanes, sums[i]);
      group[i] = if_greater(least[i], sums[i], splat(g), group[i]);
      least[i] = min(least[i], sums[i]);
    }
  }
  int32_t groups[kBoxGroup], nearest = 0;
  for (int i = 0; i < kGroupVectors; ++i) store(groups + i * kLanes, group[i]);
  for (int lane = 0; lane < kBoxGroup; ++lane) {
    const int32_t box = groups[lane] * kBoxGroup + lane;
    nearest = bounds[box] < bounds[nearest] ? box : nearest;
  }
  return nearest;
}

struct Found {
  float best = -__builtin_inff();
  int count = 0;
};

// Keeps the hits that score at least `limit`.
inline int keep(TreeHit* hits, int count, float limit) {
  int kept = 0;
  for (int i = 0; i < count; ++i) {
    const TreeHit hit = hits[i];
    hits[kept] = hit;
    kept += hit.score >= limit;
  }
  return kept;
}

// Scores the codes of a box. False if there are too many hits.
template <int kDim>
bool visit(const BoxView& boxes, const TreeRow& row, int32_t box, TreeHit* hits, int capacity,
           Found& found) {
  const int dim = kDim ? kDim : boxes.dim;
  const float* values = boxes.values + int64_t{box} * dim * kBoxCodes;
  const int64_t first = int64_t{box} * kBoxCodes;
  VecF scores[kCodeVectors];
  UNROLL for (int i = 0; i < kCodeVectors; ++i) scores[i] = load(boxes.offsets + first + i * kLanes);
  UNROLL for (int d = 0; d < dim; ++d) {
    const VecF x = splat(row.values[d]);
    UNROLL for (int i = 0; i < kCodeVectors; ++i)
        scores[i] = multiply_add(x, load(values + d * kBoxCodes + i * kLanes), scores[i]);
  }
  VecF most = scores[0];
  UNROLL for (int i = 1; i < kCodeVectors; ++i) most = max(most, scores[i]);
  if (!mask_at_least(most, splat(found.best - row.margin))) return true;
  const float here = largest(most);
  found.best = here > found.best ? here : found.best;
  const VecF limit = splat(found.best - row.margin);
  UNROLL for (int i = 0; i < kCodeVectors; ++i) {
    float lanes[kLanes];
    store(lanes, scores[i]);
    for (uint32_t mask = mask_at_least(scores[i], limit); mask; mask &= mask - 1) {
      if (found.count == capacity) {
        found.count = keep(hits, found.count, found.best - row.margin);
        if (found.count == capacity) {
          hits[0].score = found.best;
          return false;
        }
      }
      const int lane = __builtin_ctz(mask);
      hits[found.count++] = {lanes[lane], boxes.codes[first + i * kLanes + lane]};
    }
  }
  return true;
}

// A code c whose score is within the margin of the best has
//     |x - c|^2 = |x|^2 - 2 score <= |x|^2 - 2 (best - margin),
// and a box that holds it is no further away. Twice the margin and a relative `room` many times
// (dim + 4) 2^-24 cover the rounding of both sides (the margin itself exceeds what rounding can do to
// |x| max|c| + max|c|^2). Squares that underflow make a box only nearer.
template <int kDim>
int search_boxes(const BoxView& boxes, TreeRow row, float* bounds, TreeHit* hits, int capacity,
                 int64_t* visited) {
  const float room = 8 * static_cast<float>(boxes.dim + 4) * 0x1p-24f;
  Found found;
  const int32_t nearest = bound_boxes<kDim>(boxes, row.values, bounds);
  if (!visit<kDim>(boxes, row, nearest, hits, capacity, found)) return -1;
  bounds[nearest] = __builtin_inff();
  int64_t count = 1;
  const float base = row.squared_norm * (1 + room) + 4 * row.margin;
  float limit = (base - 2 * found.best) * (1 + room);
  for (int32_t at = 0; at < boxes.groups * kBoxGroup; at += kLanes)
    for (uint32_t mask = mask_at_least(splat(limit), load(bounds + at)); mask; mask &= mask - 1) {
      const int32_t box = at + __builtin_ctz(mask);
      if (bounds[box] > limit) continue;
      if (!visit<kDim>(boxes, row, box, hits, capacity, found)) return -1;
      limit = (base - 2 * found.best) * (1 + room);
      ++count;
    }
  *visited += count;
  return keep(hits, found.count, found.best - row.margin);
}

int search(const BoxView& boxes, TreeRow row, float* bounds, TreeHit* hits, int capacity,
           int64_t* visited) {
  switch (boxes.dim) {
    case 4: return search_boxes<4>(boxes, row, bounds, hits, capacity, visited);
    case 8: return search_boxes<8>(boxes, row, bounds, hits, capacity, visited);
    default: return search_boxes<0>(boxes, row, bounds, hits, capacity, visited);
  }
}

}  // namespace

namespace vqtok {

extern const TreeKernel VQTOK_TABLE(tree_kernel) = {search};

}  // namespace vqtok
