// Marks functions that run on the CPU and on a GPU.
#pragma once

#if defined(__CUDACC__)
#define VQTOK_BOTH __host__ __device__
#else
#define VQTOK_BOTH
#endif
