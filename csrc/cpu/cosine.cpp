#include "cpu/cosine.h"

#include <math.h>

#include <algorithm>
#include <limits>

#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr int64_t kBlockBytes = 4 << 20;  // of unit vectors held at a time
constexpr int64_t kElementsPerThread = 1 << 13;

// Turns a row into its unit vector, or NaN; whether all of it was finite.
bool make_unit(double* row, int64_t dim) {
  double largest = 0, flaw = 0;
  for (int64_t d = 0; d < dim; ++d) {
    largest = fmax(largest, fabs(row[d]));
    flaw += row[d] * 0.0;
  }
  if (flaw != 0 || largest == 0) {
    std::fill_n(row, dim, std::numeric_limits<double>::quiet_NaN());
    return flaw == 0;
  }
  int exponent;
  frexp(largest, &exponent);
  const int half = exponent >> 1;  // 2^-exponent itself may be out of range
  const double scale = ldexp(1.0, -half), again = ldexp(1.0, half - exponent);
  double squared = 0;
  for (int64_t d = 0; d < dim; ++d) {
    row[d] = row[d] * scale * again;
    squared += row[d] * row[d];
  }
  const double norm = sqrt(squared);
  for (int64_t d = 0; d < dim; ++d) row[d] /= norm;
  return true;
}

}  // namespace

int64_t unit_rows(const Matrix& x, double* units, int threads) {
  const int64_t useful = std::max<int64_t>(1, x.rows * x.dim / kElementsPerThread);
  std::mutex lock;
  int64_t first_bad = -1;
  run_team(static_cast<int>(std::min<int64_t>(threads, useful)), [&](int member, int members) {
    int64_t bad = -1;
    for (int64_t n = x.rows * member / members; n < x.rows * (member + 1) / members; ++n) {
      load_row(x, n, units + n * x.dim);
      if (!make_unit(units + n * x.dim, x.dim) && bad < 0) bad = n;
    }
    std::lock_guard<std::mutex> hold(lock);
    if (bad >= 0 && (first_bad < 0 || bad < first_bad)) first_bad = bad;
  });
  return first_bad;
}

UnitCodebook::UnitCodebook(const Matrix& codebook, int threads)
    : units(codebook.rows * codebook.dim),
      first_bad_code(unit_rows(codebook, units.data(), threads)),
      packed({units.data(), DType::f64, codebook.rows, codebook.dim, codebook.dim}, threads) {}

int64_t nearest_cosine(const UnitCodebook& codebook, const Matrix& x, int64_t* codes, int threads,
                       const NearestKernel& kernel) {
  const int64_t most = std::max<int64_t>(1024, kBlockBytes / (x.dim * int64_t{sizeof(double)}));
  const int64_t block = std::min(x.rows, most);
  Buffer<double> units(block * x.dim);
  int64_t first_bad_row = -1;
  for (int64_t begin = 0; begin < x.rows; begin += block) {
    Matrix rows = x;
    rows.rows = std::min(block, x.rows - begin);
    rows.data = with_type(x.dtype, [&](auto type) -> const void* {
      return x.row<decltype(type)>(begin);
    });
    const int64_t bad = unit_rows(rows, units.data(), threads);
    if (bad >= 0 && first_bad_row < 0) first_bad_row = begin + bad;
    nearest(codebook.packed, {units.data(), DType::f64, rows.rows, x.dim, x.dim}, codes + begin,
            threads, kernel);
  }
  return first_bad_row;
}

}  // namespace vqtok
