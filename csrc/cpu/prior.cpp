#include "cpu/prior.h"

#include <string.h>

#include <algorithm>

#include "cpu/prior_coders.h"

namespace vqtok {
namespace {

constexpr int64_t kRows = 32;  // positions that are evaluated together
constexpr int kLookAhead = 4;
constexpr int kNextSteps = 6 * 32;  // 1/32 bits that a code of the next codebook is taken to cost

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Rows [first, first + out) of a layer.
PriorLayer cut(const PriorLayer& layer, int64_t first, int64_t out) {
  return {layer.weights + first * layer.in, layer.bias + first, out, layer.in, layer.shift};
}

// Embeddings in some order, as dense_wide wants them so that its outputs are |e|^2 - 2 e x: squared
// distances but for |x|^2. What fills up the last block is as far away as can be.
struct PackedEmbeddings {
  PackedEmbeddings(const int16_t* embeddings, int64_t dim, const uint32_t* codes, int64_t count)
      : padded_out(round_up(count, kOutBlock)),
        padded_dim(round_up(dim, 2)),
        negatives(padded_out * padded_dim),
        squares(padded_out) {
    for (int64_t o = 0; o < padded_out; ++o) {
      squares[o] = o < count ? 0 : 1 << 30;
      if (o >= count) continue;
      const int16_t* from = embeddings + (codes ? codes[o] : o) * dim;
      int16_t* block = negatives.data() + o / kOutBlock * kOutBlock * padded_dim;
      for (int64_t i = 0; i < dim; ++i) {
        squares[o] += from[i] * from[i];
        block[(i / 2 * kOutBlock + o % kOutBlock) * 2 + i % 2] = static_cast<int16_t>(-2 * from[i]);
      }
    }
  }

  int64_t padded_out, padded_dim;
  Buffer<int16_t> negatives;
  Buffer<int32_t> squares;
};

// 32 log2(x), rounded down (or one less, by a hair), of x >= 1.
int32_t log2_steps(uint32_t x) {
  int32_t steps = 31;
  while (!(x >> steps)) --steps;
  uint64_t part = uint64_t{x} << (31 - steps);  // 2^31 times a number in [1, 2)
  for (int bit = 0; bit < 5; ++bit) {
    part = part * part >> 31;
    const int twice = static_cast<int>(part >> 32);
    part >>= twice;
    steps = steps * 2 + twice;
  }
  return steps;
}

// Finds codes, too, but those that are worth most.
struct Choose {
  static constexpr bool knows_codes = false, chooses = true, learns = false;
  const Wanted& wanted;
  std::vector<PackedEmbeddings> members;  // as the network's layers of that name
  std::unique_ptr<PackedEmbeddings> next;
  uint32_t* codes;
};

}  // namespace

PackedLayer::PackedLayer(const PriorLayer& layer)
    : out(layer.out),
      padded_out(round_up(layer.out, kOutBlock)),
      padded_in(round_up(layer.in, kOutBlock)),  // as the layer before pads its outputs
      shift(layer.shift),
      weights(padded_out * padded_in),
      bias(padded_out) {
  for (int64_t o = 0; o < layer.out; ++o) {
    bias[o] = layer.bias[o];
    int8_t* block = weights.data() + o / kOutBlock * kOutBlock * padded_in;
    for (int64_t i = 0; i < layer.in; ++i)
      block[(i / kInBlock * kOutBlock + o % kOutBlock) * kInBlock + i % kInBlock] =
          layer.weights[o * layer.in + i];
  }
}

PriorNetwork::PriorNetwork(std::vector<PriorSlot> slots, const PriorEmbedding* embeddings,
                           const std::vector<PriorLayer>& hidden, const PriorLayer& output,
                           const PriorLayer* groups, const int32_t* order)
    : slots_(std::move(slots)), embeddings_(embeddings), order_(output.out), ranks_(output.out) {
  for (const PriorLayer& layer : hidden) hidden_.emplace_back(layer);
  if (groups) groups_ = std::make_unique<PackedLayer>(*groups);
  group_size_ = groups ? (output.out + groups->out - 1) / groups->out : output.out;
  for (int64_t first = 0; first < output.out; first += group_size_)
    members_.emplace_back(cut(output, first, std::min(group_size_, output.out - first)));
  for (int64_t i = 0; i < output.out; ++i) {
    order_[i] = static_cast<uint32_t>(order ? order[i] : i);
    ranks_[order_[i]] = {static_cast<int32_t>(i / group_size_),
                         static_cast<int32_t>(i % group_size_)};
  }
  for (const PackedLayer& layer : hidden_)
    widest_ = std::max({widest_, layer.padded_in, layer.padded_out});
  widest_ = std::max({widest_, members_[0].padded_out, groups_ ? groups_->padded_out : 0});
}

// Positions that are evaluated together.
class PriorNetwork::Rows {
 public:
  Rows(const PriorNetwork& network, Planes planes, const PriorKernel& kernel)
      : network_(network), planes_(planes), kernel_(kernel),
        x_(kRows * network.widest_), y_(kRows * network.widest_), weights_(network.widest_) {}

  int64_t count() const { return count_; }
  bool full() const { return count_ == kRows; }
  Place place(int64_t row) const { return places_[row]; }

  // Notes a position and gathers its contexts.
  void add(Place place) {
    uint8_t* x = x_.data() + count_ * network_.hidden_[0].padded_in;
    for (const PriorSlot& slot : network_.slots_) {
      const PriorEmbedding& embedding = network_.embeddings_[slot.codebook];
      const int64_t row = place.row + slot.rows, column = place.column + slot.columns;
      const bool inside = row >= 0 && row < planes_.rows && column >= 0 && column < planes_.columns;
      const int64_t code =
          inside ? planes_.plane(slot.codebook)[row * planes_.columns + column]
                 : embedding.codebook_size;
      memcpy(x, embedding.values.data() + code * embedding.width, embedding.width);
      x += embedding.width;
    }
    places_[count_++] = place;
  }

  // From the contexts to what predicts: groups, or codes where there are none.
  void evaluate() {
    for (const PackedLayer& layer : network_.hidden_) {
      dense(layer, x_.data(), count_);
      kernel_.activate(y_.data(), count_ * layer.padded_out, layer.shift, x_.data());
    }
    const PackedLayer& first = network_.groups_ ? *network_.groups_ : network_.members_[0];
    dense(first, x_.data(), count_);
  }

  // Codes one row's code; `known` is that code, or anything for a coder that finds it.
  template <class Coder> uint32_t code(Coder& coder, int64_t row, uint32_t known) {
    const Rank rank = network_.ranks_[known];
    if constexpr (Coder::learns) coder.begin(places_[row].row, places_[row].column);
    const int64_t at = this->at(row);
    int64_t group = 0;
    const PackedLayer* members = &network_.members_[0];
    const int32_t* y = y_.data() + row * members->padded_out;
    if (network_.groups_) {
      const PackedLayer& groups = *network_.groups_;
      group = outcome(coder, groups, groups.out, y_.data() + row * groups.padded_out, at,
                      rank.group);
      members = &network_.members_[group];
      Buffer<int32_t>& outputs = member_outputs_;
      if (!outputs.size()) outputs = Buffer<int32_t>(network_.members_[0].padded_out);
      kernel_.dense(x_.data() + row * members->padded_in, 1, members->padded_in,
                    members->weights.data(), members->bias.data(), members->padded_out,
                    outputs.data());
      y = outputs.data();
    }
    const int64_t member =
        outcome(coder, *members, network_.group_size_, y, at, rank.member);
    return network_.order_[group * network_.group_size_ + member];
  }

  // Chooses the codes of all rows; see PriorNetwork::choose.
  void choose(const Choose& choice) {
    const Wanted& wanted = choice.wanted;
    const int64_t padded_dim = choice.members[0].padded_dim;
    if (!targets_.size()) {
      targets_ = Buffer<int16_t>(kRows * padded_dim);
      distances_ = Buffer<int32_t>(
          std::max(kRows * network_.members_[0].padded_out,
                   choice.next ? kLookAhead * choice.next->padded_out : 0));
      candidates_.resize(kRows);
    }
    for (int64_t row = 0; row < count_; ++row) {
      memcpy(targets_.data() + row * padded_dim, wanted.targets + at(row) * wanted.dim,
             wanted.dim * sizeof(int16_t));
      candidates_[row].count = 0;
    }
    const int64_t groups = network_.members_.size();
    if (network_.groups_) {
      const int64_t size = count_ * network_.groups_->padded_out;
      group_outputs_ = Buffer<int32_t>(size);
      memcpy(group_outputs_.data(), y_.data(), size * sizeof(int32_t));
    }
    for (int64_t group = 0; group < groups; ++group) {
      if (network_.groups_) dense(network_.members_[group], x_.data(), count_);
      consider(choice, group);
    }
    for (int64_t row = 0; row < count_; ++row)
      choice.codes[at(row)] = candidates_[row].codes[choice.next ? look_ahead(choice, row) : 0];
  }

  void clear() { count_ = 0; }

 private:
  int64_t at(int64_t row) const {
    return places_[row].row * planes_.columns + places_[row].column;
  }

  // Codes that are worth most, the best first.
  struct Candidates {
    int count = 0;
    int64_t costs[kLookAhead];
    uint32_t codes[kLookAhead];

    void add(int64_t cost, uint32_t code) {
      int at = count < kLookAhead ? count++ : kLookAhead;
      for (; at > 0 && cost < costs[at - 1]; --at) {
        if (at == kLookAhead) continue;
        costs[at] = costs[at - 1];
        codes[at] = codes[at - 1];
      }
      if (at == kLookAhead) return;
      costs[at] = cost;
      codes[at] = code;
    }
  };

  // Adds the best of a group, whose outputs are in y_, to the candidates of all rows.
  void consider(const Choose& choice, int64_t group) {
    const PackedLayer& members = network_.members_[group];
    const PackedEmbeddings& embeddings = choice.members[group];
    kernel_.dense_wide(targets_.data(), count_, embeddings.padded_dim,
                       embeddings.negatives.data(), embeddings.squares.data(),
                       embeddings.padded_out, distances_.data());
    const int keep = choice.next ? kLookAhead : 1;
    for (int64_t row = 0; row < count_; ++row) {
      const int32_t* y = y_.data() + row * members.padded_out;
      int32_t sums[kLookAhead], outcomes[kLookAhead];
      kernel_.cheapest(distances_.data() + row * embeddings.padded_out, y, members.out,
                       members.shift, choice.wanted.weight, choice.wanted.weight_shift, keep, sums,
                       outcomes);
      int64_t of_group = 0;
      if (network_.groups_) {
        const PackedLayer& groups = *network_.groups_;
        const int64_t steps =
            steps_below(group_outputs_.data() + row * groups.padded_out, groups, group) +
            log2_steps(kernel_.weigh(y, members.out, members.shift, weights_.data()));
        of_group = steps * choice.wanted.weight >> choice.wanted.weight_shift;
      }
      for (int k = 0; k < keep && k < members.out; ++k)
        candidates_[row].add(sums[k] + of_group,
                             network_.order_[group * network_.group_size_ + outcomes[k]]);
    }
  }

  // Which of a row's candidates is best once the next codebook has coded what it leaves.
  int look_ahead(const Choose& choice, int64_t row) {
    const Wanted& wanted = choice.wanted;
    const PackedEmbeddings& next = *choice.next;
    const Candidates& candidates = candidates_[row];
    Buffer<int16_t>& left = left_;
    if (!left.size()) left = Buffer<int16_t>(kLookAhead * next.padded_dim);
    const int16_t* target = targets_.data() + row * next.padded_dim;
    int64_t changes[kLookAhead];  // of the squared distance, from before the next codebook to after
    for (int k = 0; k < candidates.count; ++k) {
      const int16_t* embedding = wanted.embeddings + candidates.codes[k] * wanted.dim;
      for (int64_t i = 0; i < wanted.dim; ++i)
        left[k * next.padded_dim + i] = static_cast<int16_t>(
            std::min(std::max(target[i] - embedding[i], -wanted.limit), wanted.limit));
    }
    kernel_.dense_wide(left.data(), candidates.count, next.padded_dim, next.negatives.data(),
                       next.squares.data(), next.padded_out, distances_.data());
    const int64_t fee = int64_t{wanted.weight} * kNextSteps >> wanted.weight_shift;
    int best = 0;
    for (int k = 0; k < candidates.count; ++k) {
      const int64_t gain =
          kernel_.lowest(distances_.data() + k * next.padded_out, next.padded_out) + fee;
      changes[k] = candidates.costs[k] + std::min<int64_t>(gain, 0);
      if (changes[k] < changes[best]) best = k;
    }
    return best;
  }

  // How far an outcome lies below the likeliest, in 1/32 bit.
  static int32_t steps_below(const int32_t* y, const PackedLayer& layer, int64_t outcome) {
    const int32_t most = *std::max_element(y, y + layer.out);
    const uint32_t steps =
        (static_cast<uint32_t>(most) - static_cast<uint32_t>(y[outcome])) >> layer.shift;
    return static_cast<int32_t>(std::min<uint32_t>(steps, kMostSteps));
  }

  void dense(const PackedLayer& layer, const uint8_t* x, int64_t rows) {
    kernel_.dense(x, rows, layer.padded_in, layer.weights.data(), layer.bias.data(),
                  layer.padded_out, y_.data());
  }

  template <class Coder>
  int64_t outcome(Coder& coder, const PackedLayer& layer, int64_t most, const int32_t* y,
                  int64_t at, int64_t known) {
    const uint32_t total = kernel_.weigh(y, layer.out, layer.shift, weights_.data());
    return coder.outcome(kernel_, {weights_.data(), layer.out, most, total}, at, known);
  }

  const PriorNetwork& network_;
  const Planes planes_;
  const PriorKernel& kernel_;
  Buffer<uint8_t> x_;
  Buffer<int32_t> y_, member_outputs_, group_outputs_, distances_;
  Buffer<int16_t> targets_, left_;
  std::vector<Candidates> candidates_;
  Buffer<uint32_t> weights_;
  Place places_[kRows];
  int64_t count_ = 0;
};

// Positions of one front (2 * row + column) do not depend on one another.
template <class Coder>
void PriorNetwork::run(Planes planes, int64_t first_row, const PriorKernel& kernel,
                       Coder& coder) const {
  Rows rows(*this, planes, kernel);
  const uint32_t* known = planes.plane(planes.q);
  auto flush = [&] {
    if (!rows.count()) return;
    rows.evaluate();
    if constexpr (Coder::chooses) {
      rows.choose(coder);
    } else {
      for (int64_t r = 0; r < rows.count(); ++r) {
        const int64_t at = rows.place(r).row * planes.columns + rows.place(r).column;
        const uint32_t code = rows.code(coder, r, Coder::knows_codes ? known[at] : 0);
        if constexpr (!Coder::knows_codes) coder.codes[at] = code;
      }
    }
    rows.clear();
  };
  const int64_t last = 2 * (planes.rows - 1) + planes.columns - 1;
  for (int64_t front = 2 * first_row; front <= last; ++front) {
    const int64_t lowest = std::max(first_row, (front - planes.columns + 2) / 2);
    const int64_t last_row = std::min(planes.rows - 1, front / 2);
    for (int64_t row = lowest; row <= last_row; ++row) {
      rows.add({row, front - 2 * row});
      if (rows.full()) flush();
    }
    if (!Coder::knows_codes) flush();
  }
  flush();
}

template <int kModels, class Coder>
Coder PriorNetwork::run_mixed(Planes planes, const PriorKernel& kernel, Coder coder,
                              uint32_t* codes) const {
  const int levels = levels_of(group_size_) + (groups_ ? levels_of(groups_->out) : 0);
  Mixed<Coder, kModels> mixed(planes, levels, std::move(coder), codes);
  run(planes, 0, kernel, mixed);
  return std::move(mixed.coder);
}

template <class Coder>
Coder PriorNetwork::run_mixed(Planes planes, const PriorKernel& kernel, Coder coder,
                              uint32_t* codes) const {
  if (models_of(planes.q) == 4) return run_mixed<4>(planes, kernel, std::move(coder), codes);
  return run_mixed<5>(planes, kernel, std::move(coder), codes);
}

std::vector<uint8_t> PriorNetwork::encode(Planes planes, const PriorKernel& kernel,
                                          bool mixed) const {
  if (mixed) return run_mixed(planes, kernel, RangeEncoder(), nullptr).finish();
  Encode coder;
  run(planes, 0, kernel, coder);
  return coder.coder.finish();
}

bool PriorNetwork::decode(Planes planes, const uint8_t* bytes, int64_t count,
                          const PriorKernel& kernel, bool mixed, uint32_t* codes) const {
  if (mixed) return !run_mixed(planes, kernel, RangeDecoder(bytes, count), codes).has_rest();
  Decode coder{RangeDecoder(bytes, count), codes};
  run(planes, 0, kernel, coder);
  return !coder.coder.has_rest();
}

void PriorNetwork::choose(Planes planes, const Wanted& wanted, const PriorKernel& kernel,
                          uint32_t* codes) const {
  Choose coder{wanted, {}, nullptr, codes};
  for (size_t group = 0; group < members_.size(); ++group)
    coder.members.emplace_back(wanted.embeddings, wanted.dim, order_.data() + group * group_size_,
                               members_[group].out);
  if (wanted.next_size)
    coder.next = std::make_unique<PackedEmbeddings>(wanted.next, wanted.dim, nullptr,
                                                    wanted.next_size);
  run(planes, wanted.first_row, kernel, coder);
}

void PriorNetwork::weights(Planes planes, const PriorKernel& kernel, uint32_t* weights) const {
  for (int64_t i = 0; i < planes.size(); ++i) {
    weights[i * 4] = groups_ ? 0 : 1;
    weights[i * 4 + 1] = 1;
  }
  Weigh coder{weights, groups_ != nullptr};
  run(planes, 0, kernel, coder);
}

}  // namespace vqtok
