// Integer adaptive context mixing: the model of the `entropy` packing for tokenizers without a
// prior. FORMAT.md defines it; a code costs a bit of arithmetic per bit, nothing is trained.
#pragma once
#include <stdint.h>

#include <vector>

#include "cpu/planes.h"

namespace vqtok {

constexpr int64_t kMostAdaptiveCodes = int64_t{1} << 20;  // K of a codebook

// The stream of plane q, whose codes are in [0, codebook_size).
std::vector<uint8_t> adaptive_encode(Planes planes, int64_t codebook_size);

// Writes plane q, whose codes are in [0, codebook_size) whatever the bytes are. False if bytes were
// left over.
bool adaptive_decode(Planes planes, int64_t codebook_size, const uint8_t* bytes, int64_t count,
                     uint32_t* codes);

}  // namespace vqtok
