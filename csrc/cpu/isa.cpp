#include "cpu/isa.h"

#include <stdexcept>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vqtok {
namespace {

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

// CPUID leaf 7: bits 22 (bfloat16), 24 (tiles) and 25 (bytes) of EDX. GCC 10 has no name for them.
bool amx_in_cpu() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 13) == 13;
}

bool has_avx512vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

// AMX also needs the kernel's leave to use its large registers, for this and all later threads.
bool has_amx() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool granted =
      has_avx512vnni() && amx_in_cpu() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
#endif

const Isa isas[] = {
    {"baseline", &nearest_kernel_baseline, &ema_kernel_baseline, &prior_kernel_baseline, always},
#if defined(__x86_64__)
    {"avx2", &nearest_kernel_avx2, &ema_kernel_avx2, &prior_kernel_avx2, has_avx2},
    {"avx512", &nearest_kernel_avx512, &ema_kernel_avx512, &prior_kernel_avx512, has_avx512},
    {"avx512vnni", &nearest_kernel_avx512vnni, &ema_kernel_avx512vnni, &prior_kernel_avx512vnni,
     has_avx512vnni},
    {"amx", &nearest_kernel_amx, &ema_kernel_amx, &prior_kernel_amx, has_amx},
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
