// Digests that tell apart what codebooks hold.
#pragma once
#include <array>

#include "cpu/digest_kernel.h"

namespace vqtok {

typedef std::array<uint64_t, kDigests> Digest;

// The same on every instruction set. The key is drawn at random when the process first needs it, so
// whatever two different runs of as many bytes are, they have the same digest with a probability of
// 2^-63 at most.
Digest digest(const void* bytes, int64_t count, const DigestKernel& kernel);

}  // namespace vqtok
