// What the kernels of the lookup share.
//
// prepare_codes -> scan_small or scan_wide -> decide_rows -> settle_rows. A scan finds the best and
// the second best float32 score x.c - |c|^2/2 of each row. decide_rows takes the best if it leads by
// more than the scan can be wrong by; settle_rows evaluates the definition in float64 for the
// codes that may be the nearest of the rows left open.
#pragma once
#include "common/dtype.h"
#include "common/error_bound.h"
#include "cuda/nearest.h"
#include "cuda/platform.h"

namespace vqtok {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// The codebook as the scans read it.
struct CodeTable {
  float* values;   // [padded][width] float32; zeros in the padding and where a code is unusable
  float* offsets;  // [padded] -|c|^2/2; -inf in the padding and where a code is unusable
  int size;        // codes
  int padded;      // codes, with padding
  int width;       // dimensions, with padding
  bool wide;       // scanned by tensor cores
};

// What the scans find. Scores become keys: unsigned integers of which the least is the best score.
struct ScanResult {
  unsigned long long* best;  // [rows] key << 32 | code; afterwards holds what becomes of the row
  unsigned* second;          // [rows] key
};

struct NearestWork {
  CudaReport* report;
  CodeTable table;
  ScanResult result;
  long long* open_rows;  // [rows]
};

__device__ inline unsigned key_of(float score) {
  const unsigned bits = __float_as_uint(score);
  return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

__device__ inline float score_of(unsigned key) {
  return __uint_as_float(key >> 31 ? key : ~key & 0x7fffffffu);
}

// The two highest scores among the codes seen, and the code of the highest.
struct TopTwo {
  float best, second;
  int code;

  __device__ void add(float score, int k) {
    second = fmaxf(second, fminf(best, score));
    code = score > best ? k : code;
    best = fmaxf(best, score);
  }

  __device__ void merge(TopTwo other) {
    second = fmaxf(fmaxf(second, other.second), fminf(best, other.best));
    code = other.best > best ? other.code : code;
    best = fmaxf(best, other.best);
  }
};

// Adds what one thread found for a row to what others found. Whatever the order, every score but
// the best loses exactly one comparison of keys, or is a second; the best loser is the second best.
__device__ inline void publish(ScanResult result, long long row, TopTwo top) {
  const unsigned long long key =
      static_cast<unsigned long long>(key_of(top.best)) << 32 | static_cast<unsigned>(top.code);
  const unsigned long long before = atomicMin(result.best + row, key);
  const unsigned loser = static_cast<unsigned>((before > key ? before : key) >> 32);
  const unsigned second = key_of(top.second);
  atomicMin(result.second + row, loser < second ? loser : second);
}

__device__ inline double load_double(const Matrix& m, long long row, int d) {
  switch (m.dtype) {
    case DType::f64: return m.row<double>(row)[d];
    case DType::bf16: return to_double(m.row<BFloat16>(row)[d]);
    case DType::f16: return to_double(m.row<Float16>(row)[d]);
    default: return to_double(m.row<float>(row)[d]);
  }
}

__device__ inline float load_float(const Matrix& m, long long row, int d) {
  switch (m.dtype) {
    case DType::f64: return to_float(m.row<double>(row)[d]);
    case DType::bf16: return to_float(m.row<BFloat16>(row)[d]);
    case DType::f16: return to_float(m.row<Float16>(row)[d]);
    default: return m.row<float>(row)[d];
  }
}

// The bound for a scan. On tensor cores the products of 8 dimensions are added up by 3 operations,
// and these sums in float32. An operation adds 8 exact products to a float32; hardware aligns the 9
// terms (or, where it takes 4 products at a time, 2 x 5) to the largest, and cuts each and the sum
// off after 24 bits: an error of at most 12 x 2^-23 = 24 u32 of the largest term or sum. As those
// magnitudes add up to |x| C over all dimensions, that is 72 u32 of |x| C. The width/8 additions
// round by u32 of |x| C + H each; splitting each number into two TF32 numbers loses 3 x 2^-22 =
// 12 u32, the offset and float64 inputs 3 u32. Subnormal TF32 numbers and sums may be flushed, of
// which there are fewer than 16 per dimension. Of more than some 100 dimensions float32 sums, which
// search_row compares with the same threshold, have the larger error: error_bound() sees to that.
VQTOK_BOTH inline ErrorBound scan_bound(const CodeTable& table, int dim,
                                        double largest_squared_norm) {
  return table.wide ? error_bound(dim, largest_squared_norm, 0.125 * table.width + 100, 0x1p-122)
                    : error_bound(dim, largest_squared_norm);
}

constexpr double kTensorError = 12 * 0x1p-23;  // of one operation, as above

}  // namespace vqtok
