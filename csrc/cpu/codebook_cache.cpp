#include "cpu/codebook_cache.h"

#include <pthread.h>
#include <string.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <vector>

#include "cpu/cosine.h"

namespace vqtok {
namespace {

constexpr size_t kMostEntries = 64;
constexpr int64_t kMostBytes = 512 << 20;  // the 32 codebooks of Mimi count as 470 MB

int64_t element_bytes(DType dtype) {
  return with_type(dtype, [](auto type) { return int64_t{sizeof(type)}; });
}

typedef std::unique_ptr<PackedCodebook> (*Pack)(const Matrix& codebook, int threads);

std::unique_ptr<PackedCodebook> pack_as_is(const Matrix& codebook, int threads) {
  return std::make_unique<PackedCodebook>(codebook, threads);
}

struct Entry {
  // Packs the copy, not the codebook: another thread may be writing to that.
  Entry(const Matrix& codebook, Pack pack_, int threads)
      : address(codebook.data), dtype(codebook.dtype), pack(pack_),
        row_bytes(codebook.dim * element_bytes(codebook.dtype)), copy(copy_of(codebook)),
        packed(pack({copy.data(), dtype, codebook.rows, codebook.dim, codebook.dim}, threads)) {}

  static Buffer<char> copy_of(const Matrix& codebook) {
    const int64_t bytes = codebook.dim * element_bytes(codebook.dtype);
    Buffer<char> copy(codebook.rows * bytes);
    for (int64_t k = 0; k < codebook.rows; ++k)
      memcpy(&copy[k * bytes], row(codebook, k), static_cast<size_t>(bytes));
    return copy;
  }

  static const char* row(const Matrix& codebook, int64_t k) {
    const int64_t stride = codebook.row_stride * element_bytes(codebook.dtype);
    return static_cast<const char*>(codebook.data) + k * stride;
  }

  bool may_be(const Matrix& codebook, Pack wanted) const {
    return pack == wanted && dtype == codebook.dtype && packed->size == codebook.rows &&
           packed->dim == codebook.dim;
  }

  bool has_place_of(const Entry& other) const {
    return address == other.address && dtype == other.dtype && pack == other.pack &&
           packed->size == other.packed->size && packed->dim == other.packed->dim;
  }

  bool is(const Matrix& codebook) const {
    if (codebook.row_stride == codebook.dim)
      return memcmp(copy.data(), codebook.data, static_cast<size_t>(copy.size())) == 0;
    for (int64_t k = 0; k < codebook.rows; ++k)
      if (memcmp(&copy[k * row_bytes], row(codebook, k), static_cast<size_t>(row_bytes)) != 0)
        return false;
    return true;
  }

  int64_t bytes() const { return bytes_for(packed->size * packed->dim, dtype, pack); }

  // At most, with all that the packed form may come to hold.
  static int64_t bytes_for(int64_t elements, DType dtype, Pack pack) {
    return elements * (element_bytes(dtype) + (pack == pack_as_is ? 24 : 32));
  }

  const void* address;
  DType dtype;
  Pack pack;
  int64_t row_bytes;
  Buffer<char> copy;
  std::unique_ptr<const PackedCodebook> packed;
};

typedef std::shared_ptr<const Entry> Shared;

std::mutex lock;
std::list<Shared>& entries() {  // the most recent first; never destroyed, so usable until exit
  static auto* list = new std::list<Shared>;
  return *list;
}

// A forked child has none of the other threads: it must not wait for what they held or began.
[[maybe_unused]] const int fork_handlers = pthread_atfork([] { lock.lock(); }, [] { lock.unlock(); },
                                         [] {
                                           entries().clear();
                                           lock.unlock();
                                         });

void keep(const Shared& entry) {
  std::list<Shared> dropped;  // freed after the lock is
  std::lock_guard<std::mutex> hold(lock);
  auto& list = entries();
  int64_t bytes = entry->bytes();
  size_t count = 1;
  for (auto next = list.begin(); next != list.end();) {
    const auto other = next++;
    // a codebook that is being trained leaves no trail
    const bool replaced = *other == entry || (*other)->has_place_of(*entry);
    if (!replaced) bytes += (*other)->bytes();
    if (replaced || ++count > kMostEntries || bytes > kMostBytes)
      dropped.splice(dropped.end(), list, other);
  }
  list.push_front(entry);
}

std::shared_ptr<const PackedCodebook> find_or_pack(const Matrix& codebook, Pack pack, int threads) {
  if (Entry::bytes_for(codebook.rows * codebook.dim, codebook.dtype, pack) > kMostBytes)
    return pack(codebook, threads);
  std::vector<Shared> candidates;
  {
    std::lock_guard<std::mutex> hold(lock);
    for (const Shared& entry : entries())
      if (entry->may_be(codebook, pack)) candidates.push_back(entry);
  }
  std::stable_partition(candidates.begin(), candidates.end(),
                        [&](const Shared& entry) { return entry->address == codebook.data; });
  const auto known = std::find_if(candidates.begin(), candidates.end(),
                                  [&](const Shared& entry) { return entry->is(codebook); });
  const Shared entry =
      known != candidates.end() ? *known : std::make_shared<const Entry>(codebook, pack, threads);
  keep(entry);
  return {entry, entry->packed.get()};
}

}  // namespace

std::shared_ptr<const PackedCodebook> packed_codebook(const Matrix& codebook, int threads) {
  return find_or_pack(codebook, pack_as_is, threads);
}

std::shared_ptr<const PackedCodebook> packed_units(const Matrix& codebook, int threads) {
  return find_or_pack(codebook, pack_units, threads);
}

}  // namespace vqtok
