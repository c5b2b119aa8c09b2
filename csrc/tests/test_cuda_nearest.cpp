// The CUDA lookup under emulation, against its definition, in several schedules.
#define VQTOK_EMULATE_CUDA
#include "cuda/nearest.cu"

#include "tests/check.h"

namespace vqtok {
namespace {

__global__ void reverse_through_shared(int* values, int threads, int synchronise) {
  __shared__ int copy[64];
  copy[threadIdx.x] = values[threadIdx.x];
  if (synchronise) __syncthreads();
  values[threadIdx.x] = copy[threads - 1 - static_cast<int>(threadIdx.x)];
}

// The emulator must show a missing barrier, or these tests prove little.
void test_emulator_shows_missing_barrier() {
  for (int synchronise = 0; synchronise < 2; ++synchronise) {
    int wrong = 0;
    std::vector<int> values(64);
    for (int i = 0; i < 64; ++i) values[i] = i;
    int* data = values.data();
    VQTOK_LAUNCH(reverse_through_shared, 1, 64, nullptr, data, 64, synchronise);
    for (int i = 0; i < 64; ++i) wrong += values[i] != 63 - i;
    CHECK((wrong == 0) == (synchronise == 1), "%d wrong, synchronise=%d", wrong, synchronise);
  }
}

template <class T> CudaReport check_lookup(const Problem<T>& p, DType dtype, const char* what) {
  const Matrix x = p.x_matrix(dtype), codebook = p.code_matrix(dtype);
  std::vector<int64_t> codes(p.rows, -1);
  std::vector<char> workspace(nearest_cuda_workspace(p.rows, p.size, p.dim), '\xcd');
  const char* error = nearest_cuda(0, nullptr, x, codebook, codes.data(), workspace.data());
  CHECK(!error, "%s", error);
  std::vector<double> row(p.dim);
  for (int64_t n = 0; n < p.rows; ++n) {
    load_row(x, n, row.data());
    const int64_t want = nearest_by_definition(row, codebook);
    CHECK(codes[n] == want, "%s: row %lld has code %lld, want %lld", what,
          static_cast<long long>(n), static_cast<long long>(codes[n]),
          static_cast<long long>(want));
  }
  CudaReport report;
  memcpy(&report, workspace.data(), sizeof report);
  return report;
}

void test_shapes() {
  const int64_t shapes[][3] = {{1, 1, 1},    {0, 5, 3},    {63, 65, 4}, {130, 200, 16},
                               {65, 300, 37}, {70, 64, 100}};
  for (unsigned seed : {0u, 1u, 7u}) {
    emulated_cuda::seed = seed;
    for (const auto& s : shapes) {
      check_lookup(hard_problem<float>(s[0], s[1], s[2], 1.0, 3), DType::f32, "float32");
      check_lookup(hard_problem<double>(s[0], s[1], s[2], 1.0, 4), DType::f64, "float64");
    }
  }
  emulated_cuda::seed = 0;
}

void test_half_types() {
  auto p = hard_problem<float>(70, 50, 12, 1.0, 5);
  Problem<BFloat16> b{p.rows, p.size, p.dim, {}, {}};
  Problem<Float16> h{p.rows, p.size, p.dim, {}, {}};
  std::mt19937 random(6);
  for (size_t i = 0; i < p.x.size(); ++i) {  // any finite bit pattern of small exponent
    b.x.push_back({static_cast<uint16_t>((random() & 0x80ff) | 0x3f00)});
    h.x.push_back({static_cast<uint16_t>(random() & 0xbfff)});
  }
  for (size_t i = 0; i < p.codebook.size(); ++i) {
    b.codebook.push_back({static_cast<uint16_t>((random() & 0x80ff) | 0x3f00)});
    h.codebook.push_back({static_cast<uint16_t>(random() & 0xbfff)});
  }
  check_lookup(b, DType::bf16, "bfloat16");
  check_lookup(h, DType::f16, "float16");
}

void test_scales() {
  for (double scale : {1e-42, 1e-30, 1e-20, 1e15, 1e18, 1e20, 1e35})
    check_lookup(hard_problem<float>(40, 70, 9, scale, 8), DType::f32, "float32 scale");
  for (double scale : {1e-310, 1e-160, 1e150, 1e200, 1e306})
    check_lookup(hard_problem<double>(40, 70, 9, scale, 9), DType::f64, "float64 scale");
}

void test_bad_values() {
  auto p = hard_problem<float>(50, 40, 5, 1.0, 10);
  CudaReport report = check_lookup(p, DType::f32, "finite");
  CHECK(report.first_bad_row == kNoneBad && report.first_bad_code == kNoneBad, "finite input");
  p.x[7 * 5 + 2] = NAN;
  p.x[31 * 5] = INFINITY;
  p.codebook[3 * 5 + 4] = -INFINITY;
  report = check_lookup(p, DType::f32, "NaN and Inf");
  CHECK(report.first_bad_row == 7, "row %lld", static_cast<long long>(report.first_bad_row));
  CHECK(report.first_bad_code == 3, "code %lld", static_cast<long long>(report.first_bad_code));
  for (auto& v : p.codebook) v = NAN;
  check_lookup(p, DType::f32, "no usable code");
}

void test_scan_decides_most_rows() {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  Problem<float> p{300, 100, 16, std::vector<float>(300 * 16), std::vector<float>(100 * 16)};
  for (auto& v : p.x) v = normal(random);
  for (auto& v : p.codebook) v = normal(random);
  const CudaReport report = check_lookup(p, DType::f32, "gaussian");
  CHECK(report.open_rows <= 3, "%llu rows", static_cast<unsigned long long>(report.open_rows));
}

}  // namespace
}  // namespace vqtok

int main() {
  vqtok::test_emulator_shows_missing_barrier();
  vqtok::test_shapes();
  vqtok::test_half_types();
  vqtok::test_scales();
  vqtok::test_bad_values();
  vqtok::test_scan_decides_most_rows();
  return 0;
}
