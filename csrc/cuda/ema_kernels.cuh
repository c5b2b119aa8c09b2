// A stable counting sort of the rows by code, then one sum per code and dimension, in float64 and
// by ascending row: every run, and the CPU, gives the same bits.
//
// count_codes -> offset_ranges -> start_codes -> place_rows -> sum_codes. The rows are cut into
// ranges; one warp has a range to itself, so that its rows are counted and placed in order.
#pragma once
#include "common/dtype.h"
#include "cuda/platform.h"

namespace vqtok {

constexpr int kEmaThreads = 128;
constexpr int kScanThreads = 512;
constexpr int kEmaWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

struct EmaWork {
  long long* first_outside;
  long long* starts;  // [size] where the rows of a code begin in `order`
  long long* order;   // [rows] rows by code
  int* offsets;       // [ranges][size] rows of a range with a code, then where they begin
  long long rows_per_range;
  int ranges;
  int size;
};

// The range of the calling warp; `first` >= rows if there is none.
struct Range {
  int index;
  long long first, last;
};

__device__ inline Range own_range(const EmaWork& work, long long rows) {
  Range range;
  range.index = static_cast<int>(blockIdx.x * (kEmaThreads / kEmaWarp) + threadIdx.x / kEmaWarp);
  range.first = range.index < work.ranges ? range.index * work.rows_per_range : rows;
  const long long last = range.first + work.rows_per_range;
  range.last = last < rows ? last : rows;
  return range;
}

__global__ void __launch_bounds__(kEmaThreads)
    count_codes(const long long* codes, long long rows, EmaWork work) {
  const Range range = own_range(work, rows);
  int* counts = work.offsets + static_cast<long long>(range.index) * work.size;
  for (long long row = range.first + threadIdx.x % kEmaWarp; row < range.last; row += kEmaWarp) {
    const long long code = codes[row];
    if (code >= 0 && code < work.size)
      atomicAdd(counts + code, 1);
    else
      atomicMin(work.first_outside, row);
  }
}

// Where the rows of each range begin among those of their code; how many rows a code has.
__global__ void __launch_bounds__(kEmaThreads) offset_ranges(EmaWork work, long long* counts) {
  const long long code = static_cast<long long>(blockIdx.x) * kEmaThreads + threadIdx.x;
  if (code >= work.size) return;
  long long total = 0;
  for (int range = 0; range < work.ranges; ++range) {
    int* offset = work.offsets + static_cast<long long>(range) * work.size + code;
    const int count = *offset;
    *offset = static_cast<int>(total);
    total += count;
  }
  counts[code] = total;
}

// starts[k] = counts[0] + ... + counts[k-1], by one block.
__global__ void __launch_bounds__(kScanThreads) start_codes(const long long* counts, EmaWork work) {
  __shared__ long long sums[2][kScanThreads];
  const int thread = static_cast<int>(threadIdx.x);
  long long before = 0;  // the codes of earlier rounds
  for (long long first = 0; first < work.size; first += kScanThreads) {
    const long long code = first + thread;
    const long long count = code < work.size ? counts[code] : 0;
    int now = 0;
    sums[now][thread] = count;
    __syncthreads();
    for (int reach = 1; reach < kScanThreads; reach *= 2) {
      sums[1 - now][thread] =
          sums[now][thread] + (thread >= reach ? sums[now][thread - reach] : 0);
      now = 1 - now;
      __syncthreads();
    }
    if (code < work.size) work.starts[code] = before + sums[now][thread] - count;
    before += sums[now][kScanThreads - 1];
    __syncthreads();  // the sums are no longer read
  }
}

// A warp places 32 rows at a time; those of the same code keep their order.
__global__ void __launch_bounds__(kEmaThreads)
    place_rows(const long long* codes, long long rows, EmaWork work) {
  const Range range = own_range(work, rows);
  const int lane = static_cast<int>(threadIdx.x) % kEmaWarp;
  int* offsets = work.offsets + static_cast<long long>(range.index) * work.size;
  for (long long first = range.first; first < range.last; first += kEmaWarp) {
    const long long row = first + lane;
    const long long code = row < range.last ? codes[row] : -1;
    const bool inside = code >= 0 && code < work.size;
    const unsigned equal = __match_any_sync(kWholeWarp, inside ? static_cast<int>(code) : -1);
    const int rank = __popc(equal & ((1u << lane) - 1));
    if (inside) work.order[work.starts[code] + offsets[code] + rank] = row;
    __syncwarp();  // the offsets are read
    if (inside && rank == 0) offsets[code] += __popc(equal);
    __syncwarp();
  }
}

template <class T> struct SumType {
  using Type = float;
};
template <> struct SumType<double> {
  using Type = double;
};

// One thread per code and dimension.
template <class T>
__global__ void __launch_bounds__(kEmaThreads)
    sum_codes(Matrix x, const long long* counts, EmaWork work, typename SumType<T>::Type* sums) {
  constexpr int kAhead = 8;  // rows lie anywhere: that many are fetched at once
  const long long elements = work.size * x.dim;
  const long long step = static_cast<long long>(gridDim.x) * kEmaThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kEmaThreads + threadIdx.x; i < elements;
       i += step) {
    const long long code = i / x.dim, d = i % x.dim;
    const long long* order = work.order + work.starts[code];
    const long long count = counts[code];
    double sum = 0;
    long long n = 0;
    for (; n + kAhead <= count; n += kAhead) {
      double values[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) values[j] = to_double(x.row<T>(order[n + j])[d]);
#pragma unroll
      for (int j = 0; j < kAhead; ++j) sum += values[j];
    }
    for (; n < count; ++n) sum += to_double(x.row<T>(order[n])[d]);
    sums[i] = static_cast<typename SumType<T>::Type>(sum);
  }
}

}  // namespace vqtok
