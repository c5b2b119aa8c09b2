// The CPU lookup against its definition: every instruction set, method, element type and thread
// count.
#include "cpu/codebook_cache.h"
#include "cpu/digest_kernel.h"
#include "cpu/isa.h"
#include "cpu/nearest.h"
#include "tests/check.h"

namespace vqtok {
namespace {

constexpr int kMethods = 5;

template <class T> std::vector<int64_t> definition(const Problem<T>& p, DType dtype) {
  std::vector<int64_t> codes(p.rows);
  std::vector<double> row(p.dim);
  for (int64_t n = 0; n < p.rows; ++n) {
    load_row(p.x_matrix(dtype), n, row.data());
    codes[n] = nearest_by_definition(row, p.code_matrix(dtype));
  }
  return codes;
}

template <class T> int64_t check_lookup(const Problem<T>& p, DType dtype, const char* what) {
  const std::vector<int64_t> want = definition(p, dtype);
  int count = 0;
  int64_t bad_row = -1;
  const Isa* isas = compiled_isas(&count);
  for (int i = 0; i < count; ++i) {
    if (!isas[i].supported()) continue;
    for (int run = 0; run < 2 * kMethods; ++run) {
      const int threads = run % 2 ? 3 : 1, method = run / 2;
      force_method(static_cast<Method>(method));
      std::vector<int64_t> codes(p.rows, -1);
      const PackedCodebook packed(p.code_matrix(dtype), threads);
      const bool lent = dtype == DType::f32 && threads > 1;  // the caller's codes, not a copy
      bad_row = nearest(packed, p.x_matrix(dtype), codes.data(), threads, *isas[i].nearest,
                        lent ? p.code_matrix(dtype).template row<float>(0) : nullptr);
      for (int64_t n = 0; n < p.rows; ++n)
        CHECK(codes[n] == want[n],
              "%s, %s, method %d, %d threads, K=%lld D=%lld: row %lld has %lld, want %lld", what,
              isas[i].name, method, threads, static_cast<long long>(p.size),
              static_cast<long long>(p.dim), static_cast<long long>(n),
              static_cast<long long>(codes[n]), static_cast<long long>(want[n]));
    }
  }
  return bad_row;
}

void test_shapes() {
  const int64_t shapes[][3] = {{0, 3, 4},     {1, 1, 1},    {33, 1, 4},     {31, 9, 4},
                               {100, 64, 8},  {50, 77, 3},  {65, 130, 37},  {64, 1000, 8},
                               {70, 3000, 64}, {7, 20, 1031}, {3, 9, 4096}};
  for (const auto& s : shapes) {
    check_lookup(hard_problem<float>(s[0], s[1], s[2], 1.0, 1), DType::f32, "float32");
    check_lookup(hard_problem<double>(s[0], s[1], s[2], 1.0, 2), DType::f64, "float64");
  }
}

void test_scales() {
  for (double scale : {1e-44, 1e-38, 1e-30, 1e-23, 1e-22, 3e-22, 1e-20, 1e10, 3e18, 1e19, 1e25, 1e37})
    check_lookup(hard_problem<float>(200, 90, 33, scale, 3), DType::f32, "float32 scale");
  for (double scale : {1e-320, 1e-200, 1e-40, 1e40, 1e150, 1e160, 1e307})
    check_lookup(hard_problem<double>(60, 90, 9, scale, 4), DType::f64, "float64 scale");
}

// Each term of the error bound alone: rows much longer than codes, codes than rows, and both ends.
void test_mixed_scales() {
  for (double row_scale : {1e-30, 1e-12, 1e-3, 0.1, 1e3, 1e6, 1e12, 1e30})
    for (double code_scale : {1e-25, 1e-6, 1.0, 1e5}) {
      auto p = hard_problem<float>(300, 90, 33, code_scale, 5);
      std::mt19937 random(6);
      std::normal_distribution<double> normal(0, row_scale);
      for (auto& v : p.x) v = static_cast<float>(normal(random));
      check_lookup(p, DType::f32, "mixed scales");
    }
}

// Codes of exactly one norm around tiny rows: only the rounding of the offset blurs the scores.
void test_equal_norms() {
  for (double row_scale : {1e-8, 1e-7, 1e-6, 1e-5}) {
    auto p = hard_problem<float>(300, 90, 33, row_scale, 9);
    std::mt19937 random(10);
    for (int64_t k = 0; k < p.size; ++k)
      for (int64_t d = 0; d < p.dim; ++d)
        p.codebook[k * p.dim + d] = (random() % 2 ? 0.1f : -0.1f) * static_cast<float>(1 + d);
    check_lookup(p, DType::f32, "equal norms");
  }
}

void test_one_sided_rounding() {
  for (int64_t dim : {100, 1024, 4096})
    check_lookup(one_sided_problem(dim), DType::f32, "one-sided rounding");
}

void test_bad_values() {
  auto p = hard_problem<float>(80, 50, 5, 1.0, 7);
  CHECK(check_lookup(p, DType::f32, "finite") == -1, "no bad row expected");
  p.x[40 * 5 + 1] = -INFINITY;
  p.x[9 * 5 + 4] = NAN;
  p.codebook[6 * 5] = NAN;
  CHECK(check_lookup(p, DType::f32, "NaN and Inf") == 9, "row 9 is the first bad one");
  const PackedCodebook packed(p.code_matrix(DType::f32), 1);
  CHECK(packed.first_bad_code == 6, "code %lld", static_cast<long long>(packed.first_bad_code));
  for (auto& v : p.codebook) v = INFINITY;
  check_lookup(p, DType::f32, "no usable code");
}

// More tiles within the error bound than one list of hits holds.
void test_all_codes_equal() {
  Problem<float> p{40, 9000, 2, std::vector<float>(80, 0.25f), std::vector<float>(18000, 0.5f)};
  check_lookup(p, DType::f32, "all codes equal");
}

std::shared_ptr<const PackedCodebook> packed(const Matrix& codebook) {
  return packed_codebook(codebook, 1, *choose_isa("").nearest->digest);
}

// One byte is enough to be another codebook; the same bytes elsewhere are the same one.
void test_cache() {
  auto p = hard_problem<float>(1, 50, 5, 1.0, 8);
  const auto first = packed(p.code_matrix(DType::f32));
  CHECK(packed(p.code_matrix(DType::f32)) == first, "%s", "the same codebook");
  const auto copy = p;
  CHECK(packed(copy.code_matrix(DType::f32)) == first, "%s", "an equal one");
  p.codebook[249] += 1;
  const auto second = packed(p.code_matrix(DType::f32));
  CHECK(second != first, "%s", "changed in place");
  CHECK(second->values[6 * 5 * 8 + 4 * 8 + 1] == p.codebook[249], "%s", "packed anew");
  Matrix strided = p.code_matrix(DType::f32);
  strided.rows = 25;
  strided.row_stride = 10;
  const auto third = packed(strided);
  CHECK(third->size == 25 && third->values[1] == p.codebook[10], "%s", "strided");
  CHECK(packed(strided) == third, "%s", "strided again");
  for (int i = 0; i < 200; ++i) {  // more than it keeps
    p.codebook[0] = static_cast<float>(i);
    const auto other = p;
    CHECK(packed(other.code_matrix(DType::f32))->values[0] == i, "codebook %d", i);
  }
}

}  // namespace
}  // namespace vqtok

int main() {
  vqtok::test_cache();
  vqtok::test_shapes();
  vqtok::test_scales();
  vqtok::test_mixed_scales();
  vqtok::test_equal_norms();
  vqtok::test_one_sided_rounding();
  vqtok::test_bad_values();
  vqtok::test_all_codes_equal();
  return 0;
}
