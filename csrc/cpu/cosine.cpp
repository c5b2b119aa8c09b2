#include "cpu/cosine.h"

#include <math.h>

#include <algorithm>
#include <limits>

#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr int64_t kBlockBytes = 4 << 20;  // of unit vectors held at a time
constexpr int64_t kElementsPerThread = 1 << 13;
constexpr int kLanes = 8;

// Turns up to kLanes rows from `first` on into unit vectors, or NaN; returns the first that holds a
// NaN or Inf, or -1. Lanes are rows, in `lines` [dim][kLanes], so that each row is added up in its
// own order while the compiler takes several at once.
template <class T>
int64_t make_units(const Matrix& x, int64_t first, double* lines, double* units) {
  const int64_t dim = x.dim, count = std::min<int64_t>(kLanes, x.rows - first);
  const T* rows[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    rows[lane] = x.row<T>(first + std::min<int64_t>(lane, count - 1));
  double largest[kLanes] = {}, flaw[kLanes] = {};
  for (int64_t d = 0; d < dim; ++d)
    for (int lane = 0; lane < kLanes; ++lane) {
      const double v = to_double(rows[lane][d]), size = v < 0 ? -v : v;
      lines[d * kLanes + lane] = v;
      largest[lane] = size > largest[lane] ? size : largest[lane];
      flaw[lane] += v * 0.0;
    }
  double scale[kLanes], again[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    int exponent = 0;
    if (flaw[lane] == 0) frexp(largest[lane], &exponent);
    const int half = exponent >> 1;  // 2^-exponent itself may be out of range
    scale[lane] = ldexp(1.0, -half);
    again[lane] = ldexp(1.0, half - exponent);
  }
  double squared[kLanes] = {};
  for (int64_t d = 0; d < dim; ++d)
    for (int lane = 0; lane < kLanes; ++lane) {
      const double v = lines[d * kLanes + lane] * scale[lane] * again[lane];
      lines[d * kLanes + lane] = v;
      squared[lane] += v * v;
    }
  double norm[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    norm[lane] = flaw[lane] == 0 ? sqrt(squared[lane]) : std::numeric_limits<double>::quiet_NaN();
  for (int64_t d = 0; d < dim; ++d) {
    for (int lane = 0; lane < kLanes; ++lane) lines[d * kLanes + lane] /= norm[lane];  // 0/0: NaN
    for (int64_t lane = 0; lane < count; ++lane)
      units[(first + lane) * dim + d] = lines[d * kLanes + lane];
  }
  for (int64_t lane = 0; lane < count; ++lane)
    if (flaw[lane] != 0) return first + lane;
  return -1;
}

}  // namespace

int64_t unit_rows(const Matrix& x, double* units, int threads) {
  const int64_t useful = std::max<int64_t>(1, x.rows * x.dim / kElementsPerThread);
  const int64_t groups = (x.rows + kLanes - 1) / kLanes;
  std::mutex lock;
  int64_t first_bad = -1;
  run_team(static_cast<int>(std::min<int64_t>(threads, useful)), [&](int member, int members) {
    Buffer<double> lines(x.dim * kLanes);
    int64_t bad = -1;
    for (int64_t g = groups * member / members; g < groups * (member + 1) / members; ++g) {
      const int64_t found = with_type(x.dtype, [&](auto type) {
        return make_units<decltype(type)>(x, g * kLanes, lines.data(), units);
      });
      if (bad < 0) bad = found;
    }
    std::lock_guard<std::mutex> hold(lock);
    if (bad >= 0 && (first_bad < 0 || bad < first_bad)) first_bad = bad;
  });
  return first_bad;
}

std::unique_ptr<PackedCodebook> pack_units(const Matrix& codebook, int threads) {
  Buffer<double> units(codebook.rows * codebook.dim);
  const int64_t bad = unit_rows(codebook, units.data(), threads);
  const Matrix matrix{units.data(), DType::f64, codebook.rows, codebook.dim, codebook.dim};
  auto packed = std::make_unique<PackedCodebook>(matrix, threads);
  packed->first_bad_code = bad;
  return packed;
}

int64_t nearest_cosine(const PackedCodebook& codebook, const Matrix& x, int64_t* codes, int threads,
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
    nearest(codebook, {units.data(), DType::f64, rows.rows, x.dim, x.dim}, codes + begin,
            threads, kernel);
  }
  return first_bad_row;
}

}  // namespace vqtok
