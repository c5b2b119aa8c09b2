// The CUDA lookup under emulation, against its definition, in several schedules.
#define VQTOK_EMULATE_CUDA
#include "cuda/nearest.cu"

#include <set>

#include "tests/check.h"

namespace vqtok {
namespace {

struct Lookup {
  std::vector<int64_t> codes;
  CudaReport report;
};

Lookup look_up(const Matrix& x, const Matrix& codebook) {
  Lookup lookup;
  lookup.codes.assign(x.rows, -1);
  std::vector<char> workspace(nearest_cuda_workspace(x.rows, codebook.rows, codebook.dim), '\xcd');
  const char* error = nearest_cuda(0, nullptr, x, codebook, lookup.codes.data(), workspace.data());
  CHECK(!error, "%s", error);
  memcpy(&lookup.report, workspace.data(), sizeof lookup.report);
  return lookup;
}

// Returns the report of the last run.
template <class T>
CudaReport check_lookup(const Problem<T>& p, DType dtype, const char* what,
                        std::set<unsigned> seeds = {7}) {
  const Matrix x = p.x_matrix(dtype), codebook = p.code_matrix(dtype);
  std::vector<int64_t> want(p.rows);
  std::vector<double> row(p.dim);
  for (int64_t n = 0; n < p.rows; ++n) {
    load_row(x, n, row.data());
    want[n] = nearest_by_definition(row, codebook);
  }
  CudaReport report{};
  for (unsigned seed : seeds) {
    emulated_cuda::seed = seed;
    const Lookup found = look_up(x, codebook);
    report = found.report;
    for (int64_t n = 0; n < p.rows; ++n)
      CHECK(found.codes[n] == want[n], "%s, seed %u, K=%lld D=%lld: row %lld has %lld, want %lld",
            what, seed, static_cast<long long>(p.size), static_cast<long long>(p.dim),
            static_cast<long long>(n), static_cast<long long>(found.codes[n]),
            static_cast<long long>(want[n]));
  }
  return report;
}

void test_shapes() {
  // every width of the small scan, and of the wide one: one and several tiles, chunks and steps
  const int64_t shapes[][3] = {{0, 5, 3},    {1, 1, 1},     {63, 65, 4},  {300, 600, 7},
                               {70, 300, 8}, {130, 200, 16}, {1, 1, 17},   {140, 130, 37},
                               {40, 300, 60}, {2, 5, 203}};
  for (const auto& s : shapes) {
    check_lookup(hard_problem<float>(s[0], s[1], s[2], 1.0, 3), DType::f32, "float32", {0, 1, 7});
    check_lookup(hard_problem<double>(s[0], s[1], s[2], 1.0, 4), DType::f64, "float64");
  }
}

void test_one_sided_rounding() {
  for (int64_t dim : {64, 1024, 4096})
    check_lookup(one_sided_problem(dim), DType::f32, "one-sided rounding");
}

Problem<float> gaussian(int64_t rows, int64_t size, int64_t dim) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  Problem<float> p{rows, size, dim, std::vector<float>(rows * dim), std::vector<float>(size * dim)};
  for (auto& v : p.x) v = normal(random);
  for (auto& v : p.codebook) v = normal(random);
  return p;
}

// Few multiprocessors loop over rows; many share out the codes.
void test_grids() {
  for (int multiprocessors : {1, 9}) {
    emulated_cuda::multiprocessors = multiprocessors;
    check_lookup(gaussian(5000, 130, 3), DType::f32, "small", {1, 7});
    check_lookup(gaussian(300, 300, 24), DType::f32, "wide", {1, 7});
  }
  emulated_cuda::multiprocessors = 2;
}

// Rows that lie apart, or start where no 16-byte copy can.
void test_strides() {
  for (int64_t dim : {6, 20})
    for (int64_t stride : {24, 25})
      for (int64_t start : {0, 1, 4}) {
        const auto p = hard_problem<float>(40, 70, dim, 1.0, 31);
        std::vector<float> x(start + (p.rows - 1) * stride + dim, NAN);
        for (int64_t n = 0; n < p.rows; ++n)
          std::copy_n(&p.x[n * dim], dim, &x[start + n * stride]);
        const Matrix strided{x.data() + start, DType::f32, p.rows, dim, stride};
        const Lookup found = look_up(strided, p.code_matrix(DType::f32));
        const Lookup want = look_up(p.x_matrix(DType::f32), p.code_matrix(DType::f32));
        CHECK(found.codes == want.codes, "dim %d, stride %d, start %d", static_cast<int>(dim),
              static_cast<int>(stride), static_cast<int>(start));
      }
}

void test_half_types() {
  for (int64_t dim : {12, 40}) {
    const int64_t rows = 70, size = 50;
    Problem<BFloat16> b{rows, size, dim, {}, {}};
    Problem<Float16> h{rows, size, dim, {}, {}};
    std::mt19937 random(6);
    for (int64_t i = 0; i < rows * dim; ++i) {  // any finite bit pattern of small exponent
      b.x.push_back({static_cast<uint16_t>((random() & 0x80ff) | 0x3f00)});
      h.x.push_back({static_cast<uint16_t>(random() & 0xbfff)});
    }
    for (int64_t i = 0; i < size * dim; ++i) {
      b.codebook.push_back({static_cast<uint16_t>((random() & 0x80ff) | 0x3f00)});
      h.codebook.push_back({static_cast<uint16_t>(random() & 0xbfff)});
    }
    check_lookup(b, DType::bf16, "bfloat16");
    check_lookup(h, DType::f16, "float16");
  }
}

void test_scales() {
  for (int64_t dim : {9, 33}) {
    for (double scale : {1e-42, 1e-30, 1e-20, 1e-18, 1e18, 1e20, 1e35})
      check_lookup(hard_problem<float>(40, 70, dim, scale, 8), DType::f32, "float32 scale");
    for (double scale : {1e-310, 1e-42, 1e45, 1e150, 1e200, 1e306})
      check_lookup(hard_problem<double>(40, 70, dim, scale, 9), DType::f64, "float64 scale");
  }
}

// The bound holds for the worst tensor cores that it was derived for, and is needed: many rows have
// codes whose scores the errors reorder.
void test_tensor_errors() {
  emulated_cuda::tensor_error = kTensorError;
  for (double distance : {1e-6, 1e-5, 1e-4}) {
    auto p = hard_problem<float>(120, 128, 64, 1.0, 12);
    std::mt19937 random(13);
    std::normal_distribution<double> normal(0, distance);
    for (int64_t k = 1; k < p.size; ++k)  // all codes nearly the same
      for (int64_t d = 0; d < p.dim; ++d)
        p.codebook[k * p.dim + d] = static_cast<float>(p.codebook[d] + normal(random));
    check_lookup(p, DType::f32, "tensor-core errors");
  }
  // one large product in every score, of rows much longer than codes: the errors are at their largest
  for (double distance : {3e-4, 1e-3, 3e-3}) {
    auto p = gaussian(120, 128, 64);
    for (auto& v : p.x) v *= 0.1f;
    for (auto& v : p.codebook) v *= static_cast<float>(distance);
    for (int64_t n = 0; n < p.rows; ++n) p.x[n * p.dim] = 1000.0f;
    for (int64_t k = 0; k < p.size; ++k) p.codebook[k * p.dim] = 1.0f;
    check_lookup(p, DType::f32, "tensor-core errors of long rows");
  }
  emulated_cuda::tensor_error = 0;
}

void test_bad_values() {
  for (int64_t dim : {5, 36}) {
    auto p = hard_problem<float>(50, 40, dim, 1.0, 10);
    CudaReport report = check_lookup(p, DType::f32, "finite");
    CHECK(report.first_bad_row == kNoneBad && report.first_bad_code == kNoneBad, "finite input");
    p.x[7 * dim + 2] = NAN;
    p.x[31 * dim] = INFINITY;
    p.codebook[3 * dim + 4] = -INFINITY;
    report = check_lookup(p, DType::f32, "NaN and Inf", {0, 1, 7});
    CHECK(report.first_bad_row == 7, "row %lld", static_cast<long long>(report.first_bad_row));
    CHECK(report.first_bad_code == 3, "code %lld", static_cast<long long>(report.first_bad_code));
    for (auto& v : p.codebook) v = NAN;
    check_lookup(p, DType::f32, "no usable code");
  }
}

void test_scan_decides_most_rows() {
  for (int64_t dim : {8, 64, 256}) {
    const CudaReport report = check_lookup(gaussian(130, 100, dim), DType::f32, "gaussian");
    CHECK(report.open_rows <= 3, "%llu rows", static_cast<unsigned long long>(report.open_rows));
  }
}

// Keys sort like scores, and give them back.
void test_keys() {
  const float scores[] = {INFINITY, 1e30f, 2, 1, 1e-40f, 0.0f, -1e-40f, -1, -2, -1e30f, -INFINITY};
  for (size_t i = 0; i < sizeof scores / sizeof *scores; ++i) {
    CHECK(score_of(key_of(scores[i])) == scores[i], "score %g", static_cast<double>(scores[i]));
    if (i > 0) CHECK(key_of(scores[i - 1]) < key_of(scores[i]), "order at %zu", i);
  }
}

}  // namespace
}  // namespace vqtok

int main() {
  vqtok::test_keys();
  vqtok::test_shapes();
  vqtok::test_grids();
  vqtok::test_strides();
  vqtok::test_half_types();
  vqtok::test_scales();
  vqtok::test_tensor_errors();
  vqtok::test_one_sided_rounding();
  vqtok::test_bad_values();
  vqtok::test_scan_decides_most_rows();
  return 0;
}
