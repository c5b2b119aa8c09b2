// The host side of the lookup on a GPU. Also compiled as C++ by the tests, with emulated CUDA.
#include "cuda/nearest.h"

#include <stddef.h>

#include "cuda/nearest_kernels.cuh"

namespace vqtok {
namespace {

constexpr int kPrepareThreads = 128;
constexpr int64_t kSettleBlocks = 2048;

int64_t align(int64_t bytes) { return (bytes + 255) / 256 * 256; }

CudaWorkspace lay_out(void* memory, int64_t size, int64_t dim) {
  char* at = static_cast<char*>(memory);
  CudaWorkspace work;
  work.report = reinterpret_cast<CudaReport*>(at);
  work.values = reinterpret_cast<float*>(at += align(sizeof(CudaReport)));
  work.offsets = reinterpret_cast<float*>(at += align(size * dim * int64_t{sizeof(float)}));
  work.open_rows = reinterpret_cast<long long*>(at + align(size * int64_t{sizeof(float)}));
  return work;
}

unsigned blocks(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

// Makes a device current while in scope.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    error_ = cudaGetDevice(&previous_);
    if (error_ == cudaSuccess && device != previous_) error_ = cudaSetDevice(device);
  }
  ~DeviceScope() {
    if (error_ == cudaSuccess) cudaSetDevice(previous_);
  }
  cudaError_t error() const { return error_; }

 private:
  int previous_ = 0;
  cudaError_t error_;
};

const char* describe(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

int64_t nearest_cuda_workspace(int64_t rows, int64_t size, int64_t dim) {
  return align(sizeof(CudaReport)) + align(size * dim * int64_t{sizeof(float)}) +
         align(size * int64_t{sizeof(float)}) + align(rows * int64_t{sizeof(long long)});
}

const char* nearest_cuda(int device, void* stream_handle, const Matrix& x, const Matrix& codebook,
                         int64_t* codes, void* workspace) {
  const DeviceScope scope(device);
  if (scope.error() != cudaSuccess) return describe(scope.error());
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_handle);
  const CudaWorkspace work = lay_out(workspace, codebook.rows, codebook.dim);
  cudaMemsetAsync(work.report, 0, sizeof(CudaReport), stream);
  cudaMemsetAsync(work.report, 0x7f, offsetof(CudaReport, largest_squared_norm), stream);
  long long* out = reinterpret_cast<long long*>(codes);
  VQTOK_LAUNCH(prepare_codes, blocks(codebook.rows, kPrepareThreads / kWarp), kPrepareThreads,
               stream, codebook, work);
  if (x.rows > 0) {
    VQTOK_LAUNCH(scan_rows, blocks(x.rows, kBlockRows), kScanThreads, stream, x,
                 static_cast<int>(codebook.rows), work, out);
    const int64_t settlers = x.rows < kSettleBlocks ? x.rows : kSettleBlocks;
    VQTOK_LAUNCH(settle_rows, static_cast<unsigned>(settlers), kSettleThreads, stream, x, codebook,
                 work, out);
  }
  return describe(cudaGetLastError());
}

}  // namespace vqtok
