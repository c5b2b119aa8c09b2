// The host side of EMA updates on a GPU. Also compiled as C++ by the tests, with emulated CUDA.
#include "cuda/ema.h"

#include <algorithm>

#include "cuda/ema_kernels.cuh"
#include "cuda/host.h"

namespace vqtok {
namespace {

constexpr int64_t kFewestRows = 256;  // worth a range of their own
constexpr int64_t kMostRanges = 1024;
constexpr int64_t kSumBlocks = 1 << 20;

// More ranges sort faster, but take more memory: about as much as the order of the rows.
EmaWork lay_out(Layout& layout, int64_t rows, int64_t size) {
  EmaWork work{};
  const int64_t affordable = std::max<int64_t>(1, 4 * rows / size);
  const int64_t most = std::min(kMostRanges, affordable);
  work.rows_per_range = std::max(kFewestRows, ceil_divide(rows, most));
  work.ranges = static_cast<int>(std::max<int64_t>(1, ceil_divide(rows, work.rows_per_range)));
  work.size = static_cast<int>(size);
  work.first_outside = layout.take<long long>(1);
  work.starts = layout.take<long long>(size);
  work.order = layout.take<long long>(rows);
  work.offsets = layout.take<int>(work.ranges * size);
  return work;
}

template <class T>
void launch_sums(const Matrix& x, const EmaWork& work, const long long* counts, void* out,
                 cudaStream_t stream) {
  auto* sums = static_cast<typename SumType<T>::Type*>(out);
  const int64_t blocks = ceil_divide(work.size * x.dim, kEmaThreads);
  VQTOK_LAUNCH(sum_codes<T>, static_cast<unsigned>(std::min(kSumBlocks, blocks)), kEmaThreads, 0,
               stream, x, counts, work, sums);
}

}  // namespace

int64_t ema_cuda_workspace(int64_t rows, int64_t size) {
  Layout layout(nullptr);
  lay_out(layout, rows, size);
  return layout.bytes();
}

const char* ema_update_cuda(int device, void* stream_handle, const Matrix& x, const int64_t* codes,
                            int64_t size, int64_t* counts, void* sums, void* workspace) {
  if (size >= int64_t{1} << 31 || x.rows >= int64_t{1} << 31)
    return "an EMA update takes fewer than 2^31 rows and codes on a GPU";
  const DeviceScope scope(device);
  if (scope.error() != cudaSuccess) return describe(scope.error());
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
  Layout layout(workspace);
  const EmaWork work = lay_out(layout, x.rows, size);
  const auto* in = reinterpret_cast<const long long*>(codes);
  auto* totals = reinterpret_cast<long long*>(counts);
  const auto blocks = [](int64_t items) {
    return static_cast<unsigned>(ceil_divide(items, kEmaThreads));
  };
  const unsigned warps = blocks(int64_t{work.ranges} * kEmaWarp);
  cudaMemsetAsync(work.first_outside, 0x7f, sizeof *work.first_outside, stream);
  cudaMemsetAsync(work.offsets, 0, sizeof *work.offsets * work.ranges * size, stream);
  VQTOK_LAUNCH(count_codes, warps, kEmaThreads, 0, stream, in, x.rows, work);
  VQTOK_LAUNCH(offset_ranges, blocks(size), kEmaThreads, 0, stream, work, totals);
  VQTOK_LAUNCH(start_codes, 1, kScanThreads, 0, stream, totals, work);
  VQTOK_LAUNCH(place_rows, warps, kEmaThreads, 0, stream, in, x.rows, work);
  if (x.dim > 0) switch (x.dtype) {
      case DType::f64: launch_sums<double>(x, work, totals, sums, stream); break;
      case DType::bf16: launch_sums<BFloat16>(x, work, totals, sums, stream); break;
      case DType::f16: launch_sums<Float16>(x, work, totals, sums, stream); break;
      default: launch_sums<float>(x, work, totals, sums, stream);
    }
  return describe(cudaGetLastError());
}

}  // namespace vqtok
