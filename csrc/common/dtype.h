// The element types that every op accepts, and their exact values.
#pragma once
#include <stdint.h>
#include <string.h>

#include "common/platform.h"

namespace vqtok {

enum class DType : int { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

struct BFloat16 { uint16_t bits; };
struct Float16 { uint16_t bits; };

VQTOK_BOTH inline float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

VQTOK_BOTH inline float to_float(float v) { return v; }
VQTOK_BOTH inline float to_float(double v) { return static_cast<float>(v); }  // the only inexact one
VQTOK_BOTH inline float to_float(BFloat16 v) { return bits_to_float(static_cast<uint32_t>(v.bits) << 16); }
VQTOK_BOTH inline float to_float(Float16 v) {
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000u) << 16;
  const uint32_t magnitude = v.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x0400u) return bits_to_float(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}

VQTOK_BOTH inline double to_double(double v) { return v; }
template <class T> VQTOK_BOTH double to_double(T v) { return static_cast<double>(to_float(v)); }

// A read-only matrix whose rows are contiguous and row_stride elements apart.
struct Matrix {
  const void* data;
  DType dtype;
  int64_t rows;
  int64_t dim;
  int64_t row_stride;

  template <class T> VQTOK_BOTH const T* row(int64_t n) const {
    return static_cast<const T*>(data) + n * row_stride;
  }
};

// Calls f(T{}) with the C++ type of dtype.
template <class F> decltype(auto) with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64: return f(double{});
    case DType::bf16: return f(BFloat16{});
    case DType::f16: return f(Float16{});
    default: return f(float{});
  }
}

inline void load_row(const Matrix& m, int64_t n, float* out) {
  with_type(m.dtype, [&](auto type) {
    const auto* row = m.row<decltype(type)>(n);
    for (int64_t d = 0; d < m.dim; ++d) out[d] = to_float(row[d]);
  });
}

inline void load_row(const Matrix& m, int64_t n, double* out) {
  with_type(m.dtype, [&](auto type) {
    const auto* row = m.row<decltype(type)>(n);
    for (int64_t d = 0; d < m.dim; ++d) out[d] = to_double(row[d]);
  });
}

}  // namespace vqtok
