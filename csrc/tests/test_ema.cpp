// Counts and sums against a plain loop, bit for bit, for every element type and thread count.
#include "cpu/ema.h"

#include "cpu/isa.h"
#include "tests/check.h"

namespace vqtok {
namespace {

template <class T, class Sum>
void check_update(DType dtype, int64_t rows, int64_t size, int64_t dim, T (*draw)(std::mt19937&)) {
  std::mt19937 random(static_cast<unsigned>(rows + dim));
  std::vector<T> x;
  for (int64_t i = 0; i < rows * dim; ++i) x.push_back(draw(random));
  std::vector<int64_t> codes(rows);
  for (auto& code : codes) code = static_cast<int64_t>(random() % size);
  std::vector<double> want(size * dim, 0.0);
  std::vector<int64_t> want_counts(size, 0);
  for (int64_t n = 0; n < rows; ++n) {
    ++want_counts[codes[n]];
    for (int64_t d = 0; d < dim; ++d) want[codes[n] * dim + d] += to_double(x[n * dim + d]);
  }
  int isas = 0;
  const Isa* all = compiled_isas(&isas);
  for (int run = 0; run < 3 * isas; ++run) {
    const Isa& isa = all[run / 3];
    if (!isa.supported()) continue;
    const int threads = 1 + run % 3 * 2;
    std::vector<int64_t> counts(size, -1);
    std::vector<Sum> sums(size * dim, Sum(-1));
    const Matrix matrix{x.data(), dtype, rows, dim, dim};
    CHECK(ema_update(matrix, codes.data(), size, counts.data(), sums.data(), threads,
                     *isa.ema) == -1,
          "codes are in range");
    CHECK(counts == want_counts, "%s, %d threads", isa.name, threads);
    for (int64_t i = 0; i < size * dim; ++i)
      CHECK(sums[i] == static_cast<Sum>(want[i]), "%s, %d threads, element %lld", isa.name,
            threads, static_cast<long long>(i));
  }
}

float draw_float(std::mt19937& r) { return std::normal_distribution<float>()(r); }
double draw_double(std::mt19937& r) { return std::normal_distribution<double>()(r); }
BFloat16 draw_bf16(std::mt19937& r) { return {static_cast<uint16_t>(r() & 0xbfff)}; }
Float16 draw_f16(std::mt19937& r) { return {static_cast<uint16_t>(r() & 0xbfff)}; }

}  // namespace
}  // namespace vqtok

int main() {
  using namespace vqtok;
  const int64_t shapes[][3] = {{0, 4, 3},      {6, 3, 0},      {5, 1, 1},    {3000, 40, 64},
                               {2000, 130, 70}, {900, 7, 200}, {90, 700, 21}};
  for (const auto& s : shapes) {
    check_update<float, float>(DType::f32, s[0], s[1], s[2], draw_float);
    check_update<double, double>(DType::f64, s[0], s[1], s[2], draw_double);
    check_update<BFloat16, float>(DType::bf16, s[0], s[1], s[2], draw_bf16);
    check_update<Float16, float>(DType::f16, s[0], s[1], s[2], draw_f16);
  }
  const float row = 1;
  for (int64_t code : {int64_t{-1}, int64_t{4}}) {
    int64_t counts[4];
    float sums[4];
    CHECK(ema_update({&row, DType::f32, 1, 1, 1}, &code, 4, counts, sums, 1,
                     ema_kernel_baseline) == 0, "out of range");
  }
  return 0;
}
