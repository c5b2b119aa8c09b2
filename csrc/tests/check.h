// Checks for the C++ tests, and the oracle of the lookup.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <limits>
#include <random>
#include <vector>

#include "common/dtype.h"

#define CHECK(condition, ...)                                        \
  do {                                                               \
    if (!(condition)) {                                              \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      fprintf(stderr, __VA_ARGS__);                                  \
      fputc('\n', stderr);                                           \
      exit(1);                                                       \
    }                                                                \
  } while (0)

namespace vqtok {

// The definition of the lookup.
inline int64_t nearest_by_definition(const std::vector<double>& x, const Matrix& codebook) {
  double best = std::numeric_limits<double>::infinity();
  int64_t code = 0;
  std::vector<double> values(codebook.dim);
  for (int64_t k = 0; k < codebook.rows; ++k) {
    load_row(codebook, k, values.data());
    double distance = 0;
    for (int64_t d = 0; d < codebook.dim; ++d) {
      const double difference = x[d] - values[d];
      distance += difference * difference;
    }
    if (distance < best) {
      best = distance;
      code = k;
    }
  }
  return code;
}

// A test case: rows and codes of one element type. Buffers have exactly the size needed, so that
// the address sanitizer sees any access outside.
template <class T> struct Problem {
  int64_t rows, size, dim;
  std::vector<T> x, codebook;

  Matrix x_matrix(DType dtype) const { return {x.data(), dtype, rows, dim, dim}; }
  Matrix code_matrix(DType dtype) const { return {codebook.data(), dtype, size, dim, dim}; }
};

// Gaussian codes with near and exact duplicates, and rows of which half lie on codes.
template <class T>
Problem<T> hard_problem(int64_t rows, int64_t size, int64_t dim, double scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, scale);
  Problem<T> p{rows, size, dim, std::vector<T>(rows * dim), std::vector<T>(size * dim)};
  for (auto& v : p.codebook) v = static_cast<T>(normal(random));
  for (auto& v : p.x) v = static_cast<T>(normal(random));
  for (int64_t k = 8; k < size; k += 3)
    for (int64_t d = 0; d < dim; ++d)
      p.codebook[k * dim + d] =
          static_cast<T>(p.codebook[k / 2 * dim + d] * (k % 2 ? 1.0 : 1.0 + 1e-7));
  for (int64_t k = 5; k < size; k += 8)  // neighbours, in the same tile of any layout
    for (int64_t d = 0; d < dim; ++d)
      p.codebook[k * dim + d] =
          static_cast<T>(p.codebook[(k - 1) * dim + d] * (1.0 + 1e-7 * normal(random) / scale));
  for (int64_t n = 0; n < rows; n += 2) {
    const int64_t k = static_cast<int64_t>(random() % size);
    for (int64_t d = 0; d < dim; ++d) p.x[n * dim + d] = p.codebook[k * dim + d];
  }
  return p;
}

// Code 5 is the nearest of all rows, by a hair, and the sum of its float32 products loses each of them
// where they are added to its offset, always to the same side; those of code 40 cancel. Kernels that
// compare float32 sums must allow for one rounding a dimension.
inline Problem<float> one_sided_problem(int64_t dim) {
  Problem<float> p{40, 64, dim, std::vector<float>(40 * dim), std::vector<float>(64 * dim)};
  const float value = static_cast<float>(sqrt(2 * (1 + 0x1p-10) / double(dim)));
  const double half = 0.5 * double(dim) * value * value;
  const float other = static_cast<float>(sqrt(2 * (half - double(dim) * 0x1p-25) / double(dim)));
  for (auto& v : p.x) v = static_cast<float>(0.4999 * 0x1p-23 / value);
  for (int64_t k = 0; k < p.size; ++k)
    for (int64_t d = 0; d < dim; ++d)
      p.codebook[k * dim + d] = k == 5 ? value : k != 40 ? -value : d % 2 ? -other : other;
  return p;
}

}  // namespace vqtok
