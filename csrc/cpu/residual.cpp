#include "cpu/residual.h"

#include <string.h>

#include <algorithm>

#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr int64_t kBlockBytes = 4 << 20;  // of what is left over, held at a time
constexpr int64_t kElementsPerThread = 1 << 15;

// Runs body(begin, end) on shares of `rows` rows of `dim` elements.
template <class Body> void share_rows(int64_t rows, int64_t dim, int threads, Body&& body) {
  const int64_t useful = std::max<int64_t>(1, rows * dim / kElementsPerThread);
  run_team(static_cast<int>(std::min<int64_t>(threads, useful)), [&](int member, int members) {
    body(rows * member / members, rows * (member + 1) / members);
  });
}

// Adds the codes chosen in one codebook to the sums, and works out what they leave over.
struct Level {
  const float* values;
  const int64_t* found;  // one code a row
  bool first, last;

  void add(const float* row, int64_t n, int64_t dim, float* sum, float* rest) const {
    const float* code = values + found[n] * dim;
    if (first)
      memcpy(sum, code, static_cast<size_t>(dim) * sizeof(float));
    else
      for (int64_t d = 0; d < dim; ++d) sum[d] += code[d];
    if (!last)
      for (int64_t d = 0; d < dim; ++d) rest[d] = row[d] - sum[d];
  }
};

}  // namespace

int64_t residual(const std::vector<Codebook>& codebooks, const Matrix& x, int64_t* codes,
                 float* quantized, int threads, const NearestKernel& kernel) {
  const int64_t dim = x.dim, levels = static_cast<int64_t>(codebooks.size());
  const int64_t most = std::max<int64_t>(1024, kBlockBytes / (dim * int64_t{sizeof(float)}));
  const int64_t block = std::min(x.rows, most);
  Buffer<float> rest(levels > 1 ? block * dim : 0);
  Buffer<int64_t> found(block);
  int64_t first_bad_row = -1;
  for (int64_t begin = 0; begin < x.rows; begin += block) {
    const int64_t count = std::min(block, x.rows - begin);
    Matrix rows{x.row<float>(begin), DType::f32, count, dim, x.row_stride};
    for (int64_t q = 0; q < levels; ++q) {
      const int64_t bad = nearest(*codebooks[q].packed, rows, found.data(), threads, kernel,
                                  codebooks[q].values);
      if (bad >= 0 && (first_bad_row < 0 || begin + bad < first_bad_row))
        first_bad_row = begin + bad;
      const Level level{codebooks[q].values, found.data(), q == 0, q + 1 == levels};
      share_rows(count, dim, threads, [&](int64_t from, int64_t to) {
        for (int64_t n = from; n < to; ++n) {
          codes[(begin + n) * levels + q] = found[n];
          level.add(x.row<float>(begin + n), n, dim, quantized + (begin + n) * dim,
                    rest.data() + n * dim);
        }
      });
      rows = {rest.data(), DType::f32, count, dim, dim};
    }
  }
  return first_bad_row;
}

}  // namespace vqtok
