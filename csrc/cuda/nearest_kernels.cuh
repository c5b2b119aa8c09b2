// Device code of the lookup: no STL, so that it also runs under the emulation.
//
// prepare_codes -> scan_rows -> settle_rows. The scan tracks the best and the second best float32
// score of each row; a row whose two are closer than the error bound is left to settle_rows, which
// evaluates the definition in float64.
#pragma once
#include "common/dtype.h"
#include "common/error_bound.h"
#include "cuda/nearest.h"
#include "cuda/platform.h"

namespace vqtok {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr unsigned long long kInfinityBits = 0x7ff0000000000000ull;

// Where things lie in the workspace.
struct CudaWorkspace {
  CudaReport* report;
  float* values;         // [size][dim] the codebook as float32, 0 where a code is unusable
  float* offsets;        // [size] -|c|^2/2, -inf where a code is unusable
  long long* open_rows;  // [rows] those that the scan did not decide
};

__device__ inline double load_double(const Matrix& m, long long row, int d) {
  switch (m.dtype) {
    case DType::f64: return m.row<double>(row)[d];
    case DType::bf16: return to_double(m.row<BFloat16>(row)[d]);
    case DType::f16: return to_double(m.row<Float16>(row)[d]);
    default: return to_double(m.row<float>(row)[d]);
  }
}

__device__ inline float load_float(const Matrix& m, long long row, int d) {
  switch (m.dtype) {
    case DType::f64: return to_float(m.row<double>(row)[d]);
    case DType::bf16: return to_float(m.row<BFloat16>(row)[d]);
    case DType::f16: return to_float(m.row<Float16>(row)[d]);
    default: return m.row<float>(row)[d];
  }
}

// One warp per code.
__global__ void prepare_codes(Matrix codebook, CudaWorkspace work) {
  const int lane = threadIdx.x % kWarp;
  const long long code =
      static_cast<long long>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (code >= codebook.rows) return;  // the whole warp
  const int dim = static_cast<int>(codebook.dim);
  float* values = work.values + code * dim;
  double squared = 0;
  int finite = 1;
  for (int d = lane; d < dim; d += kWarp) {
    const double v = load_double(codebook, code, d);
    values[d] = load_float(codebook, code, d);
    finite &= isfinite(v) ? 1 : 0;
    squared += v * v;
  }
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    squared += __shfl_xor_sync(kAllLanes, squared, offset);
    finite &= __shfl_xor_sync(kAllLanes, finite, offset);
  }
  if (!finite)
    for (int d = lane; d < dim; d += kWarp) values[d] = 0.0f;
  if (lane != 0) return;
  work.offsets[code] = finite ? static_cast<float>(-0.5 * squared) : -INFINITY;
  if (finite)  // bits of non-negative floats sort like their values
    atomicMax(reinterpret_cast<unsigned long long*>(&work.report->largest_squared_norm),
              static_cast<unsigned long long>(__double_as_longlong(squared)));
  else
    atomicMin(reinterpret_cast<long long*>(&work.report->first_bad_code), code);
}

// The two highest scores among the codes seen, and the code of the highest.
struct TopTwo {
  float best, second;
  int code;

  __device__ void add(float score, int k) {
    if (score > best) {
      second = best;
      best = score;
      code = k;
    } else if (score > second) {
      second = score;
    }
  }

  __device__ void merge(TopTwo other) {
    const float low = best < other.best ? best : other.best;
    second = second > other.second ? second : other.second;
    second = second > low ? second : low;
    if (other.best > best) {
      best = other.best;
      code = other.code;
    }
  }
};

// A block scores kBlockRows rows against kBlockCodes codes at a time, kDepth dimensions at a time;
// a thread holds kThreadRows x kThreadCodes of the scores. The threads of a row share a warp.
constexpr int kBlockRows = 64, kBlockCodes = 64, kDepth = 16;
constexpr int kThreadRows = 8, kThreadCodes = 4;
constexpr int kCodeThreads = kBlockCodes / kThreadCodes;
constexpr int kScanThreads = kBlockRows / kThreadRows * kCodeThreads;
static_assert(kWarp % kCodeThreads == 0, "a row's threads must share a warp");

__global__ void __launch_bounds__(kScanThreads)
    scan_rows(Matrix x, int size, CudaWorkspace work, long long* codes) {
  __shared__ float x_tile[kDepth][kBlockRows];
  __shared__ float code_tile[kDepth][kBlockCodes];
  const int dim = static_cast<int>(x.dim);
  const int thread = threadIdx.x;
  const int code_group = thread % kCodeThreads, row_group = thread / kCodeThreads;
  const long long first_row = static_cast<long long>(blockIdx.x) * kBlockRows;

  TopTwo top[kThreadRows];
  float squared_norms[kThreadRows];
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    top[r] = TopTwo{-INFINITY, -INFINITY, 0};
    squared_norms[r] = 0.0f;
  }

  for (int first_code = 0; first_code < size; first_code += kBlockCodes) {
    float dots[kThreadRows][kThreadCodes] = {};
    for (int first_dim = 0; first_dim < dim; first_dim += kDepth) {
      __syncthreads();  // the previous tiles are read
      for (int i = thread; i < kBlockRows * kDepth; i += kScanThreads) {
        const int d = first_dim + i % kDepth;
        const long long row = first_row + i / kDepth;
        x_tile[i % kDepth][i / kDepth] = row < x.rows && d < dim ? load_float(x, row, d) : 0.0f;
      }
      for (int i = thread; i < kBlockCodes * kDepth; i += kScanThreads) {
        const int d = first_dim + i % kDepth, code = first_code + i / kDepth;
        code_tile[i % kDepth][i / kDepth] =
            code < size && d < dim ? work.values[static_cast<long long>(code) * dim + d] : 0.0f;
      }
      __syncthreads();
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        float row_values[kThreadRows];
#pragma unroll
        for (int r = 0; r < kThreadRows; ++r)
          row_values[r] = x_tile[d][row_group * kThreadRows + r];
        if (first_code == 0)
#pragma unroll
          for (int r = 0; r < kThreadRows; ++r)
            squared_norms[r] = fmaf(row_values[r], row_values[r], squared_norms[r]);
#pragma unroll
        for (int c = 0; c < kThreadCodes; ++c) {
          const float value = code_tile[d][code_group * kThreadCodes + c];
#pragma unroll
          for (int r = 0; r < kThreadRows; ++r)
            dots[r][c] = fmaf(row_values[r], value, dots[r][c]);
        }
      }
    }
#pragma unroll
    for (int c = 0; c < kThreadCodes; ++c) {
      const int code = first_code + code_group * kThreadCodes + c;
      if (code >= size) continue;
      const float offset = work.offsets[code];
#pragma unroll
      for (int r = 0; r < kThreadRows; ++r) top[r].add(dots[r][c] + offset, code);
    }
  }

  const ErrorBound bound = error_bound(
      dim, __longlong_as_double(static_cast<long long>(work.report->largest_squared_norm)));
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    for (int offset = kCodeThreads / 2; offset > 0; offset /= 2) {
      TopTwo other;
      other.best = __shfl_xor_sync(kAllLanes, top[r].best, offset);
      other.second = __shfl_xor_sync(kAllLanes, top[r].second, offset);
      other.code = __shfl_xor_sync(kAllLanes, top[r].code, offset);
      top[r].merge(other);
    }
    const long long row = first_row + row_group * kThreadRows + r;
    if (code_group != 0 || row >= x.rows) continue;
    if (squared_norms[r] <= bound.squared_norm_limit &&
        top[r].best - top[r].second > bound.margin(squared_norms[r])) {
      codes[row] = top[r].code;
    } else {
      const unsigned long long place =
          atomicAdd(reinterpret_cast<unsigned long long*>(&work.report->open_rows), 1ull);
      work.open_rows[place] = row;
    }
  }
}

// The lesser distance, then the lesser code. Bits of non-negative floats sort like their values.
struct Nearest {
  unsigned long long distance_bits;
  int code;

  __device__ void merge(Nearest other) {
    if (other.distance_bits < distance_bits ||
        (other.distance_bits == distance_bits && other.code < code))
      *this = other;
  }
};

constexpr int kSettleThreads = 128;

// One block per open row at a time; each thread takes every kSettleThreads-th code.
__global__ void __launch_bounds__(kSettleThreads)
    settle_rows(Matrix x, Matrix codebook, CudaWorkspace work, long long* codes) {
  __shared__ Nearest warps[kSettleThreads / kWarp];
  const int dim = static_cast<int>(x.dim), size = static_cast<int>(codebook.rows);
  const unsigned long long count = work.report->open_rows;
  for (unsigned long long i = blockIdx.x; i < count; i += gridDim.x) {
    const long long row = work.open_rows[i];
    for (int d = threadIdx.x; d < dim; d += kSettleThreads)
      if (!isfinite(load_double(x, row, d)))
        atomicMin(reinterpret_cast<long long*>(&work.report->first_bad_row), row);
    // what is not less than infinity, NaN included, never wins
    Nearest nearest{kInfinityBits, 0};
    for (int k = threadIdx.x; k < size; k += kSettleThreads) {
      double distance = 0;
      for (int d = 0; d < dim; ++d) {
        const double difference = __dsub_rn(load_double(x, row, d), load_double(codebook, k, d));
        distance = __dadd_rn(distance, __dmul_rn(difference, difference));
      }
      const unsigned long long bits = static_cast<unsigned long long>(__double_as_longlong(distance));
      if (bits < nearest.distance_bits) nearest = Nearest{bits, k};
    }
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      Nearest other;
      other.distance_bits = __shfl_xor_sync(kAllLanes, nearest.distance_bits, offset);
      other.code = __shfl_xor_sync(kAllLanes, nearest.code, offset);
      nearest.merge(other);
    }
    if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = nearest;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int w = 1; w < kSettleThreads / kWarp; ++w) nearest.merge(warps[w]);
      codes[row] = nearest.code;
    }
    __syncthreads();
  }
}

}  // namespace vqtok
