// How kernels report what they meet: device memory that the host reads after them.
#pragma once
#include <stdint.h>

namespace vqtok {

constexpr int64_t kNoneBad = 0x7f7f7f7f7f7f7f7f;  // larger than any row, and set by a memset

}  // namespace vqtok
