// A zero-initialised array aligned for any SIMD load.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <new>

namespace vqtok {

template <class T> class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) : size_(size) {
    // 64 bytes of padding, so that a whole vector may be read at the last element
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + 127) / 64 * 64;
    data_.reset(static_cast<T*>(aligned_alloc(64, bytes)));
    if (!data_) throw std::bad_alloc();
    memset(static_cast<void*>(data_.get()), 0, bytes);
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }
  int64_t size() const { return size_; }

 private:
  struct Free { void operator()(T* p) const { free(p); } };
  std::unique_ptr<T, Free> data_;
  int64_t size_ = 0;
};

}  // namespace vqtok
