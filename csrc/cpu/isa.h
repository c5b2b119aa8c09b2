// Instruction sets: which ones this machine has, and which one is in use.
#pragma once
#include "cpu/ema_kernel.h"
#include "cpu/nearest_kernel.h"
#include "cpu/prior_kernel.h"

namespace vqtok {

struct Isa {
  const char* name;
  const NearestKernel* nearest;
  const EmaKernel* ema;
  const PriorKernel* prior;
  bool (*supported)();
};

// The instruction sets compiled in, weakest first; `count` of them.
const Isa* compiled_isas(int* count);

// The best supported one, or the one named; throws std::invalid_argument if that cannot run here.
const Isa& choose_isa(const char* name);

}  // namespace vqtok
