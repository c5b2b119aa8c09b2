// The scan for few dimensions: one thread per few rows, which it holds in registers, against a
// chunk of the codebook in shared memory, which its block loads once.
#pragma once
#include "cuda/nearest_common.cuh"

namespace vqtok {

constexpr int kSmallThreads = 256;
constexpr int kGroup = 8;  // codes of which only the best score is tracked
constexpr int kSmallWidth = 16;  // dimensions, at most

// Registers bound the rows of a thread.
template <int kWidth> constexpr int kSmallRows = kWidth < 8 ? 8 : 4;

template <int kWidth>
__device__ inline float score_code(const float* row, const float* values, float offset) {
  float score = offset;
#pragma unroll
  for (int d = 0; d < kWidth; ++d) score = fmaf(row[d], values[d], score);
  return score;
}

// The first kWidth dimensions of a row, zeros where it has fewer.
template <class T, int kWidth>
__device__ inline void load_typed(const Matrix& x, long long row, float* values) {
  const T* from = x.row<T>(row);
#pragma unroll
  for (int d = 0; d < kWidth; ++d) values[d] = d < x.dim ? to_float(from[d]) : 0.0f;
}

template <int kWidth>
__device__ inline void load_narrow(const Matrix& x, long long row, float* values) {
  switch (x.dtype) {
    case DType::f64: return load_typed<double, kWidth>(x, row, values);
    case DType::bf16: return load_typed<BFloat16, kWidth>(x, row, values);
    case DType::f16: return load_typed<Float16, kWidth>(x, row, values);
    default: return load_typed<float, kWidth>(x, row, values);
  }
}

// blockIdx.y chooses the chunk; blocks of one chunk share out the rows.
template <int kWidth>
__global__ void __launch_bounds__(kSmallThreads, 2)
    scan_small(Matrix x, CodeTable table, int chunk, ScanResult result) {
  constexpr int kRows = kSmallRows<kWidth>;
  VQTOK_DYNAMIC_SHARED(values);  // [chunk][kWidth], then [chunk] offsets
  float* offsets = values + chunk * kWidth;
  const int thread = static_cast<int>(threadIdx.x);
  const int first_code = static_cast<int>(blockIdx.y) * chunk;
  const int left = table.padded - first_code, count = left < chunk ? left : chunk;
  const float4* from = reinterpret_cast<const float4*>(table.values) +
                       static_cast<long long>(first_code) * (kWidth / 4);
  for (int i = thread; i < count * (kWidth / 4); i += kSmallThreads)
    reinterpret_cast<float4*>(values)[i] = from[i];
  for (int i = thread; i < count; i += kSmallThreads) offsets[i] = table.offsets[first_code + i];
  __syncthreads();

  constexpr long long kBlockRows = kRows * kSmallThreads;
  for (long long first_row = blockIdx.x * kBlockRows; first_row < x.rows;
       first_row += gridDim.x * kBlockRows) {
    float rows[kRows][kWidth];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const long long row = first_row + r * kSmallThreads + thread;
      load_narrow<kWidth>(x, row < x.rows ? row : x.rows - 1, rows[r]);
    }
    TopTwo top[kRows];  // of the best scores of groups, code being the group's first
#pragma unroll
    for (int r = 0; r < kRows; ++r) top[r] = TopTwo{-INFINITY, -INFINITY, 0};
    for (int group = 0; group < count; group += kGroup) {
      float best[kRows];
#pragma unroll
      for (int c = 0; c < kGroup; ++c) {
        const float* code = values + (group + c) * kWidth;
        const float offset = offsets[group + c];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const float score = score_code<kWidth>(rows[r], code, offset);
          best[r] = c == 0 ? score : fmaxf(best[r], score);
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) top[r].add(best[r], group);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      TopTwo found{-INFINITY, top[r].second, 0};
      for (int code = top[r].code; code < top[r].code + kGroup; ++code)
        found.add(score_code<kWidth>(rows[r], values + code * kWidth, offsets[code]),
                  first_code + code);
      const long long row = first_row + r * kSmallThreads + thread;
      if (row < x.rows) publish(result, row, found);
    }
  }
}

}  // namespace vqtok
