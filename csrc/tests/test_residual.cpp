// The residual lookup against a plain loop, and the lookup by angle against its definition.
#include "cpu/residual.h"

#include <memory>

#include "cpu/cosine.h"
#include "cpu/isa.h"
#include "tests/check.h"

namespace vqtok {
namespace {

std::vector<float> draw(std::mt19937& random, int64_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (auto& v : values) v = normal(random);
  return values;
}

// Each codebook by the lookup's definition, sums and differences in float32.
void check_residual(int64_t rows, int64_t dim, const std::vector<int64_t>& sizes) {
  std::mt19937 random(static_cast<unsigned>(rows * 31 + dim));
  const std::vector<float> x = draw(random, rows * dim, 1);
  std::vector<std::vector<float>> tables;
  for (size_t q = 0; q < sizes.size(); ++q)
    tables.push_back(draw(random, sizes[q] * dim, 1.0f / static_cast<float>(q + 1)));
  const int64_t levels = static_cast<int64_t>(sizes.size());
  std::vector<int64_t> want_codes(rows * levels);
  std::vector<float> want(rows * dim, 0.0f);
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t q = 0; q < levels; ++q) {
      std::vector<double> rest(dim);
      for (int64_t d = 0; d < dim; ++d) {
        const float left = x[n * dim + d] - want[n * dim + d];
        rest[d] = left;
      }
      const int64_t code =
          nearest_by_definition(rest, {tables[q].data(), DType::f32, sizes[q], dim, dim});
      want_codes[n * levels + q] = code;
      for (int64_t d = 0; d < dim; ++d) want[n * dim + d] += tables[q][code * dim + d];
    }
  int isas = 0;
  const Isa* all = compiled_isas(&isas);
  for (int run = 0; run < 2 * isas; ++run) {
    const Isa& isa = all[run / 2];
    if (!isa.supported()) continue;
    const int threads = 1 + run % 2 * 2;
    std::vector<std::unique_ptr<PackedCodebook>> packed;
    std::vector<Codebook> codebooks;
    for (size_t q = 0; q < sizes.size(); ++q) {
      const Matrix table{tables[q].data(), DType::f32, sizes[q], dim, dim};
      packed.push_back(std::make_unique<PackedCodebook>(table, threads));
      codebooks.push_back({packed.back().get(), tables[q].data()});
    }
    std::vector<int64_t> codes(rows * levels, -1);
    std::vector<float> quantized(rows * dim, NAN);
    CHECK(residual(codebooks, {x.data(), DType::f32, rows, dim, dim}, codes.data(),
                   quantized.data(), threads, *isa.nearest) == -1, "all is finite");
    CHECK(codes == want_codes, "%s, %d threads", isa.name, threads);
    for (int64_t i = 0; i < rows * dim; ++i)
      CHECK(quantized[i] == want[i], "%s, %d threads, element %lld", isa.name, threads,
            static_cast<long long>(i));
  }
}

// Unit vectors written out in another way than the library's: with long double's exponent range.
void check_cosine(int64_t rows, int64_t dim, int64_t size, double scale) {
  std::mt19937 random(static_cast<unsigned>(rows + dim));
  std::normal_distribution<double> normal(0, 1);
  std::vector<double> x(rows * dim), table(size * dim);
  for (auto& v : x) v = normal(random) * scale;
  for (auto& v : table) v = normal(random) / scale;
  for (int64_t d = 0; d < dim; ++d) {
    table[(size - 1) * dim + d] = table[d] * 4;  // parallel to code 0, which wins the tie
    if (rows > 1) x[dim + d] = table[d] * scale;
  }
  std::vector<double> units(size * dim), row_units(rows * dim);
  CHECK(unit_rows({table.data(), DType::f64, size, dim, dim}, units.data(), 2) == -1, "finite");
  CHECK(unit_rows({x.data(), DType::f64, rows, dim, dim}, row_units.data(), 2) == -1, "finite");
  for (int64_t n = 0; n < rows; ++n) {
    double squared = 0;
    for (int64_t d = 0; d < dim; ++d) squared += row_units[n * dim + d] * row_units[n * dim + d];
    CHECK(fabs(squared - 1) < 1e-14 * static_cast<double>(dim), "row %lld has norm 1",
          static_cast<long long>(n));
  }
  const auto codebook = pack_units({table.data(), DType::f64, size, dim, dim}, 2);
  std::vector<int64_t> codes(rows, -1);
  CHECK(nearest_cosine(*codebook, {x.data(), DType::f64, rows, dim, dim}, codes.data(), 3,
                       *choose_isa("").nearest) == -1, "finite");
  for (int64_t n = 0; n < rows; ++n) {
    const std::vector<double> row(row_units.begin() + n * dim, row_units.begin() + (n + 1) * dim);
    CHECK(codes[n] == nearest_by_definition(row, {units.data(), DType::f64, size, dim, dim}),
          "row %lld", static_cast<long long>(n));
  }
  if (rows > 1) CHECK(codes[1] == 0, "ties go to the lowest code");
}

void check_flaws() {
  const float x[] = {1, 0, 0, 0, NAN, 1}, table[] = {0, 0, 3, 1, 5, INFINITY};
  const auto codebook = pack_units({table, DType::f32, 3, 2, 2}, 1);
  CHECK(codebook->first_bad_code == 2, "zeros are no flaw");
  int64_t codes[3];
  const NearestKernel& kernel = *choose_isa("").nearest;
  CHECK(nearest_cosine(*codebook, {x, DType::f32, 3, 2, 2}, codes, 1, kernel) == 2, "NaN");
  CHECK(codes[0] == 1 && codes[1] == 0 && codes[2] == 0, "what has no direction");

  const PackedCodebook packed({table, DType::f32, 2, 2, 2}, 1);
  float quantized[6];
  int64_t found[6];
  CHECK(residual({{&packed, table}, {&packed, table}}, {x, DType::f32, 3, 2, 2}, found, quantized, 1,
                 kernel) == 2, "NaN");
  CHECK(found[4] == 0 && found[5] == 0, "a row with NaN has code 0");
}

}  // namespace
}  // namespace vqtok

int main() {
  using namespace vqtok;
  check_residual(0, 3, {4, 5});
  check_residual(1, 1, {1});
  check_residual(70, 5, {33, 8, 1, 12});
  check_residual(40, 130, {20, 9});
  check_residual(2500, 520, {3, 2});  // more than one block
  for (double scale : {1.0, 1e150, 1e-160}) {
    check_cosine(1, 1, 3, scale);
    check_cosine(90, 7, 40, scale);
    check_cosine(1500, 400, 9, scale);  // more than one block
  }
  check_flaws();
  return 0;
}
