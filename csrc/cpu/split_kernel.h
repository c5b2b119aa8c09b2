// What split_kernel.cpp provides, for instruction sets that multiply matrices of bfloat16: the scores
// of nearest_kernel.h to 16 bits, faster than float32.
//
// A float32 v is split into v = high + middle + rest: high is v rounded to bfloat16, middle is what
// that leaves, rounded too. Of x.c the parts
//     x_high c_high + x_middle c_high + x_high c_middle
// are added up in float32, and the offset. How far that is from the score is the caller's business
// (split.h).
//
// A code and a row are words of two bfloat16, the first in the lower half. Each step multiplies 16
// words of them. Up to kNarrowDim dimensions these are the same words in each:
//     code: (high, high) of each d; (middle, middle) of d = 0 and 1, 2 and 3, ...; the offset's
//           (high, middle) and (rest, 0)
//     row:  (high, middle) of each d; (high, high) of d = 0 and 1, 2 and 3, ...; (1, 1) and (1, 0)
// Of more dimensions, each 32 take three steps: middle by high, high by high, high by middle of
//     code: 16 words of middle, 16 of high
//     row:  16 words of high, 16 of middle
// where d = 0 and 1, 2 and 3, ... share a word; the offset is added afterwards. Words to spare are
// zero.
#pragma once
#include <stdint.h>

#include "cpu/nearest_kernel.h"

namespace vqtok {

constexpr int kNarrowDim = 20;  // beyond, the other layout takes no more steps
constexpr int kSplitTiles = 4;  // looked at together

// How many words, a multiple of 16 (or 8 in all), and steps.
struct SplitLayout {
  int dim, words, steps;
};

// Codes [tiles][8][words] and offsets [tiles][8].
struct SplitCodes {
  SplitLayout layout;
  const uint32_t* values;
  const float* offsets;
};

struct SplitKernel {
  // Splits a panel of rows [dim][rows] into [words][rows].
  void (*split)(SplitLayout layout, const float* panel, uint32_t* split);

  // NearestKernel::scan and scan_tops by such scores, of tiles in multiples of kSplitTiles.
  void (*scan)(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel, PanelScan scan);
  void (*scan_tops)(SplitCodes codes, int32_t begin, int32_t end, const uint32_t* panel, int count,
                    float* maxima, float* tops);
};

extern const SplitKernel split_kernel_amx;

}  // namespace vqtok
