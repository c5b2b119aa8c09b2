// A learned prior over codes, in integers: the model of the `entropy` packing for tokenizers that
// have one. tokens/FORMAT.md defines it; the streams are the same on every machine.
#pragma once
#include <stdint.h>

#include <memory>
#include <utility>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/planes.h"
#include "cpu/prior_kernel.h"

namespace vqtok {

// A matrix int8 [out][in] and a bias int32 [out], as the file has them.
struct PriorLayer {
  const int8_t* weights;
  const int32_t* bias;
  int64_t out, in;
  int shift;
};

// Where a context lies: codebook, and offset in rows and columns.
struct PriorSlot {
  int codebook;
  int32_t rows, columns;
};

// Values 0..127, [codebook_size + 1][width], the last row for what lies outside the grid.
struct PriorEmbedding {
  std::vector<uint8_t> values;
  int64_t codebook_size = 0, width = 0;
};

// A layer as the kernels want it.
struct PackedLayer {
  explicit PackedLayer(const PriorLayer& layer);

  int64_t out, padded_out, padded_in;
  int shift;
  Buffer<int8_t> weights;
  Buffer<int32_t> bias;
};

// What codes are chosen for: a target for each position, [rows][columns][dim], which the embeddings
// [K][dim] are to come near. 1/32 bit is worth weight / 2^weight_shift of squared distance. Rows
// before first_row are known. If there is a `next` codebook, [next_size][dim], the kLookAhead best
// codes are compared by what it would leave over. For the bounds of all these see vqtok/ops/prior.py.
struct Wanted {
  const int16_t* targets;
  const int16_t* embeddings;
  int64_t dim;
  int32_t weight;
  int weight_shift;
  int32_t limit;  // of the magnitude of targets
  int64_t first_row;
  const int16_t* next;
  int64_t next_size;
};

// The network of one codebook. Its arguments were checked: see vqtok/tokens/prior.py.
class PriorNetwork {
 public:
  // `order`: the codes in the order of the output's rows, which are cut into as many groups as
  // `groups` has outcomes; both null for a single level. `embeddings`: one per codebook, kept.
  PriorNetwork(std::vector<PriorSlot> slots, const PriorEmbedding* embeddings,
               const std::vector<PriorLayer>& hidden, const PriorLayer& output,
               const PriorLayer* groups, const int32_t* order);

  // The stream of plane q: of what the network predicts alone, or mixed with what counters learn
  // from the plane.
  std::vector<uint8_t> encode(Planes planes, const PriorKernel& kernel, bool mixed) const;

  // Writes plane q. False if bytes were left over.
  bool decode(Planes planes, const uint8_t* bytes, int64_t count, const PriorKernel& kernel,
              bool mixed, uint32_t* codes) const;

  // Writes plane q: position after position in coding order the code with the least squared
  // distance to its target plus `weight` times its bits, given the codes chosen before.
  void choose(Planes planes, const Wanted& wanted, const PriorKernel& kernel,
              uint32_t* codes) const;

  // Writes four numbers for each position in raster order: the weight of the code's group and that
  // of all groups (1 of 1 for a single level), the code's own and that of all in its group.
  void weights(Planes planes, const PriorKernel& kernel, uint32_t* weights) const;

 private:
  struct Place { int64_t row, column; };
  struct Rank { int32_t group, member; };  // of a code
  class Rows;

  template <class Coder>
  void run(Planes planes, int64_t first_row, const PriorKernel& kernel, Coder& coder) const;

  template <class Coder>
  Coder run_mixed(Planes planes, const PriorKernel& kernel, Coder coder, uint32_t* codes) const;
  template <int kModels, class Coder>
  Coder run_mixed(Planes planes, const PriorKernel& kernel, Coder coder, uint32_t* codes) const;

  std::vector<PriorSlot> slots_;
  const PriorEmbedding* embeddings_;
  std::vector<PackedLayer> hidden_, members_;
  std::unique_ptr<PackedLayer> groups_;
  std::vector<uint32_t> order_;
  std::vector<Rank> ranks_;
  int64_t group_size_ = 0, widest_ = 0;
};

// The networks of all codebooks and what they share.
struct Prior {
  std::vector<PriorEmbedding> embeddings;
  std::vector<PriorNetwork> networks;
};

}  // namespace vqtok
