// The nearest few codes and the beam search against sorted lists.
#include "cpu/beam.h"

#include <algorithm>
#include <memory>
#include <tuple>

#include "cpu/isa.h"
#include "tests/check.h"

namespace vqtok {
namespace {

typedef std::tuple<double, int64_t, int64_t> Place;  // distance, member, code: sorts as wanted

struct Sum {
  std::vector<double> rest;
  std::vector<int64_t> path;
};

std::vector<Place> places(const std::vector<Sum>& sums, const Matrix& codebook, size_t keep) {
  std::vector<Place> all;
  std::vector<double> code(codebook.dim);
  for (size_t m = 0; m < sums.size(); ++m)
    for (int64_t k = 0; k < codebook.rows; ++k) {
      load_row(codebook, k, code.data());
      double distance = 0;
      for (int64_t d = 0; d < codebook.dim; ++d) {
        const double difference = sums[m].rest[d] - code[d];
        distance += difference * difference;
      }
      if (isnan(distance)) distance = std::numeric_limits<double>::infinity();
      all.emplace_back(distance, m, k);
    }
  std::sort(all.begin(), all.end());
  all.resize(std::min(keep, all.size()));
  return all;
}

std::vector<int64_t> by_lists(const std::vector<double>& row, const std::vector<Matrix>& codebooks,
                              size_t beam) {
  std::vector<Sum> sums = {{row, {}}};
  for (const Matrix& codebook : codebooks) {
    std::vector<Sum> next;
    std::vector<double> code(codebook.dim);
    for (const auto& [distance, member, k] : places(sums, codebook, beam)) {
      next.push_back(sums[member]);
      load_row(codebook, k, code.data());
      for (int64_t d = 0; d < codebook.dim; ++d) next.back().rest[d] -= code[d];
      next.back().path.push_back(k);
    }
    sums = next;
  }
  return sums[0].path;
}

template <class T>
void check(int64_t rows, int64_t dim, std::vector<int64_t> sizes, int keep, DType dtype, double scale,
           double flaw = 0) {
  std::vector<Problem<T>> problems;
  std::vector<Matrix> codebooks;
  for (size_t q = 0; q < sizes.size(); ++q)
    problems.push_back(hard_problem<T>(rows, sizes[q], dim, scale / double(q + 1), unsigned(q + 1)));
  if (flaw != 0) {
    problems[0].codebook[sizes[0] / 2 * dim] = static_cast<T>(flaw);
    problems[0].x[rows / 2 * dim] = static_cast<T>(flaw);
  }
  for (auto& problem : problems) codebooks.push_back(problem.code_matrix(dtype));
  const Matrix x = problems[0].x_matrix(dtype);
  std::vector<int64_t> want_codes, want_beam;
  std::vector<float> want_distances;
  for (int64_t n = 0; n < rows; ++n) {
    std::vector<double> row(dim);
    load_row(x, n, row.data());
    for (const auto& [distance, member, k] : places({{row, {}}}, codebooks[0], size_t(keep))) {
      want_codes.push_back(k);
      want_distances.push_back(static_cast<float>(distance));
    }
    for (int64_t code : by_lists(row, codebooks, size_t(keep))) want_beam.push_back(code);
  }
  int isas = 0;
  const Isa* all = compiled_isas(&isas);
  for (int run = 0; run < 2 * isas; ++run) {
    const Isa& isa = all[run / 2];
    if (!isa.supported()) continue;
    const int threads = 1 + run % 2 * 2;
    std::vector<std::unique_ptr<PackedCodebook>> packed;
    std::vector<const PackedCodebook*> levels;
    for (const Matrix& codebook : codebooks) {
      packed.push_back(std::make_unique<PackedCodebook>(codebook, threads));
      levels.push_back(packed.back().get());
    }
    const int64_t few = std::min<int64_t>(keep, sizes[0]);
    std::vector<int64_t> codes(rows * few, -1), paths(rows * int64_t(sizes.size()), -1);
    std::vector<float> distances(rows * few, NAN);
    const int64_t bad = nearest_few(*levels[0], x, few, codes.data(), distances.data(), threads,
                                    *isa.nearest);
    CHECK(bad == (flaw != 0 ? rows / 2 : -1), "bad row %lld", static_cast<long long>(bad));
    CHECK(codes == want_codes, "%s, %d threads, D=%lld", isa.name, threads, static_cast<long long>(dim));
    CHECK(distances == want_distances, "%s, %d threads", isa.name, threads);
    CHECK(beam_search(levels, x, keep, paths.data(), threads, *isa.nearest) == bad, "the same row");
    CHECK(paths == want_beam, "%s, %d threads, beam %d", isa.name, threads, keep);
  }
}

}  // namespace
}  // namespace vqtok

int main() {
  using namespace vqtok;
  check<float>(0, 3, {4, 5}, 2, DType::f32, 1);
  check<float>(1, 1, {1}, 3, DType::f32, 1);
  check<float>(70, 5, {33, 8, 1, 12}, 4, DType::f32, 1);
  check<float>(40, 8, {90, 20}, 9, DType::f32, 1);
  check<double>(40, 4, {90, 20}, 3, DType::f64, 1);
  check<float>(40, 130, {20, 9}, 2, DType::f32, 1);
  check<float>(300, 64, {700, 90}, 3, DType::f32, 1);
  for (double scale : {1e-44, 1e-23, 1e18, 1e38}) check<float>(20, 9, {70, 9}, 4, DType::f32, scale);
  for (double scale : {1e-310, 1e-160, 1e40, 1e160}) check<double>(20, 9, {70, 9}, 4, DType::f64, scale);
  for (double flaw : {double{NAN}, double{INFINITY}}) check<float>(20, 9, {70, 9}, 70, DType::f32, 1, flaw);
  return 0;
}
