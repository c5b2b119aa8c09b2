#include "cpu/nearest.h"

#include <math.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

#include "cpu/filter_search.h"
#include "cpu/float_search.h"
#include "cpu/team.h"
#include "cpu/tree_search.h"

namespace vqtok {
namespace {

constexpr double kProductsPerThread = 8e6;  // fewer are not worth waking a thread for
constexpr int64_t kSampleRows = 64;
std::atomic<Method> forced{Method::automatic};

// Whether to go on with a method that pays for some blocks and not for others.
class Trial {
 public:
  bool worth_trying() const { return credit_.load(std::memory_order_relaxed) >= 0; }
  void record(bool success) { credit_.fetch_add(success ? 1 : -4, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> credit_{0};
};

struct Trials {
  Trial filter, split;
};

// The largest element of a few rows, NaN and Inf aside.
float usual_size(const Matrix& x) {
  constexpr int32_t kInfinity = 0x7f800000;
  Buffer<float> row(x.dim);
  float largest = 0;
  const int64_t step = (x.rows + kSampleRows - 1) / kSampleRows;
  for (int64_t n = 0; n < x.rows; n += step) {
    load_row(x, n, row.data());
    int32_t most = 0;  // floats compare like integers
    for (int64_t d = 0; d < x.dim; ++d) {
      int32_t bits;
      memcpy(&bits, &row[d], sizeof bits);
      most = std::max(most, bits & 0x7fffffff);
    }
    if (most < kInfinity) largest = std::max(largest, bits_to_float(static_cast<uint32_t>(most)));
  }
  return largest;
}

// Roughly, in cycles of a row with vectors of 512 bits: each method, and what making a table for it
// adds, shared by the rows that the codebook has met.
double making(const PackedCodebook& c, double cycles, int64_t seen) {
  return cycles * double(c.size) * double(c.dim) / double(seen + 1);
}
double float_cost(const PackedCodebook& c) { return 1.3 * double(c.size) * double(c.dim) / 32; }
double filter_cost(const PackedCodebook& c, int64_t seen) {
  return 320 + double(c.size) * (0.2 + double(c.dim) / 240) + making(c, 20, seen);
}
double split_cost(const PackedCodebook& c, int64_t seen) {
  return 40 + 3.6 * double(c.dim) + double(c.size) * (0.085 + 0.1 * split_layout(c.dim).steps) +
         making(c, 10, seen);
}
double tree_cost(const Tree& tree, int dim, double visited) {
  return 250 + 0.36 * tree.boxes() * dim + visited * (45 + 5 * dim);
}

// What is expected of methods that this lookup can use; infinite otherwise.
struct Costs {
  double plain, split = INFINITY, filter = INFINITY;

  Costs(const Lookup& lookup, int64_t seen) : plain(float_cost(lookup.codebook)) {
    // a row that is left open takes a panel to itself if there are few
    const double alone = lookup.kernel.rows * plain / double(lookup.x.rows + 1);
    if (lookup.kernel.split) split = split_cost(lookup.codebook, seen) + alone;
    if (lookup.kernel.filter) filter = filter_cost(lookup.codebook, seen);
  }

  double least() const { return std::min({plain, split, filter}); }
};

bool use_split(const NearestKernel& kernel, Method method, bool faster) {
  return kernel.split && (method == Method::split || (method == Method::automatic && faster));
}

// The filter if it can be used for this lookup, or null.
std::unique_ptr<Filter> make_filter(const Lookup& lookup, Method method, const Costs& costs) {
  const bool wanted =
      method == Method::filter || (method == Method::automatic && costs.filter == costs.least());
  if (!wanted || !lookup.kernel.filter || lookup.x.rows == 0) return nullptr;
  auto filter = std::make_unique<Filter>(lookup.codebook.bytes(), usual_size(lookup.x),
                                         *lookup.kernel.filter);
  return filter->usable() ? std::move(filter) : nullptr;
}

// Whether it may be worth while to make a tree, or to try the one that there is: making it takes as
// long as looking up about 300 * depth rows.
bool suits_tree(const Lookup& lookup, int64_t seen) {
  const PackedCodebook& codebook = lookup.codebook;
  if (codebook.dim > 32 || codebook.size * codebook.dim < 1 << 13) return false;
  const double depth = log2(double(codebook.size) / kBoxCodes);
  const int64_t rows = lookup.x.rows, before = seen - rows;
  return double(before) > 300 * depth || double(rows) > 6000 * depth;
}

// The tree if it is to be used for this lookup, or null: depends on how many boxes a few rows visit.
const Tree* choose_tree(const Lookup& lookup, Method method, const Blocking& blocking,
                        const Costs& costs, int64_t seen) {
  if (lookup.x.rows == 0) return nullptr;
  if (method != Method::tree && (method != Method::automatic || !suits_tree(lookup, seen)))
    return nullptr;
  const Tree& tree = lookup.codebook.tree();
  if (tree.boxes() == 0 || method == Method::tree) return tree.boxes() ? &tree : nullptr;
  ExactSearch exact(lookup);
  double cost = 0;
  run_team(1, [&](int, int) {
    TreeSearch search(lookup, blocking, tree, exact);
    const int64_t rows = std::clamp<int64_t>(lookup.x.rows / 64, 1, kSampleRows);
    cost = tree_cost(tree, lookup.dim(), search.sample(rows));
  });
  return cost < 0.9 * costs.least() ? &tree : nullptr;
}

// How one lookup is done.
struct Plan {
  const Lookup& lookup;
  const Blocking& blocking;
  const Tree* tree;
  const Filter* filter;
  bool split;           // rather than float32, where neither of these is used
  double most_open;     // share of rows that may need another scan before that does not pay
  bool insist;          // on the filter or the split codebook
  int32_t share_tiles;  // of the codebook, that a thread takes at a time
};

// One thread's methods.
class Searches {
 public:
  explicit Searches(const Plan& plan) : plan_(plan), exact_(plan.lookup) {
    if (plan.tree)
      boxed_ = std::make_unique<TreeSearch>(plan.lookup, plan.blocking, *plan.tree, exact_);
    if (plan.filter)
      filtered_ = std::make_unique<FilterSearch>(plan.lookup, plan.blocking, *plan.filter, exact_);
  }

  void search(int64_t block, Trials& trials) {
    if (boxed_) return boxed_->search(block);
    if (filtered_ && (plan_.insist || trials.filter.worth_trying())) {
      const bool done = filtered_->search(block, plan_.insist);
      trials.filter.record(done);
      if (done) return;
    }
    if (plan_.split && (plan_.insist || trials.split.worth_trying())) {
      const int64_t open = split().search(block);
      trials.split.record(double(open) < plan_.most_open * double(plan_.blocking.row_count(block)));
    } else {
      plain().search(block);
    }
  }

  // Some of the tiles for all rows of a block; false if the filter lets too many codes through. Here
  // split values are used whatever they leave open, for all threads must use the same.
  bool scan(int64_t block, int32_t begin, int32_t end) {
    if (filtered_)
      return filtered_->scan(block, begin, std::min(end, filtered_->tiles()), plan_.insist);
    dense().scan(block, begin, std::min(end, dense().tiles()));
    return true;
  }

  Found found() { return filtered_ ? filtered_->found() : dense().found(); }

  // Decides a block that was scanned last, by what is now in found(), if that is of any use.
  void settle(int64_t block, bool useful) {
    if (!useful)
      dense().search(block);
    else if (filtered_)
      filtered_->settle(block);
    else
      dense().settle(block);
  }

  ExactSearch& exact() { return exact_; }

 private:
  FloatSearch& made(std::unique_ptr<FloatSearch>& search, const SplitCodebook* split) {
    if (!search)
      search = std::make_unique<FloatSearch>(plan_.lookup, plan_.blocking, split, exact_);
    return *search;
  }

  FloatSearch& plain() { return made(plain_, nullptr); }
  FloatSearch& split() { return made(split_, &plan_.lookup.codebook.split()); }
  FloatSearch& dense() { return plan_.split ? split() : plain(); }

  const Plan& plan_;
  ExactSearch exact_;
  std::unique_ptr<FloatSearch> plain_, split_;
  std::unique_ptr<FilterSearch> filtered_;
  std::unique_ptr<TreeSearch> boxed_;
};

// What threads have found for a block of which each searches a share of the codes.
class SharedBlock {
 public:
  SharedBlock(int64_t rows, int64_t shares)
      : best_(rows), second_(rows), where_(rows), left_(shares) {
    std::fill_n(best_.data(), rows, -INFINITY);
    std::fill_n(second_.data(), rows, -INFINITY);
  }

  // Whether it was the last one: then `found` holds what all have found.
  bool add(Found found, int64_t rows, bool useful) {
    std::lock_guard<std::mutex> hold(lock_);
    useful_ = useful_ && useful;
    found.merge({best_.data(), second_.data(), where_.data()}, rows);
    std::copy_n(found.best, rows, best_.data());
    std::copy_n(found.second, rows, second_.data());
    std::copy_n(found.where, rows, where_.data());
    return --left_ == 0;
  }

  bool useful() const { return useful_; }

 private:
  std::mutex lock_;
  Buffer<float> best_, second_;
  Buffer<int32_t> where_;
  int64_t left_;
  bool useful_ = true;
};

// Where there are fewer blocks of rows than threads, these share out the codes, too.
int32_t choose_share(const PackedCodebook& codebook, int64_t blocks, int threads) {
  constexpr int64_t kMultiple = 32;
  const int64_t shares = blocks > 0 && blocks < threads ? (threads + blocks - 1) / blocks : 1;
  const int64_t tiles = (codebook.tiles + shares - 1) / shares;
  return static_cast<int32_t>((tiles + kMultiple - 1) / kMultiple * kMultiple);
}

}  // namespace

void force_method(Method method) { forced = method; }

const SplitCodebook* useful_split(const PackedCodebook& codebook, int64_t rows,
                                  const NearestKernel& kernel) {
  const bool faster = split_cost(codebook, codebook.count_rows(rows)) < float_cost(codebook);
  return use_split(kernel, forced, faster) ? &codebook.split() : nullptr;
}

int64_t nearest(const PackedCodebook& codebook, const Matrix& x, int64_t* codes, int threads,
                const NearestKernel& kernel, const float* rows) {
  const IeeeArithmetic ieee;
  const Method method = forced;
  const Lookup lookup{codebook, x, codes, kernel, rows};
  const double products = static_cast<double>(x.rows) * codebook.dim * codebook.size;
  threads = static_cast<int>(std::clamp(products / kProductsPerThread, 1.0, double(threads)));
  const Blocking blocking(codebook, x.rows, kernel.rows, threads);
  const int64_t seen = codebook.count_rows(x.rows);
  const Costs costs(lookup, seen);
  const Tree* tree = choose_tree(lookup, method, blocking, costs, seen);
  const std::unique_ptr<Filter> filter = tree ? nullptr : make_filter(lookup, method, costs);
  const Plan plan{lookup, blocking, tree, filter.get(),
                  use_split(kernel, method, costs.split < costs.plain),
                  0.5 * (1 - costs.split / costs.plain), method != Method::automatic,
                  choose_share(codebook, tree ? 0 : blocking.blocks, threads)};
  const int64_t shares = (codebook.tiles + plan.share_tiles - 1) / plan.share_tiles;
  std::deque<SharedBlock> shared;
  for (int64_t block = 0; shares > 1 && block < blocking.blocks; ++block)
    shared.emplace_back(blocking.row_count(block), shares);
  Trials trials;
  std::atomic<int64_t> next{0};
  std::mutex lock;
  int64_t first_bad_row = -1;
  run_team(static_cast<int>(std::min<int64_t>(threads, blocking.blocks * shares)), [&](int, int) {
    Searches searches(plan);
    for (int64_t task; (task = next++) < blocking.blocks * shares;) {
      const int64_t block = task / shares;
      if (shares == 1) {
        searches.search(block, trials);
        continue;
      }
      const int32_t begin = static_cast<int32_t>(task % shares) * plan.share_tiles;
      const bool useful = searches.scan(block, begin, begin + plan.share_tiles);
      if (shared[block].add(searches.found(), blocking.row_count(block), useful))
        searches.settle(block, shared[block].useful());
    }
    searches.exact().finish();
    std::lock_guard<std::mutex> hold(lock);
    const int64_t bad = searches.exact().first_bad_row();
    if (bad >= 0 && (first_bad_row < 0 || bad < first_bad_row)) first_bad_row = bad;
  });
  return first_bad_row;
}

}  // namespace vqtok
