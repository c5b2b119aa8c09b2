// The entropy coder: round trips, and streams that nobody made. Under the sanitizers that other
// tests run under, so that nothing is read or written outside.
#include <math.h>
#include <string.h>

#include <algorithm>

#include "cpu/adaptive.h"
#include "cpu/prior.h"
#include "cpu/range_coder.h"
#include "tests/check.h"
#include "tests/usable_isas.h"

namespace vqtok {
namespace {

using Random = std::mt19937_64;

void check_range_coder(Random& random) {
  struct Step { uint32_t below, frequency, total; bool is_bit, value; };
  std::vector<Step> steps(random() % 300);
  for (Step& s : steps) {
    s.is_bit = random() & 1;
    s.value = random() & 1;
    s.total = static_cast<uint32_t>(random() >> (33 + random() % 30)) + 1;
    s.below = static_cast<uint32_t>(random() % s.total);
    s.frequency = static_cast<uint32_t>(1 + random() % (s.total - s.below));
    if (s.is_bit) s.frequency = static_cast<uint32_t>(1 + random() % 65535);
  }
  RangeEncoder coder;
  for (const Step& s : steps)
    s.is_bit ? void(coder.bit(s.frequency, s.value)) : coder.symbol(s.below, s.frequency, s.total);
  const std::vector<uint8_t> stream = coder.finish();
  CHECK(stream.empty() || stream.back() != 0, "a zero at the end");
  RangeDecoder decoder(stream.data(), static_cast<int64_t>(stream.size()));
  for (const Step& s : steps) {
    if (s.is_bit) {
      CHECK(decoder.bit(s.frequency, false) == s.value, "bit");
    } else {
      const uint32_t position = decoder.position(s.total);
      CHECK(position >= s.below && position - s.below < s.frequency, "position %u", position);
      decoder.take(s.below, s.frequency);
    }
  }
  CHECK(!decoder.has_rest(), "bytes left over");
}

// Planes with repeats, [count][rows][columns].
std::vector<uint32_t> some_planes(Random& random, int count, int64_t rows, int64_t columns,
                                  int64_t size) {
  std::vector<uint32_t> codes(count * rows * columns);
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = i && random() % 2 ? codes[i - 1 - random() % std::min<size_t>(i, columns)]
                                 : static_cast<uint32_t>(random() % size);
  return codes;
}

// Flips, drops, adds and repeats bytes.
std::vector<uint8_t> damaged(Random& random, std::vector<uint8_t> stream) {
  for (int n = 1 + static_cast<int>(random() % 4); n > 0; --n) {
    const size_t at = stream.empty() ? 0 : random() % stream.size();
    switch (random() % 5) {
      case 0: if (!stream.empty()) stream[at] ^= static_cast<uint8_t>(1 << random() % 8); break;
      case 1: stream.resize(at); break;
      case 2: stream.push_back(static_cast<uint8_t>(random())); break;
      case 3: if (!stream.empty()) stream[at] = random() & 1 ? 0 : 255; break;
      default: stream.insert(stream.end(), stream.begin(), stream.begin() + at); break;
    }
    if (stream.size() > 4096) stream.resize(4096);
  }
  return stream;
}

void check_adaptive(Random& random, int64_t size, int count, int64_t rows, int64_t columns,
                    int mutants) {
  const std::vector<uint32_t> codes = some_planes(random, count, rows, columns, size);
  const Planes planes{codes.data(), count - 1, rows, columns};
  const std::vector<uint8_t> stream = adaptive_encode(planes, size);
  std::vector<uint32_t> found = codes;
  uint32_t* plane = found.data() + (count - 1) * planes.size();
  const Planes known{found.data(), count - 1, rows, columns};
  std::fill(plane, plane + planes.size(), 0u);
  CHECK(adaptive_decode(known, size, stream.data(), static_cast<int64_t>(stream.size()), plane),
        "bytes left over");
  CHECK(found == codes, "%lld codes of %lld", static_cast<long long>(planes.size()),
        static_cast<long long>(size));
  for (int n = 0; n < mutants; ++n) {
    const std::vector<uint8_t> bad = damaged(random, stream);
    adaptive_decode(known, size, bad.data(), static_cast<int64_t>(bad.size()), plane);
    for (int64_t i = 0; i < planes.size(); ++i)
      CHECK(plane[i] < size, "code %u of %lld", plane[i], static_cast<long long>(size));
  }
}

// The tensors of a network, random.
struct Network {
  std::vector<PriorSlot> slots;
  std::vector<std::vector<int8_t>> weights;
  std::vector<std::vector<int32_t>> biases;
  std::vector<PriorLayer> layers;  // hidden ones, the output, the groups
  std::vector<int32_t> order;
  bool grouped = false;

  void add_layer(Random& random, int64_t out, int64_t in, int shift) {
    weights.emplace_back(out * in);
    biases.emplace_back(out);
    for (auto& w : weights.back()) w = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
    for (auto& b : biases.back()) b = static_cast<int32_t>(random() % 20001) - 10000;
    layers.push_back({weights.back().data(), biases.back().data(), out, in, shift});
  }
};

Network some_network(Random& random, int q, int64_t size, int64_t groups,
                     const std::vector<PriorEmbedding>& embeddings) {
  Network n;
  n.weights.reserve(8);
  n.biases.reserve(8);
  n.slots = {{q, 0, -1}, {q, -1, 0}, {q, -1, 1}, {q, -2, 3}};
  for (int c = 0; c < q; ++c)
    n.slots.push_back({c, static_cast<int32_t>(random() % 7) - 3,
                       static_cast<int32_t>(random() % 7) - 3});
  int64_t width = 0;
  for (const PriorSlot& slot : n.slots) width += embeddings[slot.codebook].width;
  const int64_t hidden = 1 + static_cast<int64_t>(random() % 70);
  n.add_layer(random, hidden, width, 10);
  n.add_layer(random, 21, hidden, 9);
  n.add_layer(random, size, 21, 7);
  if (groups > 1) {
    n.grouped = true;
    const int64_t members = (size + groups - 1) / groups;
    n.add_layer(random, (size + members - 1) / members, 21, 8);
    for (int64_t k = 0; k < size; ++k) n.order.push_back(static_cast<int32_t>(k));
    for (int64_t k = size - 1; k > 0; --k) std::swap(n.order[k], n.order[random() % (k + 1)]);
  }
  return n;
}

PriorNetwork built(const Network& n, const std::vector<PriorEmbedding>& embeddings) {
  return PriorNetwork(n.slots, embeddings.data(), {n.layers[0], n.layers[1]}, n.layers[2],
                      n.grouped ? &n.layers[3] : nullptr, n.grouped ? n.order.data() : nullptr);
}

std::vector<int64_t> outputs_by_definition(const PriorLayer& layer, const std::vector<int64_t>& x) {
  std::vector<int64_t> y(layer.out);
  for (int64_t o = 0; o < layer.out; ++o) {
    y[o] = layer.bias[o];
    for (int64_t i = 0; i < layer.in; ++i) y[o] += x[i] * layer.weights[o * layer.in + i];
  }
  return y;
}

// The weights of outcomes [first, first + count) by the format's definition.
std::vector<uint32_t> weights_by_definition(const std::vector<int64_t>& y, int64_t first,
                                            int64_t count, int shift) {
  int64_t most = y[first];
  for (int64_t k = 0; k < count; ++k) most = std::max(most, y[first + k]);
  std::vector<uint32_t> weights;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t below = (most - y[first + k]) >> shift;
    const int power = static_cast<int>(floor(pow(2, 19 - (below & 31) / 32.0)));
    weights.push_back(1 + (below >> 5 > 19 ? 0 : power >> (below >> 5)));
  }
  return weights;
}

// The four numbers of PriorNetwork::weights() at one position.
void check_weights(const Network& n, const std::vector<PriorEmbedding>& embeddings,
                   const Planes& planes, int64_t row, int64_t column, const uint32_t* found) {
  std::vector<int64_t> x;
  for (const PriorSlot& slot : n.slots) {
    const int64_t r = row + slot.rows, c = column + slot.columns;
    const bool inside = r >= 0 && r < planes.rows && c >= 0 && c < planes.columns;
    const PriorEmbedding& e = embeddings[slot.codebook];
    const int64_t code =
        inside ? planes.plane(slot.codebook)[r * planes.columns + c] : e.codebook_size;
    x.insert(x.end(), e.values.begin() + code * e.width, e.values.begin() + (code + 1) * e.width);
  }
  for (int level = 0; level < 2; ++level) {
    x = outputs_by_definition(n.layers[level], x);
    const int shift = n.layers[level].shift;
    for (auto& v : x)
      v = std::min<int64_t>(std::max<int64_t>((v + (1 << (shift - 1))) >> shift, 0), 127);
  }
  const PriorLayer& output = n.layers[2];
  const int64_t code = planes.plane(planes.q)[row * planes.columns + column];
  int64_t rank = code, members = output.out;
  uint32_t wanted[4] = {1, 1, 0, 0};
  if (n.grouped) {
    const PriorLayer& groups = n.layers[3];
    members = (output.out + groups.out - 1) / groups.out;
    rank = std::find(n.order.begin(), n.order.end(), code) - n.order.begin();
    const auto weights = weights_by_definition(outputs_by_definition(groups, x), 0, groups.out,
                                               groups.shift);
    wanted[0] = weights[rank / members];
    wanted[1] = 0;
    for (uint32_t w : weights) wanted[1] += w;
  }
  const int64_t first = rank / members * members;
  const auto weights = weights_by_definition(outputs_by_definition(output, x), first,
                                             std::min(members, output.out - first), output.shift);
  wanted[2] = weights[rank - first];
  for (uint32_t w : weights) wanted[3] += w;
  for (int i = 0; i < 4; ++i)
    CHECK(found[i] == wanted[i], "weight %d of code %lld: %u, not %u", i,
          static_cast<long long>(code), found[i], wanted[i]);
}

// What codes of `size` are chosen for, at random; the bounds are those of vqtok/ops/prior.py.
struct Wishes {
  Wishes(Random& random, int64_t size, int64_t positions, bool ahead) {
    const int64_t dim = 1 + static_cast<int64_t>(random() % 40);
    int bits = 0;
    while ((1 << bits) < dim) ++bits;
    const int32_t limit = (1 << (28 - bits) / 2) - 1;
    const int64_t next_size = ahead ? 1 + static_cast<int64_t>(random() % 30) : 0;
    for (auto [values, count] : {std::pair{&targets, positions}, {&embeddings, size},
                                 {&next, next_size}})
      for (int64_t i = 0; i < count * dim; ++i)
        values->push_back(static_cast<int16_t>(
            static_cast<int32_t>(random() % (2 * limit + 1)) - limit));
    wanted = {targets.data(), embeddings.data(), dim, static_cast<int32_t>(random() % (1 << 21)),
              static_cast<int>(random() % 8), limit, 0, ahead ? next.data() : nullptr, next_size};
  }

  std::vector<int16_t> targets, embeddings, next;
  Wanted wanted;
};

// The plane that `network` chooses, on every instruction set the same.
std::vector<uint32_t> chosen(const PriorNetwork& network, std::vector<uint32_t> codes, int q,
                             int64_t rows, int64_t columns, int64_t size, const Wanted& wanted) {
  std::vector<uint32_t> first;
  for (const Isa* isa : usable_isas()) {
    std::vector<uint32_t> found = codes;
    uint32_t* plane = found.data() + q * rows * columns;
    network.choose({found.data(), q, rows, columns}, wanted, *isa->prior, plane);
    if (first.empty()) first = found;
    CHECK(found == first, "the choice depends on the instruction set %s", isa->name);
    for (int64_t i = 0; i < rows * columns; ++i) {
      const bool known = i < wanted.first_row * columns;
      CHECK(known ? plane[i] == codes[q * rows * columns + i] : plane[i] < size, "code %u",
            plane[i]);
    }
  }
  return first;
}

// Streams of plane q: the same on every instruction set, there and back, and damaged.
void check_streams(Random& random, const PriorNetwork& network, const std::vector<uint32_t>& codes,
                   int q, int64_t rows, int64_t columns, int64_t size, bool mixed, int mutants) {
  const Planes planes{codes.data(), q, rows, columns};
  std::vector<uint8_t> stream;
  for (const Isa* isa : usable_isas()) {
    const std::vector<uint8_t> here = network.encode(planes, *isa->prior, mixed);
    if (stream.empty()) stream = here;
    CHECK(here == stream, "the stream depends on the instruction set %s", isa->name);
    std::vector<uint32_t> found = codes;
    uint32_t* plane = found.data() + q * planes.size();
    const Planes known{found.data(), q, rows, columns};
    std::fill(plane, plane + planes.size(), 0u);
    CHECK(network.decode(known, stream.data(), static_cast<int64_t>(stream.size()), *isa->prior,
                         mixed, plane), "bytes left over");
    CHECK(found == codes, "%s", isa->name);
    for (int n = 0; n < mutants; ++n) {
      const std::vector<uint8_t> bad = damaged(random, stream);
      network.decode(known, bad.data(), static_cast<int64_t>(bad.size()), *isa->prior, mixed,
                     plane);
      for (int64_t i = 0; i < planes.size(); ++i)
        CHECK(plane[i] < size, "code %u of %lld", plane[i], static_cast<long long>(size));
    }
  }
}

void check_prior(Random& random, std::vector<int64_t> sizes, int64_t groups, int64_t rows,
                 int64_t columns, int mutants) {
  std::vector<PriorEmbedding> embeddings;
  for (int64_t size : sizes) {
    const int64_t width = 1 + static_cast<int64_t>(random() % 40);
    PriorEmbedding e{std::vector<uint8_t>((size + 1) * width), size, width};
    for (auto& v : e.values) v = static_cast<uint8_t>(random() % 128);
    embeddings.push_back(e);
  }
  std::vector<uint32_t> codes;
  for (int64_t size : sizes)
    for (int64_t i = 0; i < rows * columns; ++i)
      codes.push_back(static_cast<uint32_t>(random() % size));
  for (int q = 0; q < static_cast<int>(sizes.size()); ++q) {
    const Network tensors = some_network(random, q, sizes[q], groups, embeddings);
    const PriorNetwork network = built(tensors, embeddings);
    const Planes planes{codes.data(), q, rows, columns};
    for (bool ahead : {false, true}) {
      Wishes wishes(random, sizes[q], rows * columns, ahead);
      wishes.wanted.first_row = static_cast<int64_t>(random() % rows);
      chosen(network, codes, q, rows, columns, sizes[q], wishes.wanted);
    }
    for (const Isa* isa : usable_isas()) {
      std::vector<uint32_t> weights(rows * columns * 4);
      network.weights(planes, *isa->prior, weights.data());
      for (int64_t i = 0; i < planes.size(); ++i)
        check_weights(tensors, embeddings, planes, i / columns, i % columns, &weights[i * 4]);
    }
    for (bool mixed : {false, true})
      check_streams(random, network, codes, q, rows, columns, sizes[q], mixed, mutants);
  }
}

// The largest sum of weights, and the largest difference of outputs.
void check_weigh() {
  constexpr int64_t kMost = 4096;
  Buffer<int32_t> y(kMost);
  Buffer<uint32_t> weights(kMost);
  for (const Isa* isa : usable_isas()) {
    std::fill_n(y.data(), kMost, -7);
    CHECK(isa->prior->weigh(y.data(), kMost, 0, weights.data()) == kMost * ((1u << 19) + 1), "%s",
          isa->name);
    y[9] = 1140000000;
    std::fill_n(y.data(), 9, -1140000000);
    CHECK(isa->prior->weigh(y.data(), 10, 0, weights.data()) == (1u << 19) + 10, "%s", isa->name);
  }
}

// The dearest outcome beside the cheapest, in a block that is not full.
void check_cheapest() {
  constexpr int32_t kMostWeight = INT32_MAX / kMostSteps;
  Buffer<int32_t> distances(kOutBlock), y(kOutBlock);
  std::fill_n(distances.data(), kOutBlock, 1 << 30);  // as where embeddings fill up the block
  std::fill_n(y.data(), kOutBlock, -1140000000);
  std::fill_n(distances.data(), 3, 5);
  y[1] = 1140000000;
  for (const Isa* isa : usable_isas()) {
    int32_t sums[4], outcomes[4];
    isa->prior->cheapest(distances.data(), y.data(), 3, 0, kMostWeight, 0, 4, sums, outcomes);
    const int32_t dear = 5 + kMostWeight * kMostSteps;
    const bool right = sums[0] == 5 && outcomes[0] == 1 && sums[1] == dear && outcomes[1] == 0 &&
                       sums[2] == dear && outcomes[2] == 2 && sums[3] == INT32_MAX;
    CHECK(right, "%s", isa->name);
  }
}

// The streams of fixed codes and networks, as AVX-512 made them once; FNV-1a.
void check_golden() {
  Random random(2026);
  uint64_t hash = 0xcbf29ce484222325u, of_mixed = hash;
  auto add = [](uint64_t& to, const std::vector<uint8_t>& stream) {
    for (uint8_t byte : stream) to = (to ^ byte) * 0x100000001b3u;
    to = (to ^ stream.size()) * 0x100000001b3u;
  };
  for (int64_t size : {3, 1000, 70000}) {
    const std::vector<uint32_t> codes = some_planes(random, 3, 20, 31, size);
    for (int q = 0; q < 3; ++q) add(hash, adaptive_encode({codes.data(), q, 20, 31}, size));
  }
  for (int64_t groups : {1, 11}) {
    std::vector<PriorEmbedding> embeddings;
    for (int64_t size : {300, 1024}) {
      PriorEmbedding e{std::vector<uint8_t>((size + 1) * 24), size, 24};
      for (auto& v : e.values) v = static_cast<uint8_t>(random() % 128);
      embeddings.push_back(e);
    }
    const std::vector<uint32_t> codes = some_planes(random, 2, 20, 31, 300);
    for (int q = 0; q < 2; ++q) {
      const Network tensors =
          some_network(random, q, embeddings[q].codebook_size, groups, embeddings);
      const PriorKernel& kernel = *usable_isas().back()->prior;
      for (bool mixed : {false, true})
        add(mixed ? of_mixed : hash,
            built(tensors, embeddings).encode({codes.data(), q, 20, 31}, kernel, mixed));
    }
  }
  CHECK(hash == 0x10616d873dc96463u, "the streams have changed: %llx",
        static_cast<unsigned long long>(hash));
  CHECK(of_mixed == 0x8a0492049d557e54u, "the streams of mixtures have changed: %llx",
        static_cast<unsigned long long>(of_mixed));
}

// Codes that fixed networks choose for fixed targets, as AVX-512 chose them once; FNV-1a.
void check_golden_choice() {
  Random random(2027);
  uint64_t hash = 0xcbf29ce484222325u;
  for (int64_t groups : {1, 11})
    for (bool ahead : {false, true}) {
      std::vector<PriorEmbedding> embeddings{{std::vector<uint8_t>(301 * 24), 300, 24}};
      for (auto& v : embeddings[0].values) v = static_cast<uint8_t>(random() % 128);
      const Network tensors = some_network(random, 0, 300, groups, embeddings);
      const Wishes wishes(random, 300, 20 * 31, ahead);
      for (uint32_t code : chosen(built(tensors, embeddings), std::vector<uint32_t>(20 * 31), 0, 20,
                                  31, 300, wishes.wanted))
        hash = (hash ^ code) * 0x100000001b3u;
    }
  CHECK(hash == 0x38062b4af506ac5fu, "the choices have changed: %llx",
        static_cast<unsigned long long>(hash));
}

}  // namespace
}  // namespace vqtok

// Arguments: seed, and rounds of damage, for those who have time.
int main(int argc, char** argv) {
  using namespace vqtok;
  std::mt19937_64 random(argc > 1 ? strtoull(argv[1], nullptr, 10) : 1);
  const int rounds = argc > 2 ? atoi(argv[2]) : 20;
  check_golden();
  check_golden_choice();
  check_weigh();
  check_cheapest();
  for (int n = 0; n < 20 * rounds; ++n) check_range_coder(random);
  for (int64_t size : {1, 2, 3, 5, 8, 255, 1024, 1025, 65536, 1 << 20})
    for (int count : {1, 2, 4}) {
      check_adaptive(random, size, count, 1, 1, rounds);
      check_adaptive(random, size, count, 9, 13, rounds);
      check_adaptive(random, size, count, 60, 1, rounds);
    }
  check_prior(random, {5, 300, 17}, 1, 7, 9, rounds);
  check_prior(random, {5, 300, 17}, 6, 9, 7, rounds);
  check_prior(random, {1, 2, 1024}, 1, 3, 2, rounds);
  check_prior(random, {2000}, 50, 40, 1, rounds);
  check_prior(random, {16, 16}, 4, 30, 2, rounds);
  check_prior(random, {100}, 1, 2, 50, rounds);
  check_prior(random, {100}, 1, 1, 1, rounds);
  return 0;
}
