// The CUDA that kernels are written in: the real one, or its emulation on the CPU for tests.
#pragma once

#if defined(VQTOK_EMULATE_CUDA)
#include "tests/cuda_emulator.h"
#else
#include <cuda_runtime.h>
#define VQTOK_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__)
#endif
