#include "cpu/buffer.h"

#include <stdlib.h>

#include <new>

namespace vqtok {
namespace {

constexpr size_t kLeastKept = 4 << 10, kMostKept = 512 << 10;  // malloc is good at smaller ones
constexpr int kBlocks = 12;

struct Block {
  void* memory;
  size_t bytes;
};

// What this thread gave back last.
class Spare {
 public:
  ~Spare() {
    for (Block& block : blocks_) {
      free(block.memory);
      block = {};  // what is given back later is lost, not found again
    }
  }

  void* take(size_t bytes) {
    for (Block& block : blocks_)
      if (block.bytes == bytes) {
        void* memory = block.memory;
        block = {};
        return memory;
      }
    return nullptr;
  }

  void give(Block given) {
    Block& place = blocks_[next_++ % kBlocks];
    free(place.memory);
    place = given;
  }

 private:
  Block blocks_[kBlocks] = {};
  unsigned next_ = 0;
};

#if defined(__SANITIZE_ADDRESS__)  // which is to see every block come and go
bool keeps(size_t) { return false; }
#else
bool keeps(size_t bytes) { return bytes >= kLeastKept && bytes <= kMostKept; }
#endif

thread_local Spare spare;

}  // namespace

void* take_memory(size_t bytes) {
  void* memory = keeps(bytes) ? spare.take(bytes) : nullptr;
  if (!memory) memory = aligned_alloc(64, bytes);
  if (!memory) throw std::bad_alloc();
  return memory;
}

void give_memory(void* memory, size_t bytes) noexcept {
  if (keeps(bytes))
    spare.give({memory, bytes});
  else
    free(memory);
}

}  // namespace vqtok
