// Codebooks packed before, found again by their contents.
#pragma once
#include <memory>

#include "cpu/nearest.h"

namespace vqtok {

// The packed form of a codebook. A few recent ones are kept, with a digest of what they were made
// of, and every call computes the codebook's digest anew: so a codebook may change at any time and
// by any means, and one that moved is found again. Safe to call from several threads.
std::shared_ptr<const PackedCodebook> packed_codebook(const Matrix& codebook, int threads,
                                                      const DigestKernel& kernel);

// The same of its unit vectors (see cpu/cosine.h).
std::shared_ptr<const PackedCodebook> packed_units(const Matrix& codebook, int threads,
                                                   const DigestKernel& kernel);

}  // namespace vqtok
