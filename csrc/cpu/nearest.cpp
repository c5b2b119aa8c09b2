#include "cpu/nearest.h"

#include <math.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>

#include "cpu/filter_search.h"
#include "cpu/float_search.h"
#include "cpu/team.h"

namespace vqtok {
namespace {

constexpr double kProductsPerThread = 1e6;  // fewer are not worth waking a thread for
constexpr int64_t kLeastFilterProducts = 1 << 14;  // per row: below, float32 is as fast
constexpr int64_t kSampleRows = 256;
std::atomic<Method> forced{Method::automatic};

// Whether to go on with a method that pays for some blocks and not for others.
class Trial {
 public:
  bool worth_trying() const { return credit_.load(std::memory_order_relaxed) >= 0; }
  void record(bool success) { credit_.fetch_add(success ? 1 : -4, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> credit_{0};
};

// The largest element of a few rows.
float usual_size(const Matrix& x) {
  Buffer<float> row(x.dim);
  float largest = 0;
  const int64_t step = std::max<int64_t>(1, x.rows / kSampleRows);
  for (int64_t n = 0; n < x.rows; n += step) {
    load_row(x, n, row.data());
    for (int64_t d = 0; d < x.dim; ++d)
      if (isfinite(row[d])) largest = fmaxf(largest, fabsf(row[d]));
  }
  return largest;
}

// The filter if it can be used for this lookup, or null.
std::unique_ptr<Filter> make_filter(const Lookup& lookup, Method method) {
  const bool wanted = method == Method::filter ||
                      (method == Method::automatic &&
                       lookup.codebook.size * lookup.codebook.dim >= kLeastFilterProducts);
  if (!wanted || !lookup.kernel.filter || lookup.x.rows == 0) return nullptr;
  auto filter = std::make_unique<Filter>(lookup.codebook);
  if (!filter->usable() || !filter->set_rows(usual_size(lookup.x))) return nullptr;
  return filter;
}

}  // namespace

void force_method(Method method) { forced = method; }

int64_t nearest(const PackedCodebook& codebook, const Matrix& x, int64_t* codes, int threads,
                const NearestKernel& kernel) {
  const Method method = forced;
  const Lookup lookup{codebook, x, codes, kernel};
  const double products = static_cast<double>(x.rows) * codebook.dim * codebook.size;
  threads = static_cast<int>(std::clamp(products / kProductsPerThread, 1.0, double(threads)));
  const Blocking blocking(codebook, x.rows, kernel.rows, threads);
  const std::unique_ptr<Filter> filter = make_filter(lookup, method);
  Trial trial;
  std::atomic<int64_t> next{0};
  std::mutex lock;
  int64_t first_bad_row = -1;
  run_team(static_cast<int>(std::min<int64_t>(threads, blocking.blocks)), [&](int, int) {
    ExactSearch exact(lookup);
    FloatSearch plain(lookup, blocking, exact);
    std::unique_ptr<FilterSearch> filtered;
    if (filter) filtered = std::make_unique<FilterSearch>(lookup, blocking, *filter, exact);
    for (int64_t block; (block = next++) < blocking.blocks;) {
      bool done = false;
      if (filtered && (method == Method::filter || trial.worth_trying()))
        trial.record(done = filtered->search(block, method == Method::filter));
      if (!done) plain.search(block);
    }
    exact.finish();
    std::lock_guard<std::mutex> hold(lock);
    const int64_t bad = exact.first_bad_row();
    if (bad >= 0 && (first_bad_row < 0 || bad < first_bad_row)) first_bad_row = bad;
  });
  return first_bad_row;
}

}  // namespace vqtok
