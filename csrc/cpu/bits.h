// Fixed-width bit packing: code i takes the bits [i*bits, (i+1)*bits) of the stream, where bit j of
// the stream is bit j%8 of byte j/8. Unused bits of the last byte are zero. 1 <= bits <= 32.
#pragma once
#include <stdint.h>

namespace vqtok {

struct IntegerType {
  int bytes;  // 1, 2, 4 or 8
  bool is_signed;
};

inline int64_t packed_bytes(int64_t count, int bits) {
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

// Writes packed_bytes(count, bits) bytes; returns the first code outside [0, 2^bits), or -1.
int64_t pack_bits(const void* codes, IntegerType type, int64_t count, int bits, uint8_t* packed,
                  int threads);

// Reads packed_bytes(count, bits) bytes and writes count codes.
void unpack_bits(const uint8_t* packed, int64_t count, int bits, int64_t* codes, int threads);

}  // namespace vqtok
