// EMA updates under emulated CUDA, bit for bit against a plain loop, in several schedules.
#define VQTOK_EMULATE_CUDA
#include "cuda/ema.cu"

#include "tests/check.h"

namespace vqtok {
namespace {

template <class T, class Sum> struct Update {
  std::vector<int64_t> counts;
  std::vector<Sum> sums;
  int64_t first_outside;
};

template <class T, class Sum>
Update<T, Sum> update(const Matrix& x, const std::vector<int64_t>& codes, int64_t size) {
  Update<T, Sum> result{std::vector<int64_t>(size, -1), std::vector<Sum>(size * x.dim, Sum(-1)), 0};
  std::vector<char> workspace(ema_cuda_workspace(x.rows, size), '\xcd');
  const char* error = ema_update_cuda(0, nullptr, x, codes.data(), size, result.counts.data(),
                                      result.sums.data(), workspace.data());
  CHECK(!error, "%s", error);
  memcpy(&result.first_outside, workspace.data(), sizeof result.first_outside);
  return result;
}

template <class T, class Sum>
void check_update(DType dtype, int64_t rows, int64_t size, int64_t dim, T (*draw)(std::mt19937&)) {
  std::mt19937 random(static_cast<unsigned>(rows + dim));
  const int64_t stride = dim + 3;
  std::vector<T> x;
  for (int64_t i = 0; i < rows * stride; ++i) x.push_back(draw(random));
  std::vector<int64_t> codes(rows);
  // one code with many rows, some with none
  for (auto& code : codes) code = random() % 3 ? static_cast<int64_t>(random() % size) : 0;
  std::vector<double> want(size * dim, 0.0);
  std::vector<int64_t> want_counts(size, 0);
  for (int64_t n = 0; n < rows; ++n) {
    ++want_counts[codes[n]];
    for (int64_t d = 0; d < dim; ++d) want[codes[n] * dim + d] += to_double(x[n * stride + d]);
  }
  for (unsigned seed : {0u, 1u, 7u}) {
    emulated_cuda::seed = seed;
    const auto result = update<T, Sum>({x.data(), dtype, rows, dim, stride}, codes, size);
    CHECK(result.first_outside == kNoneBad, "codes are in range");
    CHECK(result.counts == want_counts, "seed %u", seed);
    for (int64_t i = 0; i < size * dim; ++i)
      CHECK(result.sums[i] == static_cast<Sum>(want[i]), "seed %u, element %lld", seed,
            static_cast<long long>(i));
  }
}

void test_codes_outside() {
  const std::vector<float> x(500, 1.0f);
  std::vector<int64_t> codes(500, 2);
  codes[77] = -1;
  codes[400] = 4;
  codes[401] = int64_t{1} << 40;
  const auto result = update<float, float>({x.data(), DType::f32, 500, 1, 1}, codes, 4);
  CHECK(result.first_outside == 77, "row %lld", static_cast<long long>(result.first_outside));
  CHECK(result.counts[2] == 497 && result.sums[2] == 497, "the others count");
}

float draw_float(std::mt19937& r) { return std::normal_distribution<float>()(r); }
double draw_double(std::mt19937& r) { return std::normal_distribution<double>()(r); }
BFloat16 draw_bf16(std::mt19937& r) { return {static_cast<uint16_t>(r() & 0xbfff)}; }
Float16 draw_f16(std::mt19937& r) { return {static_cast<uint16_t>(r() & 0xbfff)}; }

}  // namespace
}  // namespace vqtok

int main() {
  using namespace vqtok;
  const int64_t shapes[][3] = {{0, 4, 3}, {5, 1, 1}, {1500, 40, 9}, {900, 700, 2}, {300, 2000, 1}};
  for (const auto& s : shapes) {
    check_update<float, float>(DType::f32, s[0], s[1], s[2], draw_float);
    check_update<double, double>(DType::f64, s[0], s[1], s[2], draw_double);
    check_update<BFloat16, float>(DType::bf16, s[0], s[1], s[2], draw_bf16);
    check_update<Float16, float>(DType::f16, s[0], s[1], s[2], draw_f16);
  }
  test_codes_outside();
  return 0;
}
