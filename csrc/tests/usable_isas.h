// The instruction sets that tests can run here.
#pragma once
#include <vector>

#include "cpu/isa.h"

namespace vqtok {

inline std::vector<const Isa*> usable_isas() {
  int count = 0;
  const Isa* all = compiled_isas(&count);
  std::vector<const Isa*> usable;
  for (int i = 0; i < count; ++i)
    if (all[i].supported()) usable.push_back(&all[i]);
  return usable;
}

}  // namespace vqtok
