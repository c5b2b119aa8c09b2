// The steps of the lookup before and after a scan.
#pragma once
#include "cuda/nearest_common.cuh"

namespace vqtok {

constexpr int kPrepareThreads = 128;
constexpr int kDecideThreads = 128;
constexpr int kSettleThreads = 128;
constexpr unsigned long long kInfinityBits = 0x7ff0000000000000ull;

// One warp per code, padding included.
__global__ void __launch_bounds__(kPrepareThreads) prepare_codes(Matrix codebook, NearestWork work) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const long long code =
      static_cast<long long>(blockIdx.x) * (kPrepareThreads / kWarp) + threadIdx.x / kWarp;
  const CodeTable table = work.table;
  if (code >= table.padded) return;  // the whole warp
  const int dim = code < table.size ? static_cast<int>(codebook.dim) : 0;
  double squared = 0;
  int finite = 1;
  for (int d = lane; d < dim; d += kWarp) {
    const double v = load_double(codebook, code, d);
    finite &= isfinite(v) ? 1 : 0;
    squared += v * v;
  }
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    squared += __shfl_xor_sync(kAllLanes, squared, offset);
    finite &= __shfl_xor_sync(kAllLanes, finite, offset);
  }
  float* values = table.values + code * table.width;
  for (int d = lane; d < table.width; d += kWarp)
    values[d] = finite && d < dim ? load_float(codebook, code, d) : 0.0f;
  if (lane != 0) return;
  table.offsets[code] =
      finite && code < table.size ? static_cast<float>(-0.5 * squared) : -INFINITY;
  if (finite)  // bits of non-negative floats sort like their values
    atomicMax(reinterpret_cast<unsigned long long*>(&work.report->largest_squared_norm),
              static_cast<unsigned long long>(__double_as_longlong(squared)));
  else
    atomicMin(reinterpret_cast<long long*>(&work.report->first_bad_code), code);
}

__device__ inline ErrorBound bound_of(const NearestWork& work, const Matrix& x) {
  return scan_bound(
      work.table, static_cast<int>(x.dim),
      __longlong_as_double(static_cast<long long>(work.report->largest_squared_norm)));
}

constexpr int kLanesPerRow = 8;

// Replaces each row's key in `codes` by its code, or, if that is not certain, by the bits of the
// float32 score below which a code cannot be the nearest.
__global__ void __launch_bounds__(kDecideThreads)
    decide_rows(Matrix x, NearestWork work, long long* codes) {
  constexpr int kRowsPerBlock = kDecideThreads / kLanesPerRow;
  const int part = static_cast<int>(threadIdx.x) % kLanesPerRow;
  const ErrorBound bound = bound_of(work, x);
  const long long step = static_cast<long long>(gridDim.x) * kRowsPerBlock;
  for (long long first = static_cast<long long>(blockIdx.x) * kRowsPerBlock; first < x.rows;
       first += step) {
    const long long row = first + threadIdx.x / kLanesPerRow;
    float squared_norm = 0;
    if (row < x.rows)
      for (int d = part; d < x.dim; d += kLanesPerRow) {
        const float v = load_float(x, row, d);
        squared_norm = fmaf(v, v, squared_norm);
      }
    for (int offset = kLanesPerRow / 2; offset > 0; offset /= 2)
      squared_norm += __shfl_xor_sync(kAllLanes, squared_norm, offset);
    if (part != 0 || row >= x.rows) continue;
    const unsigned long long best = work.result.best[row];
    const float score = score_of(static_cast<unsigned>(best >> 32));
    const bool safe = squared_norm <= bound.squared_norm_limit;
    const float margin = safe ? bound.margin(squared_norm) : INFINITY;
    if (score - score_of(work.result.second[row]) > margin) {
      codes[row] = static_cast<long long>(best & 0xffffffffu);
    } else {
      const float threshold = safe ? score - margin : -INFINITY;
      codes[row] = static_cast<long long>(__float_as_uint(threshold));
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

__device__ inline double exact_distance(const Matrix& x, long long row, const Matrix& codebook,
                                        long long code) {
  double distance = 0;
  for (int d = 0; d < x.dim; ++d) {
    const double difference = __dsub_rn(load_double(x, row, d), load_double(codebook, code, d));
    distance = __dadd_rn(distance, __dmul_rn(difference, difference));
  }
  return distance;
}

// What a thread finds among every kSettleThreads-th code, with a score of its own, a float32 sum: the
// margin that the threshold was made with allows for its error, too (error_bound.h).
__device__ inline Nearest search_row(const Matrix& x, const Matrix& codebook,
                                     const CodeTable& table, long long row, float threshold) {
  // what is not less than infinity, NaN included, never wins
  Nearest nearest{kInfinityBits, 0};
  for (int k = static_cast<int>(threadIdx.x); k < table.size; k += kSettleThreads) {
    const float* values = table.values + static_cast<long long>(k) * table.width;
    float score = table.offsets[k];
    for (int d = 0; d < x.dim; ++d) score = fmaf(load_float(x, row, d), values[d], score);
    if (score < threshold) continue;
    const unsigned long long bits = static_cast<unsigned long long>(
        __double_as_longlong(exact_distance(x, row, codebook, k)));
    if (bits < nearest.distance_bits) nearest = Nearest{bits, k};
  }
  return nearest;
}

// One block per open row at a time.
__global__ void __launch_bounds__(kSettleThreads)
    settle_rows(Matrix x, Matrix codebook, NearestWork work, long long* codes) {
  __shared__ Nearest warps[kSettleThreads / kWarp];
  const unsigned long long count = work.report->open_rows;
  for (unsigned long long i = blockIdx.x; i < count; i += gridDim.x) {
    const long long row = work.open_rows[i];
    const float threshold = __uint_as_float(static_cast<unsigned>(codes[row]));
    for (int d = static_cast<int>(threadIdx.x); d < x.dim; d += kSettleThreads)
      if (!isfinite(load_double(x, row, d)))
        atomicMin(reinterpret_cast<long long*>(&work.report->first_bad_row), row);
    Nearest nearest = search_row(x, codebook, work.table, row, threshold);
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      Nearest other;
      other.distance_bits = __shfl_xor_sync(kAllLanes, nearest.distance_bits, offset);
      other.code = __shfl_xor_sync(kAllLanes, nearest.code, offset);
      nearest.merge(other);
    }
    if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = nearest;
    __syncthreads();  // also: every thread has read the threshold
    if (threadIdx.x == 0) {
      for (int w = 1; w < kSettleThreads / kWarp; ++w) nearest.merge(warps[w]);
      codes[row] = nearest.code;
    }
    __syncthreads();
  }
}

}  // namespace vqtok
