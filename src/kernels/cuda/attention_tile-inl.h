// How prefill's rows are dealt to blocks of threads.
//
// A block computes kTileRows rows of the matrix [rows * group, head_dim] of one sequence and KV head, group being the
// query heads that share it: row m is query head m % group of the sequence's row m / group. So K and V are read once
// for all of them.
#ifndef SWIFTKV_KERNELS_CUDA_ATTENTION_TILE_INL_H_
#define SWIFTKV_KERNELS_CUDA_ATTENTION_TILE_INL_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {

inline constexpr int kTileRows = 128;
inline constexpr int kNoWindow = 1 << 30;

inline int WindowOf(const AttentionLaunch& args) {
  return args.window > 0 ? static_cast<int>(std::min<int64_t>(args.window, kNoWindow)) : kNoWindow;
}

// Tiles of the longest sequence, KV heads, sequences.
inline dim3 RowTileGrid(const AttentionLaunch& args) {
  const int64_t rows = args.max_rows * (args.heads / args.kv_heads);
  return dim3(static_cast<unsigned>((rows + kTileRows - 1) / kTileRows), static_cast<unsigned>(args.kv_heads),
              static_cast<unsigned>(args.count));
}

// The rows of one block.
struct RowTile {
  const AttentionSequence* sequence;
  int group;  // query heads of the KV head
  int begin;  // of kTileRows rows in [rows * group]
  int end;    // rows * group
};

__device__ __forceinline__ RowTile ThisRowTile(const AttentionLaunch& args) {
  const AttentionSequence* sequence = args.sequences + blockIdx.z;
  const int group = static_cast<int>(args.heads / args.kv_heads);
  return {.sequence = sequence,
          .group = group,
          .begin = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kTileRows,  // the longest contexts first
          .end = static_cast<int>(sequence->rows) * group};
}

// Where row m of the matrix stands in q or out. Rows of q are read 16 bytes at a time, so they begin at multiples of
// that.
__device__ __forceinline__ int64_t RowOffset(const RowTile& tile, int row, int64_t stride, int head_dim) {
  return (tile.sequence->row_begin + row / tile.group) * stride +
         (static_cast<int64_t>(blockIdx.y) * tile.group + row % tile.group) * head_dim;
}

// Writes log(sum of e^(scaled score)) of row m, of whose unscaled scores `max` is the largest, and `sum` the sum of
// e^(scale (score - max)).
__device__ __forceinline__ void WriteLogSumExp(const AttentionLaunch& args, const RowTile& tile, int row, float max,
                                               float sum) {
  if (args.log_sum_exp == nullptr) return;
  args.log_sum_exp[RowOffset(tile, row, args.heads, 1)] = max * args.scale + logf(sum);
}

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_ATTENTION_TILE_INL_H_
