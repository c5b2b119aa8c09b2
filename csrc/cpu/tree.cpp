#include "cpu/tree.h"

#include <math.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "cpu/nearest.h"

namespace vqtok {
namespace {

// The codes one after the other: [size][dim].
Buffer<float> code_rows(const PackedCodebook& codebook) {
  const int64_t dim = codebook.dim;
  Buffer<float> rows(codebook.size * dim);
  for (int64_t k = 0; k < codebook.size; ++k)
    for (int64_t d = 0; d < dim; ++d)
      rows[k * dim + d] = codebook.values[(k / kTile * dim + d) * kTile + k % kTile];
  return rows;
}

// The dimension in which some codes vary most.
int64_t widest(const Buffer<float>& rows, int64_t dim, const int32_t* codes, int64_t count) {
  std::vector<double> sums(dim), squares(dim);
  for (int64_t i = 0; i < count; ++i) {
    const float* row = &rows[codes[i] * dim];
    for (int64_t d = 0; d < dim; ++d) {
      sums[d] += row[d];
      squares[d] += double{row[d]} * row[d];
    }
  }
  for (int64_t d = 0; d < dim; ++d) squares[d] -= sums[d] * sums[d] / double(count);
  return std::max_element(squares.begin(), squares.end()) - squares.begin();
}

}  // namespace

Tree::Tree(const PackedCodebook& codebook) : dim_(static_cast<int>(codebook.dim)) {
  const Buffer<float> rows = code_rows(codebook);
  std::vector<int32_t> order;
  for (int64_t k = 0; k < codebook.size; ++k)
    if (codebook.offsets[k] != -INFINITY) order.push_back(static_cast<int32_t>(k));
  const int64_t most = static_cast<int64_t>(order.size()) / kBoxCodes + 1;
  groups_ = static_cast<int32_t>((most + kBoxGroup - 1) / kBoxGroup);
  const int64_t boxes = int64_t{groups_} * kBoxGroup;
  low_ = Buffer<float>(boxes * dim_);
  high_ = Buffer<float>(boxes * dim_);
  values_ = Buffer<float>(boxes * kBoxCodes * dim_);
  offsets_ = Buffer<float>(boxes * kBoxCodes);
  codes_ = Buffer<int32_t>(boxes * kBoxCodes);
  std::fill_n(low_.data(), low_.size(), INFINITY);  // so far, every box is nowhere
  std::fill_n(high_.data(), high_.size(), INFINITY);
  std::fill_n(offsets_.data(), offsets_.size(), -INFINITY);
  // Halves, of whole boxes, in the dimension where they differ most.
  const std::function<void(int32_t*, int64_t)> split = [&](int32_t* codes, int64_t count) {
    if (count <= kBoxCodes) return place(codebook, rows, codes, count);
    const float* values = rows.data() + widest(rows, dim_, codes, count);
    const int64_t half = (count / 2 + kBoxCodes - 1) / kBoxCodes * kBoxCodes;
    std::nth_element(codes, codes + half, codes + count, [&](int32_t a, int32_t b) {
      return values[int64_t{a} * dim_] < values[int64_t{b} * dim_];
    });
    split(codes, half);
    split(codes + half, count - half);
  };
  if (!order.empty()) split(order.data(), static_cast<int64_t>(order.size()));
}

// Makes the next box of some codes.
void Tree::place(const PackedCodebook& codebook, const Buffer<float>& rows, const int32_t* codes,
                 int64_t count) {
  const int64_t box = boxes_++;
  for (int64_t d = 0; d < dim_; ++d) {
    float low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < count; ++i) {
      const float v = rows[int64_t{codes[i]} * dim_ + d];
      values_[(box * dim_ + d) * kBoxCodes + i] = v;
      low = std::min(low, v);
      high = std::max(high, v);
    }
    const int64_t at = (box / kBoxGroup * dim_ + d) * kBoxGroup + box % kBoxGroup;
    low_[at] = low;
    high_[at] = high;
  }
  for (int64_t i = 0; i < count; ++i) {
    offsets_[box * kBoxCodes + i] = codebook.offsets[codes[i]];
    codes_[box * kBoxCodes + i] = codes[i];
  }
}

}  // namespace vqtok
