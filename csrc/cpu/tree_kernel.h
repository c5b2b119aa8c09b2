// What tree_kernel.cpp provides once per instruction set: codes in boxes, of which a row visits the
// near ones.
#pragma once
#include <stdint.h>

namespace vqtok {

constexpr int kBoxCodes = 64;
constexpr int kBoxGroup = 16;  // boxes are padded to a multiple

// Boxes [groups][dim][16]; the float32 codes in them [boxes][dim][64], their offsets -|c|^2/2 (-inf:
// no code) and numbers [boxes][64]. Boxes that pad are nowhere near.
struct BoxView {
  const float *low, *high;
  const float *values, *offsets;
  const int32_t* codes;
  int dim;
  int32_t groups;
};

// A row, with its squared norm and the margin of its scores.
struct TreeRow {
  const float* values;
  float squared_norm, margin;
};

struct TreeHit {
  float score;
  int32_t code;
};

struct TreeKernel {
  // Finds all codes that score within the margin of the best, at most `capacity`. -1 if there are
  // more: then hits[0] has the best score so far. `bounds` is scratch [groups * 16]; `visited` is
  // raised by the number of boxes looked into.
  int (*search)(const BoxView& boxes, TreeRow row, float* bounds, TreeHit* hits, int capacity,
                int64_t* visited);
};

extern const TreeKernel tree_kernel_baseline;
extern const TreeKernel tree_kernel_avx2;
extern const TreeKernel tree_kernel_avx512;
extern const TreeKernel tree_kernel_avx512vnni;
extern const TreeKernel tree_kernel_amx;

}  // namespace vqtok
