#include "cpu/group_search.h"

#include <math.h>

#include <algorithm>
#include <limits>

namespace vqtok {
namespace {

constexpr int64_t kChunkBytes = 256 << 10;  // of codebook, scanned with all panels in turn
constexpr int32_t kListedTiles = 64;        // at a time
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A group's nearest choices so far, in order.
class Best {
 public:
  Best(Choice* choices, int64_t keep, int64_t& found)
      : choices_(choices), keep_(keep), found_(found) {}

  // Whether it is one of them.
  bool add(Choice choice) {
    if (found_ == keep_ && !choice.before(choices_[keep_ - 1])) return false;
    int64_t at = found_ == keep_ ? keep_ - 1 : found_++;
    for (; at > 0 && choice.before(choices_[at - 1]); --at) choices_[at] = choices_[at - 1];
    choices_[at] = choice;
    return true;
  }

  // The first codes, for want of any at a finite distance.
  void fill(int64_t size) {
    const int64_t finite = found_;
    for (int32_t member = 0; found_ < keep_; ++member)
      for (int32_t code = 0; code < size && found_ < keep_; ++code)
        if (std::none_of(choices_, choices_ + finite, [&](const Choice& known) {
              return known.member == member && known.code == code;
            }))
          choices_[found_++] = {kInfinity, member, code};
  }

 private:
  Choice* choices_;
  int64_t keep_;
  int64_t& found_;
};

// Lets the codes of a tile compete.
void compare_tile(const NearestKernel& kernel, const PackedCodebook& codebook, int32_t tile,
                  const double* row, int32_t member, Best& best) {
  alignas(64) double distances[kTile];
  const int64_t at = tile * codebook.dim * kTile;
  const int dim = static_cast<int>(codebook.dim);
  if (codebook.exact_values.size())
    kernel.distances_f64(&codebook.exact_values[at], row, dim, distances);
  else
    kernel.distances_f32(&codebook.values[at], row, dim, distances);
  for (int c = 0; c < kTile; ++c) {
    if (!(distances[c] < kInfinity) || !(codebook.usable[tile] >> c & 1)) continue;
    int32_t code = tile * kTile + c;
    while (best.add({distances[c], member, code}) && !codebook.next_equal.empty() &&
           codebook.next_equal[code] >= 0)
      code = codebook.next_equal[code];
  }
}

}  // namespace

void GroupSearch::search(const PackedCodebook& codebook, Groups groups, int64_t keep,
                         Choice* choices) {
  const int64_t rows = groups.count * groups.members;
  const int64_t panels = (rows + kernel_.rows - 1) / kernel_.rows;
  // with fewer tiles than are kept, all are looked into
  const int tops = static_cast<int>(std::min<int64_t>(keep, codebook.tiles + 1));
  panels_.prepare(codebook, useful_split(codebook, rows, kernel_), panels);
  pack(codebook.dim, groups);
  scan(codebook.dim, panels, tops);
  set_thresholds(groups, keep, tops);
  decide(codebook, groups, keep, choices);
}

void GroupSearch::pack(int64_t dim, Groups groups) {
  const int64_t rows = groups.count * groups.members;
  values_.resize(rows * dim);
  margins_.resize((rows + kernel_.rows - 1) / kernel_.rows * kernel_.rows);
  members_.resize(rows);
  for (int64_t r = 0; r < rows; ++r) {
    double squared = 0;
    for (int64_t i = r * dim; i < (r + 1) * dim; ++i) {
      values_[i] = static_cast<float>(groups.rows[i]);
      squared += groups.rows[i] * groups.rows[i];
    }
    members_[r].half = 0.5 * squared;
  }
  for (int64_t first = 0; first < rows; first += kernel_.rows) {
    const int count = static_cast<int>(std::min<int64_t>(kernel_.rows, rows - first));
    panels_.pack(first / kernel_.rows, {&values_[first * dim], dim, count}, &margins_[first]);
    for (int64_t r = first; r < first + count; ++r)  // |x|^2 is rounded, too
      members_[r].error =
          0.5 * margins_[r] + double(dim + 8) * 0x1p-52 * members_[r].half;
  }
}

void GroupSearch::scan(int64_t dim, int64_t panels, int tops) {
  const int64_t tile_bytes = dim * kTile * int64_t{sizeof(float)};
  const int32_t tiles = panels_.tiles();
  const int32_t chunk = static_cast<int32_t>(
      std::max<int64_t>(kChunkBytes / tile_bytes / kSplitTiles, 1) * kSplitTiles);
  maxima_.resize(panels * tiles * kernel_.rows);
  tops_.assign(panels * tops * kernel_.rows, -INFINITY);
  for (int32_t t = 0; t < tiles; t += chunk)
    for (int64_t p = 0; p < panels; ++p)
      panels_.scan_tops(p, t, std::min(tiles, t + chunk), tops,
                        &maxima_[(p * tiles + t) * kernel_.rows],
                        &tops_[p * tops * kernel_.rows]);
}

void GroupSearch::set_thresholds(Groups groups, int64_t keep, int tops) {
  const int64_t rows = groups.count * groups.members;
  // never reached, not even by an overflow
  thresholds_.assign((rows + kernel_.rows - 1) / kernel_.rows * kernel_.rows, NAN);
  for (int64_t first = 0; first < rows; first += groups.members) {
    bounds_.clear();
    for (int64_t r = first; r < first + groups.members; ++r) {
      const Member& member = members_[r];
      const float* top = &tops_[r / kernel_.rows * tops * kernel_.rows + r % kernel_.rows];
      for (int i = 0; i < tops && member.error < kInfinity; ++i)
        bounds_.push_back(member.half - top[i * kernel_.rows] + member.error);
    }
    double least = kInfinity;  // that so many codes are within
    if (static_cast<int64_t>(bounds_.size()) >= keep) {
      std::nth_element(bounds_.begin(), bounds_.begin() + (keep - 1), bounds_.end());
      least = bounds_[keep - 1];
    }
    for (int64_t r = first; r < first + groups.members; ++r) {
      const Member& member = members_[r];
      if (!(member.error < kInfinity)) continue;
      const double threshold = member.half - least - member.error;
      thresholds_[r] = nextafterf(static_cast<float>(threshold), -INFINITY);
    }
  }
}

void GroupSearch::decide(const PackedCodebook& codebook, Groups groups, int64_t keep,
                         Choice* choices) {
  const int64_t rows = groups.count * groups.members;
  found_.assign(groups.count, 0);
  const auto compare = [&](int64_t r, int32_t tile) {
    const int64_t group = r / groups.members;
    Best best(choices + group * keep, keep, found_[group]);
    compare_tile(kernel_, codebook, tile, groups.rows + r * codebook.dim,
                 static_cast<int32_t>(r % groups.members), best);
  };
  hits_.resize(int64_t{kListedTiles} * kernel_.rows);
  for (int64_t first = 0; first < rows; first += kernel_.rows)
    for (int32_t t = 0; t < codebook.tiles; t += kListedTiles) {
      const float* maxima = &maxima_[first * panels_.tiles() + int64_t{t} * kernel_.rows];
      const int count =
          kernel_.list_tiles(maxima, t, std::min(codebook.tiles, t + kListedTiles),
                             &thresholds_[first], hits_.data());
      for (int h = 0; h < count; ++h) compare(first + hits_[h].row, hits_[h].tile);
    }
  for (int64_t r = 0; r < rows; ++r)
    for (int32_t t = 0; t < codebook.tiles && !(members_[r].error < kInfinity); ++t) compare(r, t);
  for (int64_t group = 0; group < groups.count; ++group)
    Best(choices + group * keep, keep, found_[group]).fill(codebook.size);
}

}  // namespace vqtok
