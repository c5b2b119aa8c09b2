// The host side of the lookup on a GPU. Also compiled as C++ by the tests, with emulated CUDA.
#include "cuda/nearest.h"

#include <stddef.h>

#include <algorithm>

#include "cuda/host.h"
#include "cuda/nearest_kernels.cuh"
#include "cuda/nearest_small.cuh"
#include "cuda/nearest_wide.cuh"

namespace vqtok {
namespace {

constexpr int64_t kSmallShared = 64 << 10;  // bytes of codebook in a block: two blocks fit beside
constexpr int64_t kWavesOfBlocks = 2;       // blocks per multiprocessor that keep it busy
constexpr int64_t kFewestCodes = 64;        // worth a block of their own
constexpr int64_t kMostBlocks = 1 << 20;    // in x; the rest are looped over
constexpr int64_t kMostCodes = 1 << 27;     // what the other dimension of a grid has room for

CodeTable table_for(int64_t size, int64_t dim) {
  CodeTable table{};
  table.size = static_cast<int>(size);
  table.wide = dim > kSmallWidth;
  table.width = static_cast<int>(table.wide ? ceil_divide(dim, kDepth) * kDepth
                                 : dim > 8  ? 16
                                 : dim > 4  ? 8
                                            : 4);
  const int64_t group = table.wide ? kTileCodes : kGroup;
  table.padded = static_cast<int>(ceil_divide(size, group) * group);
  return table;
}

// The report comes first.
NearestWork lay_out(Layout& layout, int64_t rows, int64_t size, int64_t dim) {
  NearestWork work{};
  work.report = layout.take<CudaReport>(1);
  work.table = table_for(size, dim);
  work.table.values = layout.take<float>(int64_t{work.table.padded} * work.table.width);
  work.table.offsets = layout.take<float>(work.table.padded);
  work.result.second = layout.take<unsigned>(rows);
  work.open_rows = layout.take<long long>(rows);
  return work;
}

unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>(std::min(kMostBlocks, ceil_divide(items, per_block)));
}

// Into how many parts to cut `most` pieces of the codebook, so that every multiprocessor has work.
int64_t parts_of(int64_t most, int64_t row_tiles, int multiprocessors) {
  return std::clamp<int64_t>(kWavesOfBlocks * multiprocessors / row_tiles, 1, most);
}

// As many blocks as keep every multiprocessor busy; they loop over the rows.
dim3 grid_for(int64_t row_tiles, int64_t parts, int multiprocessors) {
  const int64_t busy = std::max<int64_t>(1, kWavesOfBlocks * multiprocessors / parts);
  return dim3(static_cast<unsigned>(std::min(row_tiles, busy)), static_cast<unsigned>(parts));
}

template <int kWidth>
cudaError_t launch_small(const Matrix& x, const NearestWork& work, int multiprocessors,
                         cudaStream_t stream) {
  const CodeTable& table = work.table;
  constexpr int64_t kBytesPerCode = (kWidth + 1) * sizeof(float);
  const int64_t row_tiles = ceil_divide(x.rows, kSmallRows<kWidth> * kSmallThreads);
  const int64_t parts =
      std::max(parts_of(ceil_divide(table.padded, kFewestCodes), row_tiles, multiprocessors),
               ceil_divide(table.padded * kBytesPerCode, kSmallShared - kGroup * kBytesPerCode));
  const int chunk = static_cast<int>(ceil_divide(ceil_divide(table.padded, parts), kGroup) * kGroup);
  const int64_t shared = chunk * kBytesPerCode;
  const cudaError_t error = cudaFuncSetAttribute(
      scan_small<kWidth>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  if (error != cudaSuccess) return error;
  const dim3 grid = grid_for(row_tiles, ceil_divide(table.padded, chunk), multiprocessors);
  VQTOK_LAUNCH(scan_small<kWidth>, grid, kSmallThreads, static_cast<size_t>(shared), stream, x,
               table, chunk, work.result);
  return cudaSuccess;
}

cudaError_t launch_wide(const Matrix& x, const NearestWork& work, int multiprocessors,
                        cudaStream_t stream) {
  constexpr int kShared = kStages * static_cast<int>(sizeof(WideStage));
  const cudaError_t error =
      cudaFuncSetAttribute(scan_wide, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  const bool copy_rows = x.dtype == DType::f32 && x.dim % 4 == 0 && x.row_stride % 4 == 0 &&
                         reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  const int64_t row_tiles = ceil_divide(x.rows, kTileRows);
  const int64_t parts = parts_of(work.table.padded / kTileCodes, row_tiles, multiprocessors);
  const dim3 grid = grid_for(row_tiles, parts, multiprocessors);
  VQTOK_LAUNCH(scan_wide, grid, kWideThreads, size_t{kShared}, stream, x, work.table, copy_rows,
               work.result);
  return cudaSuccess;
}

cudaError_t launch_scan(const Matrix& x, const NearestWork& work, int device,
                        cudaStream_t stream) {
  int multiprocessors = 1;
  const cudaError_t error =
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  if (work.table.wide) return launch_wide(x, work, multiprocessors, stream);
  switch (work.table.width) {
    case 4: return launch_small<4>(x, work, multiprocessors, stream);
    case 8: return launch_small<8>(x, work, multiprocessors, stream);
    default: return launch_small<16>(x, work, multiprocessors, stream);
  }
}

}  // namespace

int64_t nearest_cuda_workspace(int64_t rows, int64_t size, int64_t dim) {
  Layout layout(nullptr);
  lay_out(layout, rows, size, dim);
  return layout.bytes();
}

const char* nearest_cuda(int device, void* stream_handle, const Matrix& x, const Matrix& codebook,
                         int64_t* codes, void* workspace) {
  if (codebook.rows > kMostCodes) return "a codebook may have at most 2^27 codes on a GPU";
  const DeviceScope scope(device);
  if (scope.error() != cudaSuccess) return describe(scope.error());
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
  Layout layout(workspace);
  NearestWork work = lay_out(layout, x.rows, codebook.rows, codebook.dim);
  work.result.best = reinterpret_cast<unsigned long long*>(codes);
  cudaMemsetAsync(work.report, 0, sizeof(CudaReport), stream);
  cudaMemsetAsync(work.report, 0x7f, offsetof(CudaReport, largest_squared_norm), stream);
  VQTOK_LAUNCH(prepare_codes,
               static_cast<unsigned>(ceil_divide(work.table.padded, kPrepareThreads / kWarp)),
               kPrepareThreads, 0, stream, codebook, work);
  if (x.rows > 0) {
    const size_t rows = static_cast<size_t>(x.rows);
    long long* out = reinterpret_cast<long long*>(codes);
    cudaMemsetAsync(work.result.best, 0xff, rows * sizeof *work.result.best, stream);
    cudaMemsetAsync(work.result.second, 0xff, rows * sizeof *work.result.second, stream);
    const cudaError_t error = launch_scan(x, work, device, stream);
    if (error != cudaSuccess) return describe(error);
    VQTOK_LAUNCH(decide_rows, blocks_for(x.rows, kDecideThreads / kLanesPerRow), kDecideThreads, 0,
                 stream, x, work, out);
    VQTOK_LAUNCH(settle_rows, static_cast<unsigned>(std::min<int64_t>(x.rows, 2048)),
                 kSettleThreads, 0, stream, x, codebook, work, out);
  }
  return describe(cudaGetLastError());
}

}  // namespace vqtok
