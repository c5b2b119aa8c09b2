// The vector operations that kernels are written in, for the instruction set being compiled.
//
// Objects for a particular instruction set may include only this header, intrinsics and C headers,
// and everything in them has internal linkage: an inline function shared with other objects could
// be the copy that the linker keeps, and would then run on CPUs that lack its instructions.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// VQTOK_TABLE(name) is the name that a table of kernels has for this instruction set.
#define VQTOK_JOIN(name, isa) name##_##isa
#define VQTOK_NAME(name, isa) VQTOK_JOIN(name, isa)
#define VQTOK_TABLE(name) VQTOK_NAME(name, VQTOK_ISA)
#define UNROLL _Pragma("GCC unroll 16")

namespace {

#if defined(__AVX512F__)

typedef __m512 VecF;
typedef __m512i VecI;
constexpr int kLanes = 16;
inline VecF load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, VecF v) { _mm512_storeu_ps(p, v); }
inline VecI load(const int32_t* p) { return _mm512_loadu_si512(p); }
inline void store(int32_t* p, VecI v) { _mm512_storeu_si512(p, v); }
inline VecF splat(float v) { return _mm512_set1_ps(v); }
inline VecI splat(int32_t v) { return _mm512_set1_epi32(v); }
inline VecF multiply_add(VecF a, VecF b, VecF c) { return _mm512_fmadd_ps(a, b, c); }
inline VecF subtract(VecF a, VecF b) { return _mm512_sub_ps(a, b); }
inline VecF square_root(VecF v) { return _mm512_sqrt_ps(v); }
inline VecF max(VecF a, VecF b) { return _mm512_max_ps(a, b); }
inline VecF min(VecF a, VecF b) { return _mm512_min_ps(a, b); }
inline VecI if_greater(VecF a, VecF b, VecI yes, VecI no) {
  return _mm512_mask_mov_epi32(no, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), yes);
}
inline uint32_t mask_at_least(VecF a, VecF b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }

#elif defined(__AVX2__)

typedef __m256 VecF;
typedef __m256i VecI;
constexpr int kLanes = 8;
inline VecF load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, VecF v) { _mm256_storeu_ps(p, v); }
inline VecI load(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store(int32_t* p, VecI v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
inline VecF splat(float v) { return _mm256_set1_ps(v); }
inline VecI splat(int32_t v) { return _mm256_set1_epi32(v); }
inline VecF multiply_add(VecF a, VecF b, VecF c) { return _mm256_fmadd_ps(a, b, c); }
inline VecF subtract(VecF a, VecF b) { return _mm256_sub_ps(a, b); }
inline VecF square_root(VecF v) { return _mm256_sqrt_ps(v); }
inline VecF max(VecF a, VecF b) { return _mm256_max_ps(a, b); }
inline VecF min(VecF a, VecF b) { return _mm256_min_ps(a, b); }
inline VecI if_greater(VecF a, VecF b, VecI yes, VecI no) {
  const __m256 greater = _mm256_cmp_ps(a, b, _CMP_GT_OQ);
  return _mm256_castps_si256(
      _mm256_blendv_ps(_mm256_castsi256_ps(no), _mm256_castsi256_ps(yes), greater));
}
inline uint32_t mask_at_least(VecF a, VecF b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
}

#else  // GCC vectors of 16 bytes: SSE2 on x86-64, NEON on aarch64

typedef float VecF __attribute__((vector_size(16)));
typedef int32_t VecI __attribute__((vector_size(16)));
constexpr int kLanes = 4;
inline VecF load(const float* p) {
  VecF v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, VecF v) { memcpy(p, &v, sizeof v); }
inline VecI load(const int32_t* p) {
  VecI v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline void store(int32_t* p, VecI v) { memcpy(p, &v, sizeof v); }
inline VecF splat(float v) { return VecF{v, v, v, v}; }
inline VecI splat(int32_t v) { return VecI{v, v, v, v}; }
inline VecF multiply_add(VecF a, VecF b, VecF c) {
#if defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}
inline VecF subtract(VecF a, VecF b) { return a - b; }
inline VecF square_root(VecF v) {
#if defined(__aarch64__)
  return vsqrtq_f32(v);
#else
  return VecF{__builtin_sqrtf(v[0]), __builtin_sqrtf(v[1]), __builtin_sqrtf(v[2]),
              __builtin_sqrtf(v[3])};
#endif
}
inline VecF max(VecF a, VecF b) { return a > b ? a : b; }
inline VecF min(VecF a, VecF b) { return a < b ? a : b; }
inline VecI if_greater(VecF a, VecF b, VecI yes, VecI no) { return a > b ? yes : no; }
inline uint32_t mask_at_least(VecF a, VecF b) {
  const VecI m = a >= b;
  return (m[0] & 1u) | (m[1] & 2u) | (m[2] & 4u) | (m[3] & 8u);
}

#endif

}  // namespace
