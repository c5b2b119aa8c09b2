#include "cpu/isa.h"

#include <stdexcept>
#include <string>

namespace vqtok {
namespace {

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

const Isa isas[] = {
    {"baseline", &nearest_kernel_baseline, &ema_kernel_baseline, always},
#if defined(__x86_64__)
    {"avx2", &nearest_kernel_avx2, &ema_kernel_avx2, has_avx2},
    {"avx512", &nearest_kernel_avx512, &ema_kernel_avx512, has_avx512},
#endif
};
constexpr int isa_count = sizeof isas / sizeof isas[0];

}  // namespace

const Isa* compiled_isas(int* count) {
  *count = isa_count;
  return isas;
}

const Isa& choose_isa(const char* name) {
  const std::string wanted = name ? name : "";
  std::string known;
  for (int i = isa_count - 1; i >= 0; --i) {
    if (wanted.empty() ? isas[i].supported() : wanted == isas[i].name) {
      if (!isas[i].supported()) throw std::invalid_argument("this CPU lacks " + wanted);
      return isas[i];
    }
    known = isas[i].name + std::string(known.empty() ? "" : ", ") + known;
  }
  throw std::invalid_argument("unknown instruction set '" + wanted + "': choose one of " + known);
}

}  // namespace vqtok
