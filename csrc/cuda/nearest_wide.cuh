// The scan for many dimensions: a matrix product on tensor cores in 3xTF32 (each float32 is split
// into two TF32 numbers, of whose four products the three that matter are added up), fed by
// asynchronous copies, and reduced to the two best scores of a row in registers.
#pragma once
#include "cuda/nearest_common.cuh"

namespace vqtok {

// A block scores kTileRows rows against kTileCodes codes, kDepth dimensions at a time; each of its
// warps a part of kWarpRows x kWarpCodes, in tiles of 16 x 8.
constexpr int kTileRows = 128, kTileCodes = 128, kDepth = 16;
constexpr int kWideThreads = 256;
constexpr int kWarpRows = 32, kWarpCodes = 64;
constexpr int kWarpsAcross = kTileCodes / kWarpCodes;
constexpr int kRowTiles = kWarpRows / 16, kCodeTiles = kWarpCodes / 8;
static_assert(kTileRows / kWarpRows * kWarpsAcross * kWarp == kWideThreads, "warps cover the block");

constexpr int kPitch = kDepth + 4;  // of a line in shared memory: warps then meet all banks at once
constexpr int kStages = 3;          // of the pipeline: one is multiplied while others are filled

struct WideStage {
  float rows[kTileRows][kPitch];
  float codes[kTileCodes][kPitch];
};

// Fills a stage with dimensions [first_dim, first_dim + kDepth). Rows are copied asynchronously
// where they are float32 and aligned, otherwise converted.
__device__ inline void fill_stage(WideStage& stage, const Matrix& x, const CodeTable& table,
                                  long long first_row, int first_code, int first_dim,
                                  bool copy_rows) {
  constexpr int kQuads = kDepth / 4;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kTileCodes * kQuads; i += kWideThreads) {
    const int code = i / kQuads, d = i % kQuads * 4;
    start_copy(&stage.codes[code][d],
               table.values + static_cast<long long>(first_code + code) * table.width + first_dim + d,
               16);
  }
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kQuads; i += kWideThreads) {
    const int r = i / kQuads, d = first_dim + i % kQuads * 4;
    const long long row = first_row + r;
    float* to = &stage.rows[r][i % kQuads * 4];
    const bool inside = row < x.rows && d < x.dim;
    if (copy_rows) {
      start_copy(to, inside ? x.row<float>(row) + d : x.row<float>(0), inside ? 16 : 0);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        to[j] = inside && d + j < x.dim ? load_float(x, row, d + j) : 0.0f;
    }
  }
}

struct Split {
  uint32_t high, low;
};

__device__ inline Split split(float v) {
  Split parts;
  parts.high = to_tf32(v);
  parts.low = to_tf32(v - __uint_as_float(parts.high));
  return parts;
}

// Where a thread's numbers lie in the 16x8, 8x8 and 16x8 tiles of multiply_tf32.
struct Place {
  int row, code;      // of the warp's part, in the block's tile
  int group, member;  // of the lane

  __device__ Place() {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    row = warp / kWarpsAcross * kWarpRows;
    code = warp % kWarpsAcross * kWarpCodes;
    group = lane / 4;
    member = lane % 4;
  }
};

using Scores = float[kRowTiles][kCodeTiles][4];

__device__ inline void multiply_stage(const WideStage& stage, const Place& at, Scores& scores) {
#pragma unroll 1  // registers are short
  for (int d = 0; d < kDepth; d += 8) {
    uint32_t high[kRowTiles][4], low[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = at.row + m * 16 + at.group + i % 2 * 8;
        const Split x = split(stage.rows[row][d + at.member + i / 2 * 4]);
        high[m][i] = x.high;
        low[m][i] = x.low;
      }
#pragma unroll
    for (int n = 0; n < kCodeTiles; ++n) {
      uint32_t code_high[2], code_low[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const Split c = split(stage.codes[at.code + n * 8 + at.group][d + at.member + i * 4]);
        code_high[i] = c.high;
        code_low[i] = c.low;
      }
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        // Sums of their own, or the cut-off bits of long sums would blur all but a few rows.
        float sums[4] = {};
        multiply_tf32(sums, low[m], code_high);
        multiply_tf32(sums, high[m], code_low);
        multiply_tf32(sums, high[m], code_high);
#pragma unroll
        for (int i = 0; i < 4; ++i) scores[m][n][i] += sums[i];
      }
    }
  }
}

// Scores start from the offsets of their codes.
__device__ inline void start_scores(const CodeTable& table, int first_code, const Place& at,
                                    Scores& scores) {
#pragma unroll
  for (int n = 0; n < kCodeTiles; ++n) {
    const int code = first_code + at.code + n * 8 + at.member * 2;
    const float2 offsets = *reinterpret_cast<const float2*>(table.offsets + code);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      scores[m][n][0] = scores[m][n][2] = offsets.x;
      scores[m][n][1] = scores[m][n][3] = offsets.y;
    }
  }
}

__device__ inline void rank_scores(int first_code, const Place& at, const Scores& scores,
                                   TopTwo (&top)[kRowTiles * 2]) {
#pragma unroll
  for (int n = 0; n < kCodeTiles; ++n)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int code = first_code + at.code + n * 8 + at.member * 2 + j;
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        top[m * 2].add(scores[m][n][j], code);
        top[m * 2 + 1].add(scores[m][n][2 + j], code);
      }
    }
}

// The four lanes of a group share rows.
__device__ inline void publish_rows(const ScanResult& result, long long first_row, long long rows,
                                    const Place& at, TopTwo (&top)[kRowTiles * 2]) {
#pragma unroll
  for (int i = 0; i < kRowTiles * 2; ++i) {
#pragma unroll
    for (int offset = 2; offset > 0; offset /= 2) {
      TopTwo other;
      other.best = __shfl_xor_sync(kAllLanes, top[i].best, offset);
      other.second = __shfl_xor_sync(kAllLanes, top[i].second, offset);
      other.code = __shfl_xor_sync(kAllLanes, top[i].code, offset);
      top[i].merge(other);
    }
    const long long row = first_row + at.row + i * 8 + at.group;
    if (at.member == 0 && row < rows) publish(result, row, top[i]);
  }
}

// blockIdx.y of gridDim.y chooses the codes; blocks with the same codes share out the rows.
__global__ void __launch_bounds__(kWideThreads, 1)
    scan_wide(Matrix x, CodeTable table, bool copy_rows, ScanResult result) {
  VQTOK_DYNAMIC_SHARED(shared);
  WideStage* stages = reinterpret_cast<WideStage*>(shared);
  const Place at;
  const long long tiles = table.padded / kTileCodes;
  const int begin = static_cast<int>(tiles * blockIdx.y / gridDim.y);
  const int end = static_cast<int>(tiles * (blockIdx.y + 1) / gridDim.y);
  const int depth_steps = table.width / kDepth;

  for (long long first_row = static_cast<long long>(blockIdx.x) * kTileRows; first_row < x.rows;
       first_row += static_cast<long long>(gridDim.x) * kTileRows) {
    // where the copies are: kStages - 1 steps ahead
    int fill_code = begin, fill_depth = 0, fill_slot = 0;
    auto fill_next = [&] {
      if (fill_code < end) {
        fill_stage(stages[fill_slot], x, table, first_row, fill_code * kTileCodes,
                   fill_depth * kDepth, copy_rows);
        fill_slot = fill_slot + 1 == kStages ? 0 : fill_slot + 1;
        if (++fill_depth == depth_steps) {
          fill_depth = 0;
          ++fill_code;
        }
      }
      commit_copies();
    };
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) fill_next();

    TopTwo top[kRowTiles * 2];
#pragma unroll
    for (int i = 0; i < kRowTiles * 2; ++i) top[i] = TopTwo{-INFINITY, -INFINITY, 0};
    int slot = 0;
    for (int tile = begin; tile < end; ++tile) {
      Scores scores;
      start_scores(table, tile * kTileCodes, at, scores);
      for (int step = 0; step < depth_steps; ++step) {
        wait_for_copies<kStages - 2>();
        __syncthreads();  // this stage is complete, and the one before it no longer read
        fill_next();
        multiply_stage(stages[slot], at, scores);
        slot = slot + 1 == kStages ? 0 : slot + 1;
      }
      rank_scores(tile * kTileCodes, at, scores, top);
    }
    publish_rows(result, first_row, x.rows, at, top);
    wait_for_copies<0>();
    __syncthreads();  // the stages are no longer read
  }
}

}  // namespace vqtok
