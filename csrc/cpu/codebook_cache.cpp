#include "cpu/codebook_cache.h"

#include <pthread.h>
#include <string.h>

#include <list>
#include <mutex>
#include <vector>

#include "cpu/cosine.h"
#include "cpu/digest.h"

namespace vqtok {
namespace {

constexpr size_t kMostEntries = 64;
constexpr int64_t kMostBytes = 512 << 20;  // the 32 codebooks of Mimi count as 360 MB

int64_t element_bytes(DType dtype) {
  return with_type(dtype, [](auto type) { return int64_t{sizeof(type)}; });
}

typedef std::unique_ptr<PackedCodebook> (*Pack)(const Matrix& codebook, int threads);

std::unique_ptr<PackedCodebook> pack_as_is(const Matrix& codebook, int threads) {
  return std::make_unique<PackedCodebook>(codebook, threads);
}

// The codebook's values, row after row.
Buffer<char> copy_of(const Matrix& codebook) {
  const int64_t bytes = codebook.dim * element_bytes(codebook.dtype);
  const int64_t stride = codebook.row_stride * element_bytes(codebook.dtype);
  Buffer<char> copy(codebook.rows * bytes, Fill::nothing);
  for (int64_t k = 0; k < codebook.rows; ++k)
    memcpy(&copy[k * bytes], static_cast<const char*>(codebook.data) + k * stride,
           static_cast<size_t>(bytes));
  return copy;
}

Digest digest_of(const Matrix& codebook, const DigestKernel& kernel) {
  const int64_t bytes = codebook.rows * codebook.dim * element_bytes(codebook.dtype);
  if (codebook.row_stride == codebook.dim) return digest(codebook.data, bytes, kernel);
  return digest(copy_of(codebook).data(), bytes, kernel);
}

struct Entry {
  Entry(const Matrix& codebook, const Buffer<char>& copy, Pack pack_, int threads,
        const DigestKernel& kernel)
      : address(codebook.data), dtype(codebook.dtype), pack(pack_),
        contents(digest(copy.data(), copy.size(), kernel)),
        packed(pack({copy.data(), dtype, codebook.rows, codebook.dim, codebook.dim}, threads)) {}

  bool is(const Matrix& codebook, Pack wanted, const Digest& digest) const {
    return contents == digest && pack == wanted && dtype == codebook.dtype &&
           packed->size == codebook.rows && packed->dim == codebook.dim;
  }

  bool has_place_of(const Entry& other) const {
    return address == other.address && dtype == other.dtype && pack == other.pack &&
           packed->size == other.packed->size && packed->dim == other.packed->dim;
  }

  int64_t bytes() const { return bytes_for(packed->size, packed->dim, dtype, pack); }

  // At most: all that the packed form may come to hold.
  static int64_t bytes_for(int64_t codes, int64_t dim, DType dtype, Pack pack) {
    const int64_t element = pack == pack_as_is && dtype != DType::f64 ? 17 : 25;
    const int64_t padded = (codes + 31) / 32 * 32;
    return padded * (dim * element + split_layout(dim).words * int64_t{sizeof(uint32_t)} + 64);
  }

  const void* address;
  DType dtype;
  Pack pack;
  Digest contents;
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

std::shared_ptr<const PackedCodebook> find_or_pack(const Matrix& codebook, Pack pack, int threads,
                                                   const DigestKernel& kernel) {
  if (Entry::bytes_for(codebook.rows, codebook.dim, codebook.dtype, pack) > kMostBytes)
    return pack(codebook, threads);
  const Digest contents = digest_of(codebook, kernel);
  Shared entry;
  {
    std::lock_guard<std::mutex> hold(lock);
    for (const Shared& known : entries())
      if (!entry && known->is(codebook, pack, contents)) entry = known;
  }
  if (!entry) {
    const auto copy = copy_of(codebook);  // another thread may be writing to the codebook
    entry = std::make_shared<const Entry>(codebook, copy, pack, threads, kernel);
  }
  keep(entry);
  return {entry, entry->packed.get()};
}

}  // namespace

std::shared_ptr<const PackedCodebook> packed_codebook(const Matrix& codebook, int threads,
                                                      const DigestKernel& kernel) {
  return find_or_pack(codebook, pack_as_is, threads, kernel);
}

std::shared_ptr<const PackedCodebook> packed_units(const Matrix& codebook, int threads,
                                                   const DigestKernel& kernel) {
  return find_or_pack(codebook, pack_units, threads, kernel);
}

}  // namespace vqtok
