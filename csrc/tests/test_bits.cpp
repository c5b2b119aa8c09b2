// Bit packing against the definition of the stream, for every width and awkward lengths.
#include "cpu/bits.h"

#include "tests/check.h"

namespace vqtok {
namespace {

void check_width(int bits, int64_t count, int threads, std::mt19937_64& random) {
  std::vector<int64_t> codes(count), back(count);
  for (auto& code : codes) code = static_cast<int64_t>(random() >> (64 - bits));
  std::vector<uint8_t> packed(packed_bytes(count, bits), 0xff);
  CHECK(pack_bits(codes.data(), {8, true}, count, bits, packed.data(), threads) == -1, "in range");
  for (int64_t bit = 0; bit < static_cast<int64_t>(packed.size()) * 8; ++bit) {
    const int got = packed[bit / 8] >> bit % 8 & 1;
    const int want = bit < count * bits ? static_cast<int>(codes[bit / bits] >> bit % bits & 1) : 0;
    CHECK(got == want, "%d bits, %lld codes: stream bit %lld", bits, static_cast<long long>(count),
          static_cast<long long>(bit));
  }
  unpack_bits(packed.data(), count, bits, back.data(), threads);
  CHECK(codes == back, "%d bits, %lld codes", bits, static_cast<long long>(count));
}

template <class T> void check_range(IntegerType type) {
  std::vector<T> codes(100, T{3});
  std::vector<uint8_t> packed(packed_bytes(100, 2));
  CHECK(pack_bits(codes.data(), type, 100, 2, packed.data(), 1) == -1, "%d bytes", type.bytes);
  codes[57] = static_cast<T>(type.is_signed ? -1 : 4);
  codes[90] = 5;
  CHECK(pack_bits(codes.data(), type, 100, 2, packed.data(), 1) == 57, "%d bytes", type.bytes);
}

}  // namespace
}  // namespace vqtok

int main() {
  using namespace vqtok;
  std::mt19937_64 random(1);
  for (int bits = 1; bits <= 32; ++bits)
    for (int64_t count : {0, 1, 7, 8, 9, 4095, 4096, 4101}) check_width(bits, count, 1, random);
  for (int bits : {1, 10, 17, 32}) check_width(bits, 70001, 3, random);
  check_range<int8_t>({1, true});
  check_range<uint8_t>({1, false});
  check_range<int16_t>({2, true});
  check_range<uint16_t>({2, false});
  check_range<int32_t>({4, true});
  check_range<uint32_t>({4, false});
  check_range<int64_t>({8, true});
  check_range<uint64_t>({8, false});
  return 0;
}
