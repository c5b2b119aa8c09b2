#include <math.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <type_traits>

#include "cpu/nearest.h"
#include "cpu/team.h"

namespace vqtok {
namespace {

// What a tile's codes turned out to be.
struct TileNorms {
  double squared[kTile];
  double flaw[kTile];  // 0, or NaN if the code holds a NaN or Inf
  uint64_t hash[kTile];  // equal for equal codes
};

// Lays out a tile of `count` codes; the lanes left over repeat the last one.
template <class T>
TileNorms place_tile(const Matrix& codebook, int64_t first, int64_t count, float* values,
                     double* exact) {
  const T* codes[kTile];
  for (int64_t lane = 0; lane < kTile; ++lane)
    codes[lane] = codebook.row<T>(first + std::min(lane, count - 1));
  double squared[kTile] = {}, flaw[kTile] = {};
  uint64_t hash[kTile] = {};
  for (int64_t d = 0; d < codebook.dim; ++d)
    for (int lane = 0; lane < kTile; ++lane) {
      const double v = to_double(codes[lane][d]), unsigned_zero = v + 0.0;
      uint64_t bits;
      memcpy(&bits, &unsigned_zero, sizeof bits);
      hash[lane] = (hash[lane] ^ (bits ^ bits >> 32)) * 0x9e3779b97f4a7c15u;
      values[d * kTile + lane] = to_float(codes[lane][d]);
      if constexpr (std::is_same_v<T, double>) exact[d * kTile + lane] = v;
      squared[lane] += v * v;
      flaw[lane] += v * 0.0;
    }
  TileNorms norms;
  std::copy_n(squared, kTile, norms.squared);
  std::copy_n(flaw, kTile, norms.flaw);
  std::copy_n(hash, kTile, norms.hash);
  return norms;
}

void lower(std::atomic<int64_t>& value, int64_t candidate) {
  int64_t seen = value.load();
  while (candidate < seen && !value.compare_exchange_weak(seen, candidate)) {}
}

}  // namespace

PackedCodebook::PackedCodebook(const Matrix& codebook, int threads)
    : size(codebook.rows),
      dim(codebook.dim),
      tiles(static_cast<int32_t>((codebook.rows + kTile - 1) / kTile)),
      values(int64_t{tiles} * dim * kTile),
      offsets(int64_t{tiles} * kTile),
      exact_values(codebook.dtype == DType::f64 ? int64_t{tiles} * dim * kTile : 0),
      usable(tiles) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> bad{kNone};
  Buffer<uint64_t> hashes(offsets.size());
  std::mutex lock;
  run_team(size * dim < 65536 ? 1 : threads, [&](int member, int members) {
    double member_largest = 0;
    const int64_t begin = int64_t{tiles} * member / members;
    const int64_t end = int64_t{tiles} * (member + 1) / members;
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTile, count = std::min<int64_t>(kTile, size - first);
      float* tile_values = &values[tile * dim * kTile];
      const TileNorms norms = with_type(codebook.dtype, [&](auto type) {
        return place_tile<decltype(type)>(codebook, first, count, tile_values,
                                          exact_values.data() + tile * dim * kTile);
      });
      for (int lane = 0; lane < kTile; ++lane) {
        const bool finite = norms.flaw[lane] == 0;
        hashes[first + lane] = norms.hash[lane];
        if (!finite)
          for (int64_t d = 0; d < dim; ++d) tile_values[d * kTile + lane] = 0;
        offsets[first + lane] = -INFINITY;
        if (lane >= count) continue;
        if (!finite) {
          lower(bad, first + lane);
          continue;
        }
        offsets[first + lane] = static_cast<float>(-0.5 * norms.squared[lane]);
        usable[tile] |= static_cast<uint8_t>(1u << lane);
        member_largest = fmax(member_largest, norms.squared[lane]);
      }
    }
    std::lock_guard<std::mutex> hold(lock);
    largest_squared_norm = fmax(largest_squared_norm, member_largest);
  });
  drop_duplicates(hashes.data());
  if (bad != kNone) first_bad_code = bad;
  bound = error_bound(static_cast<int>(dim), largest_squared_norm);
}

bool PackedCodebook::equal(int64_t a, int64_t b) const {
  const int64_t at_a = a / kTile * dim * kTile + a % kTile, at_b = b / kTile * dim * kTile + b % kTile;
  for (int64_t i = 0; i < dim * kTile; i += kTile) {
    if (values[at_a + i] != values[at_b + i]) return false;
    if (exact_values.size() && exact_values[at_a + i] != exact_values[at_b + i]) return false;
  }
  return true;
}

// A code equal to one before it is never the answer, but would make every row near it a tie.
void PackedCodebook::drop_duplicates(const uint64_t* hashes) {
  int shift = 63;
  while (int64_t{1} << (64 - shift) < 2 * size) --shift;
  const int64_t mask = (int64_t{1} << (64 - shift)) - 1;
  Buffer<int32_t> places(mask + 1);  // of codes by hash, plus one
  std::vector<int32_t> latest;       // of the codes equal to one
  for (int64_t k = 0; k < size; ++k) {
    if (!(usable[k / kTile] >> k % kTile & 1)) continue;
    int64_t place = static_cast<int64_t>(hashes[k] >> shift);
    // codes of one hash that differ are too rare to be told apart
    while (places[place] && hashes[places[place] - 1] != hashes[k]) place = (place + 1) & mask;
    if (!places[place]) {
      places[place] = static_cast<int32_t>(k + 1);
    } else if (equal(places[place] - 1, k)) {
      offsets[k] = -INFINITY;
      usable[k / kTile] &= static_cast<uint8_t>(~(1u << k % kTile));
      if (next_equal.empty()) {
        next_equal.assign(size, -1);
        latest.resize(size);
        std::iota(latest.begin(), latest.end(), 0);
      }
      int32_t& before = latest[places[place] - 1];
      next_equal[before] = static_cast<int32_t>(k);
      before = static_cast<int32_t>(k);
    }
  }
}

const ByteCodebook& PackedCodebook::bytes() const {
  std::call_once(bytes_once_, [this] { bytes_ = std::make_unique<ByteCodebook>(*this); });
  return *bytes_;
}

const SplitCodebook& PackedCodebook::split() const {
  std::call_once(split_once_, [this] { split_ = std::make_unique<SplitCodebook>(*this); });
  return *split_;
}

const float* PackedCodebook::rows() const {
  std::call_once(rows_once_, [this] {
    rows_ = Buffer<float>(size * dim, Fill::nothing);
    for (int64_t k = 0; k < size; ++k)
      for (int64_t d = 0; d < dim; ++d)
        rows_[k * dim + d] = values[(k / kTile * dim + d) * kTile + k % kTile];
  });
  return rows_.data();
}

const Tree& PackedCodebook::tree() const {
  std::call_once(tree_once_, [this] { tree_ = std::make_unique<Tree>(*this); });
  return *tree_;
}

}  // namespace vqtok
