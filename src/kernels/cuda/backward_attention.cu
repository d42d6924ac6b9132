// The backward of attention on tensor cores, after FlashAttention-2, in two kernels, so that every sum has one order
// and needs no atomics: one for dK and dV, whose blocks walk the queries that attend to their keys, and one for dq,
// whose blocks walk the keys. Both compute the scores anew.
//
// A block owns a tile of 64 rows, 16 of each warp, and walks tiles of 64 other rows. Scores exist in registers alone,
// as [own rows, other rows]: in the fragments of sums they are what the next product takes as its left side.
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_tile-inl.h"
#include "kernels/cuda/backward.h"
#include "kernels/cuda/backward_attention.h"
#include "kernels/cuda/mma-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kTile = kAttentionBackwardTile;
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kFragments = kTile / 8;  // of a warp's rows by a tile

template <int kHeadDimension>
struct Shape {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr int kRowBytes = kHeadDim * 2;
  static constexpr int kTileBytes = kTile * kRowBytes;
  static constexpr int kBlocks = kHeadDim == 64 ? 3 : 2;  // of a multiprocessor, as registers allow
  // Shared memory: the two tiles that the block owns, two stages of two others, two stages of the queries' sums. That
  // is as much as a block can have on every device; multiprocessors of compute capability 8.0, 9.0 and 10.0 have room
  // for kBlocks of them.
  static constexpr int kOthersOffset = 2 * kTileBytes;
  static constexpr int kSumsOffset = kOthersOffset + 4 * kTileBytes;
  static constexpr int kSharedBytes = kSumsOffset + 2 * kTile * int{sizeof(QuerySums)};
};

// [16, 64] of a warp, in fragments (MultiplyAdd): own row 8 * half + lane / 4 of the warp's, other row 8 * n +
// 2 * (lane % 4) + e at [n][2 * half + e].
using Scores = float[kFragments][4];
// The same as the left side of a product over the other rows.
using Weights = uint32_t[kTile / 16][4];
template <typename Shape>
using Sums = float[Shape::kHeadDim / 8][4];

// The block's tile: rows `first` and following of a document, of which there are `count`.
struct Tile {
  int64_t row_begin;  // the document's
  int rows;           // the document's
  int index;          // first / kTile
  int first;
  int count;
};

__device__ __forceinline__ Tile MakeTile(const AttentionBackwardTile& tile, int index) {
  const int first = index * kTile;
  return {.row_begin = tile.row_begin,
          .rows = tile.rows,
          .index = index,
          .first = first,
          .count = min(kTile, tile.rows - first)};
}

__device__ __forceinline__ int TilesOf(int rows) { return (rows + kTile - 1) / kTile; }

// How many tiles before a query's own have keys that it may attend to.
__device__ __forceinline__ int TilesBack(int window) { return (window + kTile - 2) / kTile; }

// Starts the copies of `count` rows, `stride` elements apart, to a tile; zeros for rows past them.
template <typename Shape>
__device__ __forceinline__ void LoadTile(const __nv_bfloat16* rows, int64_t stride, int count, uint32_t to) {
  constexpr int kRowChunks = Shape::kRowBytes / 16;
  constexpr int kRowStep = kThreads / kRowChunks;
  static_assert(kRowStep % 8 == 0, "rows so far apart are swizzled alike");
  const int row = static_cast<int>(threadIdx.x) / kRowChunks;
  const int chunk = static_cast<int>(threadIdx.x) % kRowChunks;
  to += SwizzledOffset<Shape::kRowBytes>(row, chunk);
#pragma unroll
  for (int i = 0; i < kTile; i += kRowStep) {
    const bool valid = row + i < count;
    CopyAsync16(to + i * Shape::kRowBytes, rows + (valid ? (row + i) * stride + chunk * 8 : 0), valid);
  }
}

// products[16, 64] = own[16, head_dim] other[64, head_dim]^T
template <typename Shape>
__device__ __forceinline__ void MultiplyRows(uint32_t own, uint32_t other, Scores& products) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp_row = static_cast<int>(threadIdx.x / 32) * 16;
  const uint32_t own_address = own + SwizzledOffset<Shape::kRowBytes>(warp_row + lane % 16, lane / 16);
  // The matrices of one load: rows 0 .. 7 and 8 .. 15, of each the lower and the upper half of 16 dimensions.
  const uint32_t other_address = other + SwizzledOffset<Shape::kRowBytes>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
  for (int n = 0; n < kFragments; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) products[n][i] = 0;
  }
#pragma unroll 4  // all at once would need more registers than there are
  for (int k = 0; k < Shape::kHeadDim / 16; ++k) {
    uint32_t left[4];
    LoadMatrices(own_address ^ (k * 32), left);
#pragma unroll
    for (int n = 0; n < kTile / 16; ++n) {
      uint32_t right[4];
      LoadMatrices((other_address ^ (k * 32)) + n * 16 * Shape::kRowBytes, right);
      MultiplyAdd(products[2 * n], left, right[0], right[1]);
      MultiplyAdd(products[2 * n + 1], left, right[2], right[3]);
    }
  }
}

// sums[16, head_dim] += weights[16, 64] other[64, head_dim]
template <typename Shape>
__device__ __forceinline__ void AddWeighted(const Weights& weights, uint32_t other, Sums<Shape>& sums) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  // The matrices of one load, transposed: dimensions 0 .. 7 and 8 .. 15, of each rows 0 .. 7 and 8 .. 15.
  const uint32_t address = other + SwizzledOffset<Shape::kRowBytes>(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < kTile / 16; ++k) {
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 16; ++n) {
      uint32_t right[4];
      LoadMatricesTransposed((address ^ (n * 32)) + k * 16 * Shape::kRowBytes, right);
      MultiplyAdd(sums[2 * n], weights[k], right[0], right[1]);
      MultiplyAdd(sums[2 * n + 1], weights[k], right[2], right[3]);
    }
  }
}

__device__ __forceinline__ void Pack(const Scores& scores, Weights& weights) {
#pragma unroll
  for (int n = 0; n < kFragments; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      weights[n / 2][n % 2 * 2 + half] = PackBFloat16(scores[n][half * 2], scores[n][half * 2 + 1]);
    }
  }
}

// Scores of pairs that don't attend become -infinity. `age`: of the block's first row before the other tile's first one
// (kOwnKeys) or after it.
template <bool kOwnKeys>
__device__ __forceinline__ void MaskScores(int age, int window, Scores& scores) {
  const int own = static_cast<int>(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4);
  const int other = static_cast<int>(threadIdx.x % 4) * 2;
#pragma unroll
  for (int n = 0; n < kFragments; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int difference = own + i / 2 * 8 - (other + n * 8 + i % 2);
      const int pair_age = age + (kOwnKeys ? -difference : difference);
      if (pair_age < 0 || pair_age >= window) scores[n][i] = -INFINITY;
    }
  }
}

__device__ __forceinline__ bool NeedsMask(int age, int window) { return age < kTile || age + kTile > window; }

// Scores become P, and products, dout V^T, become dS without its scale.
__device__ __forceinline__ void Differentiate(float scale_log2, const QuerySums& sums, float& score, float& product) {
  score = Exp2(fmaf(score, scale_log2, -sums.log_sum_exp));
  product = score * (product - sums.dout_out);
}

// What both kernels have of their place: the launch, the block's tile and shared memory.
template <typename Shape>
struct Place {
  const TensorAttentionBackward& launch;
  Tile tile;
  int window;
  std::byte* shared;

  __device__ __forceinline__ uint32_t Own(int i) const { return SharedAddress(shared) + i * Shape::kTileBytes; }
  __device__ __forceinline__ uint32_t Other(int stage, int i) const {
    return SharedAddress(shared) + Shape::kOthersOffset + (stage * 2 + i) * Shape::kTileBytes;
  }
  __device__ __forceinline__ QuerySums* StageSums(int stage) const {
    return reinterpret_cast<QuerySums*>(shared + Shape::kSumsOffset) + stage * kTile;
  }
  // Tiles `index` of queries and their gradients, or of keys and values.
  __device__ __forceinline__ void LoadQueries(int64_t head, int index, uint32_t queries, uint32_t douts) const {
    const int64_t row = tile.row_begin + index * kTile;
    const int count = tile.rows - index * kTile;
    const int64_t at = head * Shape::kHeadDim;
    LoadTile<Shape>(launch.q + row * launch.q_stride + at, launch.q_stride, count, queries);
    LoadTile<Shape>(launch.dout + row * launch.dout_stride + at, launch.dout_stride, count, douts);
  }
  __device__ __forceinline__ void LoadKeys(int64_t kv_head, int index, uint32_t keys, uint32_t values) const {
    const int64_t row = tile.row_begin + index * kTile;
    const int count = tile.rows - index * kTile;
    const int64_t at = row * launch.kv_stride + kv_head * Shape::kHeadDim;
    LoadTile<Shape>(launch.k + at, launch.kv_stride, count, keys);
    LoadTile<Shape>(launch.v + at, launch.kv_stride, count, values);
  }
  // Of a document's row; rows past its end have no weight.
  __device__ __forceinline__ QuerySums SumsOf(int64_t head, int row) const {
    if (row >= tile.rows) return {.log_sum_exp = INFINITY, .dout_out = 0};
    return launch.sums[head * launch.rows + tile.row_begin + row];
  }
};

// Of the warp's 16 rows in a tile: writes or adds `scale` times the sums.
template <typename Shape, bool kAdd>
__device__ __forceinline__ void WriteSums(const Tile& tile, const Sums<Shape>& sums, float scale, int64_t head,
                                          float* out, int64_t stride) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = static_cast<int>(threadIdx.x / 32) * 16 + half * 8 + lane / 4;
    if (row >= tile.count) continue;
    float* const to = out + (tile.row_begin + tile.first + row) * stride + head * Shape::kHeadDim + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 8; ++n) {
      auto* const pair = reinterpret_cast<float2*>(to + n * 8);
      float2 values = {sums[n][half * 2] * scale, sums[n][half * 2 + 1] * scale};
      if constexpr (kAdd) {
        const float2 before = *pair;
        values = {values.x + before.x, values.y + before.y};
      }
      *pair = values;
    }
  }
}

// One tile of queries: dv += P^T dout, dk += dS^T q.
template <typename Shape>
__device__ __forceinline__ void VisitQueries(const Place<Shape>& place, int age, int stage, Sums<Shape>& dk,
                                             Sums<Shape>& dv) {
  Scores scores;
  Scores products;
  MultiplyRows<Shape>(place.Own(0), place.Other(stage, 0), scores);
  MultiplyRows<Shape>(place.Own(1), place.Other(stage, 1), products);
  if (NeedsMask(age, place.window)) MaskScores<true>(age, place.window, scores);
  const QuerySums* sums = place.StageSums(stage) + threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kFragments; ++n) {
    const float4 two = *reinterpret_cast<const float4*>(sums + n * 8);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const QuerySums of_query = i % 2 == 0 ? QuerySums{two.x, two.y} : QuerySums{two.z, two.w};
      Differentiate(place.launch.scale_log2, of_query, scores[n][i], products[n][i]);
    }
  }
  Weights weights;
  Pack(scores, weights);
  AddWeighted<Shape>(weights, place.Other(stage, 1), dv);
  Pack(products, weights);
  AddWeighted<Shape>(weights, place.Other(stage, 0), dk);
}

// Grid: KV heads, tiles.
template <typename Shape>
__global__ void __launch_bounds__(kThreads, Shape::kBlocks)
    KeyKernel(const TensorAttentionBackward launch, int window) {
  const AttentionBackwardTile tile = launch.tiles[blockIdx.y];
  const Place<Shape> place{launch, MakeTile(tile, tile.tile), window, DynamicSharedMemory()};
  const int first = place.tile.index;
  const int tiles = min(TilesOf(tile.rows), first + TilesBack(window) + 1) - first;
  const int steps = tiles * launch.group;
  const auto head_of = [&](int step) { return static_cast<int64_t>(blockIdx.x) * launch.group + step / tiles; };
  const auto load = [&](int step) {
    place.LoadQueries(head_of(step), first + step % tiles, place.Other(step % 2, 0), place.Other(step % 2, 1));
  };
  const auto sums_of = [&](int step) {
    return place.SumsOf(head_of(step), (first + step % tiles) * kTile + static_cast<int>(threadIdx.x) % kTile);
  };
  place.LoadKeys(blockIdx.x, first, place.Own(0), place.Own(1));
  load(0);
  CommitCopies();
  QuerySums next = sums_of(0);
  Sums<Shape> dk = {};
  Sums<Shape> dv = {};
  for (int step = 0; step < steps; ++step) {
    // All warps are done with the step before the last one, which had this stage.
    if (threadIdx.x < kTile) place.StageSums(step % 2)[threadIdx.x] = next;
    WaitForCopies<0>();
    // This step's tiles are there for all, and all are done with the step before.
    __syncthreads();
    if (step + 1 < steps) {
      load(step + 1);
      next = sums_of(step + 1);
    }
    CommitCopies();
    VisitQueries<Shape>(place, step % tiles * kTile, step % 2, dk, dv);
  }
  WriteSums<Shape, true>(place.tile, dk, launch.scale, blockIdx.x, launch.dk, launch.dkv_stride);
  WriteSums<Shape, true>(place.tile, dv, 1, blockIdx.x, launch.dv, launch.dkv_stride);
}

// One tile of keys: dq += dS K.
template <typename Shape>
__device__ __forceinline__ void VisitKeys(const Place<Shape>& place, const QuerySums (&sums)[2], int age, int stage,
                                          Sums<Shape>& dq) {
  Scores scores;
  Scores products;
  MultiplyRows<Shape>(place.Own(0), place.Other(stage, 0), scores);
  MultiplyRows<Shape>(place.Own(1), place.Other(stage, 1), products);
  if (NeedsMask(age, place.window)) MaskScores<false>(age, place.window, scores);
#pragma unroll
  for (int n = 0; n < kFragments; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) Differentiate(place.launch.scale_log2, sums[i / 2], scores[n][i], products[n][i]);
  }
  Weights weights;
  Pack(products, weights);
  AddWeighted<Shape>(weights, place.Other(stage, 0), dq);
}

// Grid: heads, tiles.
template <typename Shape>
__global__ void __launch_bounds__(kThreads, Shape::kBlocks)
    QueryKernel(const TensorAttentionBackward launch, int window) {
  const AttentionBackwardTile tile = launch.tiles[blockIdx.y];
  const Place<Shape> place{launch, MakeTile(tile, TilesOf(tile.rows) - 1 - tile.tile), window, DynamicSharedMemory()};
  const int own = place.tile.index;
  const int first = max(0, own - TilesBack(window));
  const int64_t kv_head = blockIdx.x / launch.group;
  place.LoadQueries(blockIdx.x, own, place.Own(0), place.Own(1));
  place.LoadKeys(kv_head, first, place.Other(first % 2, 0), place.Other(first % 2, 1));
  CommitCopies();
  QuerySums sums[2];
  for (int half = 0; half < 2; ++half) {
    const int row = static_cast<int>(threadIdx.x / 32) * 16 + half * 8 + static_cast<int>(threadIdx.x % 32) / 4;
    sums[half] = place.SumsOf(blockIdx.x, place.tile.first + row);
  }
  Sums<Shape> dq = {};
  for (int index = first; index <= own; ++index) {
    WaitForCopies<0>();
    // This tile is there for all warps, and all are done with the one before.
    __syncthreads();
    const int next = index + 1;
    if (next <= own) place.LoadKeys(kv_head, next, place.Other(next % 2, 0), place.Other(next % 2, 1));
    CommitCopies();
    VisitKeys<Shape>(place, sums, (own - index) * kTile, index % 2, dq);
  }
  WriteSums<Shape, false>(place.tile, dq, launch.scale, blockIdx.x, launch.dq, launch.dq_stride);
}

template <typename Shape>
void Launch(const TensorAttentionBackward& launch, int64_t tile_count, cudaStream_t stream) {
  static const cudaError_t keys_raised =
      cudaFuncSetAttribute(KeyKernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  static const cudaError_t queries_raised =
      cudaFuncSetAttribute(QueryKernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  static_cast<void>(keys_raised);  // a launch would fail by itself
  static_cast<void>(queries_raised);
  const int window = launch.window > 0 ? static_cast<int>(std::min<int64_t>(launch.window, kNoWindow)) : kNoWindow;
  const dim3 key_grid(static_cast<unsigned>(launch.kv_heads), static_cast<unsigned>(tile_count));
  const dim3 query_grid(static_cast<unsigned>(launch.heads), static_cast<unsigned>(tile_count));
  KeyKernel<Shape><<<key_grid, kThreads, Shape::kSharedBytes, stream>>>(launch, window);
  QueryKernel<Shape><<<query_grid, kThreads, Shape::kSharedBytes, stream>>>(launch, window);
}

}  // namespace

void RunTensorAttentionBackward(const TensorAttentionBackward& launch, int64_t head_dim, int64_t tile_count,
                                cudaStream_t stream) {
  if (head_dim == 64) {
    Launch<Shape<64>>(launch, tile_count, stream);
  } else {
    Launch<Shape<128>>(launch, tile_count, stream);
  }
}

}  // namespace swiftkv::kernels::cuda
