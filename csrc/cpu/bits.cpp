#include "cpu/bits.h"

#include <string.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <utility>

#include "cpu/team.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bytes are assembled in machine words");

namespace vqtok {
namespace {

constexpr int64_t kChunk = 4096;             // codes, a multiple of 8: chunks start on whole bytes
constexpr int64_t kSerialCodes = int64_t{1} << 16;  // not worth waking threads for

// 8 codes of kBits bits are kBits bytes.
template <int kBits> void pack_eight(const uint32_t* codes, uint8_t* packed) {
  uint64_t words[5] = {};
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const int word = i * kBits / 64, shift = i * kBits % 64;
    words[word] |= static_cast<uint64_t>(codes[i]) << shift;
    if (shift + kBits > 64) words[word + 1] |= static_cast<uint64_t>(codes[i]) >> (64 - shift);
  }
  memcpy(packed, words, kBits);
}

template <int kBits> void unpack_eight(const uint8_t* packed, int64_t* codes) {
  uint64_t words[5] = {};
  memcpy(words, packed, kBits);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const int word = i * kBits / 64, shift = i * kBits % 64;
    uint64_t code = words[word] >> shift;
    if (shift + kBits > 64) code |= words[word + 1] << (64 - shift);
    codes[i] = static_cast<int64_t>(code & ((uint64_t{1} << kBits) - 1));
  }
}

using PackGroups = void (*)(const uint32_t*, int64_t, uint8_t*);
using UnpackGroups = void (*)(const uint8_t*, int64_t, int64_t*);

template <int kBits> void pack_groups(const uint32_t* codes, int64_t groups, uint8_t* packed) {
  for (int64_t g = 0; g < groups; ++g) pack_eight<kBits>(codes + g * 8, packed + g * kBits);
}

template <int kBits> void unpack_groups(const uint8_t* packed, int64_t groups, int64_t* codes) {
  for (int64_t g = 0; g < groups; ++g) unpack_eight<kBits>(packed + g * kBits, codes + g * 8);
}

template <int... kIndex>
constexpr std::array<PackGroups, 32> pack_table(std::integer_sequence<int, kIndex...>) {
  return {pack_groups<kIndex + 1>...};
}

template <int... kIndex>
constexpr std::array<UnpackGroups, 32> unpack_table(std::integer_sequence<int, kIndex...>) {
  return {unpack_groups<kIndex + 1>...};
}

constexpr auto kPack = pack_table(std::make_integer_sequence<int, 32>{});
constexpr auto kUnpack = unpack_table(std::make_integer_sequence<int, 32>{});

// Narrows codes to 32 bits; returns the first out of range, or -1.
template <class T>
int64_t narrow(const T* codes, int64_t count, int bits, uint32_t* out) {
  uint64_t seen = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t code = static_cast<uint64_t>(static_cast<int64_t>(codes[i]));
    seen |= code;
    out[i] = static_cast<uint32_t>(code);
  }
  if (seen >> bits == 0) return -1;
  for (int64_t i = 0; i < count; ++i)
    if (static_cast<uint64_t>(static_cast<int64_t>(codes[i])) >> bits) return i;
  return -1;
}

template <class F> decltype(auto) with_integer(IntegerType type, F&& f) {
  switch (type.bytes * 2 + type.is_signed) {
    case 2: return f(uint8_t{});
    case 3: return f(int8_t{});
    case 4: return f(uint16_t{});
    case 5: return f(int16_t{});
    case 8: return f(uint32_t{});
    case 9: return f(int32_t{});
    case 16: return f(uint64_t{});
    default: return f(int64_t{});
  }
}

// Runs body(first, count) over chunks of codes.
template <class Body> void for_chunks(int64_t count, int threads, Body&& body) {
  std::atomic<int64_t> next{0};
  run_team(count < kSerialCodes ? 1 : threads, [&](int, int) {
    for (int64_t first; (first = next.fetch_add(kChunk)) < count;)
      body(first, std::min(kChunk, count - first));
  });
}

}  // namespace

int64_t pack_bits(const void* codes, IntegerType type, int64_t count, int bits, uint8_t* packed,
                  int threads) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> bad{kNone};
  for_chunks(count, threads, [&](int64_t first, int64_t size) {
    uint32_t chunk[kChunk];
    const int64_t found = with_integer(type, [&](auto zero) {
      return narrow(static_cast<const decltype(zero)*>(codes) + first, size, bits, chunk);
    });
    if (found >= 0) {
      int64_t seen = bad.load();
      while (first + found < seen && !bad.compare_exchange_weak(seen, first + found)) {}
      return;
    }
    uint8_t* out = packed + first / 8 * bits;
    kPack[bits - 1](chunk, size / 8, out);
    if (const int64_t rest = size % 8) {
      uint32_t last[8] = {};
      uint8_t bytes[32];
      memcpy(last, chunk + size - rest, rest * sizeof *last);
      kPack[bits - 1](last, 1, bytes);
      memcpy(out + size / 8 * bits, bytes, packed_bytes(rest, bits));
    }
  });
  return bad == kNone ? -1 : bad.load();
}

void unpack_bits(const uint8_t* packed, int64_t count, int bits, int64_t* codes, int threads) {
  for_chunks(count, threads, [&](int64_t first, int64_t size) {
    const uint8_t* in = packed + first / 8 * bits;
    kUnpack[bits - 1](in, size / 8, codes + first);
    if (const int64_t rest = size % 8) {
      uint8_t bytes[32] = {};
      int64_t last[8];
      memcpy(bytes, in + size / 8 * bits, packed_bytes(rest, bits));
      kUnpack[bits - 1](bytes, 1, last);
      memcpy(codes + first + size - rest, last, rest * sizeof *last);
    }
  });
}

}  // namespace vqtok
