// An array aligned for any SIMD load.
#pragma once
#include <stdint.h>
#include <string.h>

#include <memory>

namespace vqtok {

// Memory aligned to 64 bytes, `bytes` a multiple of that. A few blocks of usual sizes that a thread
// gave back are kept for it: malloc would return them to the system, and page faults would then take
// most of the time of a short call.
void* take_memory(size_t bytes);
void give_memory(void* memory, size_t bytes) noexcept;

enum class Fill { zeros, nothing };

template <class T> class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size, Fill fill = Fill::zeros) : size_(size) {
    // 64 bytes of padding, so that a whole vector may be read at the last element
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + 127) / 64 * 64;
    data_ = {static_cast<T*>(take_memory(bytes)), Give{bytes}};
    if (fill == Fill::zeros) memset(static_cast<void*>(data_.get()), 0, bytes);
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }
  int64_t size() const { return size_; }

 private:
  struct Give {
    size_t bytes = 0;
    void operator()(T* p) const { give_memory(p, bytes); }
  };
  std::unique_ptr<T, Give> data_;
  int64_t size_ = 0;
};

}  // namespace vqtok
