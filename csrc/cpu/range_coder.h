// A range coder: symbols to bytes and back, given integer frequencies. Header-only, no allocation
// but the output's.
//
// The encoder holds an interval [low, low + range) of 64-bit fractions of the stream's number. A
// symbol narrows it in proportion to its frequency; whenever range < 2^56 the top byte of low is
// final but for a carry. The stream is the shortest number in the last interval; the decoder reads
// zeros beyond its end.
#pragma once
#include <stdint.h>

#include <vector>

namespace vqtok {

constexpr uint64_t kLeastRange = uint64_t{1} << 56;

class RangeEncoder {
 public:
  // A symbol with `below` of `total` frequency before it: 1 <= frequency, below + frequency <=
  // total < 2^32.
  void symbol(uint32_t below, uint32_t frequency, uint32_t total) {
    const uint64_t unit = range_ / total;
    add(unit * below);
    range_ = unit * frequency;
    renormalise();
  }

  // A bit that is 1 with probability one / 2^16, 1 <= one < 2^16. Returns the bit.
  bool bit(uint32_t one, bool value) {
    const uint64_t bound = (range_ >> 16) * one;
    if (value) {
      range_ = bound;
    } else {
      add(bound);
      range_ -= bound;
    }
    renormalise();
    return value;
  }

  // The stream, without zeros at its end. Nothing may be added afterwards.
  std::vector<uint8_t> finish() {
    add(kLeastRange - 1);  // range is at least 2^56, so a multiple of 2^56 lies in the interval
    bytes_.push_back(static_cast<uint8_t>(low_ >> 56));
    while (!bytes_.empty() && bytes_.back() == 0) bytes_.pop_back();
    return std::move(bytes_);
  }

 private:
  void add(uint64_t part) {
    low_ += part;
    if (low_ >= part) return;
    for (size_t i = bytes_.size(); ++bytes_[--i] == 0;) {}  // a carry: the number is below 1
  }

  void renormalise() {
    for (; range_ < kLeastRange; range_ <<= 8, low_ <<= 8)
      bytes_.push_back(static_cast<uint8_t>(low_ >> 56));
  }

  uint64_t low_ = 0, range_ = ~uint64_t{0};
  std::vector<uint8_t> bytes_;
};

// Any bytes decode to something; nothing outside them is read.
class RangeDecoder {
 public:
  RangeDecoder(const uint8_t* bytes, int64_t size) : bytes_(bytes), size_(size) {
    for (int i = 0; i < 8; ++i) offset_ = offset_ << 8 | next();
  }

  // Where in [0, total) the next symbol lies; to be followed by take() of that symbol.
  uint32_t position(uint32_t total) {
    unit_ = range_ / total;
    const uint64_t position = offset_ / unit_;
    return position < total ? static_cast<uint32_t>(position) : total - 1;
  }

  void take(uint32_t below, uint32_t frequency) {
    offset_ -= unit_ * below;
    range_ = unit_ * frequency;
    renormalise();
  }

  bool bit(uint32_t one, bool) {
    const uint64_t bound = (range_ >> 16) * one;
    const bool value = offset_ < bound;
    if (value) {
      range_ = bound;
    } else {
      offset_ -= bound;
      range_ -= bound;
    }
    renormalise();
    return value;
  }

  // Whether bytes are left over that no symbol depended on.
  bool has_rest() const { return position_ < size_; }

 private:
  uint8_t next() {
    const uint8_t byte = position_ < size_ ? bytes_[position_] : 0;
    ++position_;
    return byte;
  }

  void renormalise() {
    for (; range_ < kLeastRange; range_ <<= 8) offset_ = offset_ << 8 | next();
  }

  const uint8_t* bytes_;
  int64_t size_, position_ = 0;
  uint64_t offset_ = 0, range_ = ~uint64_t{0}, unit_ = 1;
};

}  // namespace vqtok
