// What split_kernel.cpp provides, for instruction sets that multiply matrices of bfloat16: the scores
// of nearest_kernel.h to 16 bits, faster than float32.
//
// A float32 v is split into v = high + middle + rest: high is v rounded to bfloat16, middle is what
// that leaves, rounded too. Of x.c the parts
//     x_high c_high + x_middle c_high + x_high c_middle
// are added up in float32, together with the offset in three parts, which are all of it. How far
// that is from the score is the caller's business (split.h).
//
// So a code and a row are pairs of bfloat16, one word each (the first in the lower half):
//     code:  (high, high) of each d; (middle, middle) of d = 0 and 1, 2 and 3, ...; the offset's
//            (high, middle) and (rest, 0)
//     row:   (high, middle) of each d; (high, high) of d = 0 and 1, 2 and 3, ...; (1, 1) and (1, 0)
// and then zeros, up to a multiple of `chunk`.
#pragma once
#include <stdint.h>

#include "cpu/nearest_kernel.h"

namespace vqtok {

constexpr int kSplitTiles = 4;  // looked at together

// Codes [tiles][8][pairs]; `chunk` is at most 16.
struct SplitCodes {
  const uint32_t* values;
  int pairs, chunk;
};

struct SplitKernel {
  // Splits a panel of rows [dim][rows] into [pairs][rows].
  void (*split)(const float* panel, int dim, int pairs, uint32_t* split);

  // NearestKernel::scan and scan_tops by such scores, of tiles in multiples of kSplitTiles.
  void (*scan)(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel, PanelScan scan);
  void (*scan_tops)(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel, int count,
                    float* maxima, float* tops);
};

extern const SplitKernel split_kernel_amx;

}  // namespace vqtok
