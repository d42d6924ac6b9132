// The backward of attention on tensor cores, after FlashAttention-2, in two kernels, so that every sum has one order
// and needs no atomics: one for dK and dV, whose blocks walk the queries that attend to their keys, and one for dq,
// whose blocks walk the keys. Both compute the scores anew.
//
// A block owns a tile of rows and walks tiles of others. Scores exist in registers alone, as [own rows, other rows]: in
// the fragments of sums they are what the next product takes as its left side. Reads of shared memory bound these
// kernels, so a warp owns as many rows as it has registers for: 16 of keys, whose sums are two, or 32 of queries.
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_tile-inl.h"
#include "kernels/cuda/backward.h"
#include "kernels/cuda/backward_attention.h"
#include "kernels/cuda/mma-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

template <int kHeadDimension, bool kOfKeys>
struct Shape {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr bool kOwnsKeys = kOfKeys;              // else queries
  static constexpr int kFragments = kOwnsKeys ? 1 : 2;    // of 16 own rows, of a warp
  static constexpr int kOtherRows = kOwnsKeys ? 64 : 32;  // of a tile
  static constexpr int kBlocks = kHeadDim == 64 ? 3 : 2;  // of a multiprocessor, as registers allow
  static constexpr int kWarpRows = 16 * kFragments;
  static constexpr int kOwnRows = kWarps * kWarpRows;
  static constexpr int kRowBytes = kHeadDim * 2;
  static constexpr int kOwnBytes = kOwnRows * kRowBytes;
  static constexpr int kOtherBytes = kOtherRows * kRowBytes;
  // Shared memory: the two tiles that the block owns, two stages of two others, of queries also two stages of their
  // sums. That is as much as a block can have on every device; multiprocessors of compute capability 9.0 and 10.0 have
  // room for kBlocks of them.
  static constexpr int kOthersOffset = 2 * kOwnBytes;
  static constexpr int kSumsOffset = kOthersOffset + 4 * kOtherBytes;
  static constexpr int kSharedBytes = kSumsOffset + (kOwnsKeys ? 2 * kOtherRows * int{sizeof(QuerySums)} : 0);
};

// [kWarpRows, kOtherRows] of a warp, in fragments (MultiplyAdd): own row 16 * m + 8 * half + lane / 4 of the warp's,
// other row 8 * n + 2 * (lane % 4) + e at [m][n][2 * half + e].
template <typename Shape>
using Scores = float[Shape::kFragments][Shape::kOtherRows / 8][4];
// The same as the left side of a product over the other rows.
template <typename Shape>
using Weights = uint32_t[Shape::kFragments][Shape::kOtherRows / 16][4];
template <typename Shape>
using Sums = float[Shape::kFragments][Shape::kHeadDim / 8][4];

// The block's tile: rows `first` and following of a document. All rows but row_begin are counted from there.
struct Tile {
  int64_t row_begin;  // the document's
  int rows;           // the document's
  int first;
};

// Starts the copies of `count` rows, `stride` elements apart, to a tile of kRows; zeros for rows past them.
template <typename Shape, int kRows>
__device__ __forceinline__ void LoadTile(const __nv_bfloat16* rows, int64_t stride, int count, uint32_t to) {
  constexpr int kRowChunks = Shape::kRowBytes / 16;
  constexpr int kRowStep = kThreads / kRowChunks;
  static_assert(kRowStep % 8 == 0, "rows so far apart are swizzled alike");
  const int row = static_cast<int>(threadIdx.x) / kRowChunks;
  const int chunk = static_cast<int>(threadIdx.x) % kRowChunks;
  to += SwizzledOffset<Shape::kRowBytes>(row, chunk);
#pragma unroll
  for (int i = 0; i < kRows; i += kRowStep) {
    const bool valid = row + i < count;
    CopyAsync16(to + i * Shape::kRowBytes, rows + (valid ? (row + i) * stride + chunk * 8 : 0), valid);
  }
}

// products = own[kWarpRows, head_dim] other[kOtherRows, head_dim]^T
template <typename Shape>
__device__ __forceinline__ void MultiplyRows(uint32_t own, uint32_t other, Scores<Shape>& products) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp_row = static_cast<int>(threadIdx.x / 32) * Shape::kWarpRows;
  const uint32_t own_address = own + SwizzledOffset<Shape::kRowBytes>(warp_row + lane % 16, lane / 16);
  // The matrices of one load: rows 0 .. 7 and 8 .. 15, of each the lower and the upper half of 16 dimensions.
  const uint32_t other_address = other + SwizzledOffset<Shape::kRowBytes>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
  for (int i = 0; i < Shape::kFragments * Shape::kOtherRows / 2; ++i) {
    products[i / (Shape::kOtherRows / 2)][i / 4 % (Shape::kOtherRows / 8)][i % 4] = 0;
  }
#pragma unroll 4  // all at once would need more registers than there are
  for (int k = 0; k < Shape::kHeadDim / 16; ++k) {
    uint32_t left[Shape::kFragments][4];
#pragma unroll
    for (int m = 0; m < Shape::kFragments; ++m) {
      LoadMatrices((own_address ^ (k * 32)) + m * 16 * Shape::kRowBytes, left[m]);
    }
#pragma unroll
    for (int n = 0; n < Shape::kOtherRows / 16; ++n) {
      uint32_t right[4];
      LoadMatrices((other_address ^ (k * 32)) + n * 16 * Shape::kRowBytes, right);
#pragma unroll
      for (int m = 0; m < Shape::kFragments; ++m) {
        MultiplyAdd(products[m][2 * n], left[m], right[0], right[1]);
        MultiplyAdd(products[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// sums[kWarpRows, head_dim] += weights[kWarpRows, kOtherRows] other[kOtherRows, head_dim]
template <typename Shape>
__device__ __forceinline__ void AddWeighted(const Weights<Shape>& weights, uint32_t other, Sums<Shape>& sums) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  // The matrices of one load, transposed: dimensions 0 .. 7 and 8 .. 15, of each rows 0 .. 7 and 8 .. 15.
  const uint32_t address = other + SwizzledOffset<Shape::kRowBytes>(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < Shape::kOtherRows / 16; ++k) {
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 16; ++n) {
      uint32_t right[4];
      LoadMatricesTransposed((address ^ (n * 32)) + k * 16 * Shape::kRowBytes, right);
#pragma unroll
      for (int m = 0; m < Shape::kFragments; ++m) {
        MultiplyAdd(sums[m][2 * n], weights[m][k], right[0], right[1]);
        MultiplyAdd(sums[m][2 * n + 1], weights[m][k], right[2], right[3]);
      }
    }
  }
}

template <typename Shape>
__device__ __forceinline__ void Pack(const Scores<Shape>& scores, Weights<Shape>& weights) {
#pragma unroll
  for (int m = 0; m < Shape::kFragments; ++m) {
#pragma unroll
    for (int i = 0; i < Shape::kOtherRows / 4; ++i) {
      const float* pair = &scores[m][i / 2][i % 2 * 2];
      weights[m][i / 4][i % 4] = PackBFloat16(pair[0], pair[1]);
    }
  }
}

// How far the warp's pairs with another tile lie apart: positions of queries less those of keys.
struct Ages {
  int oldest;
  int youngest;
};

// own: the warp's first row.
template <typename Shape>
__device__ __forceinline__ Ages AgesOf(int own, int other) {
  if (Shape::kOwnsKeys)
    return {.oldest = other + Shape::kOtherRows - 1 - own, .youngest = other - own - Shape::kWarpRows + 1};
  return {.oldest = own + Shape::kWarpRows - 1 - other, .youngest = own - other - Shape::kOtherRows + 1};
}

// Scores of pairs that don't attend become -infinity.
template <typename Shape>
__device__ __forceinline__ void MaskScores(int own, int other, int window, Scores<Shape>& scores) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int difference = own + lane / 4 - (other + lane % 4 * 2);
#pragma unroll
  for (int m = 0; m < Shape::kFragments; ++m) {
#pragma unroll
    for (int n = 0; n < Shape::kOtherRows / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int of_pair = difference + m * 16 + i / 2 * 8 - n * 8 - i % 2;
        const int age = Shape::kOwnsKeys ? -of_pair : of_pair;
        if (age < 0 || age >= window) scores[m][n][i] = -INFINITY;
      }
    }
  }
}

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

  // The warp's first row.
  __device__ __forceinline__ int WarpFirst() const {
    return tile.first + static_cast<int>(threadIdx.x / 32) * Shape::kWarpRows;
  }
  __device__ __forceinline__ uint32_t Own(int i) const { return SharedAddress(shared) + i * Shape::kOwnBytes; }
  __device__ __forceinline__ uint32_t Other(int stage, int i) const {
    return SharedAddress(shared) + Shape::kOthersOffset + (stage * 2 + i) * Shape::kOtherBytes;
  }
  __device__ __forceinline__ QuerySums* StageSums(int stage) const {
    return reinterpret_cast<QuerySums*>(shared + Shape::kSumsOffset) + stage * Shape::kOtherRows;
  }
  // Tiles of queries and their gradients, or of keys and values, from row `first` on.
  template <int kRows>
  __device__ __forceinline__ void LoadQueries(int64_t head, int first, uint32_t queries, uint32_t douts) const {
    const int64_t row = tile.row_begin + first;
    const int64_t at = head * Shape::kHeadDim;
    LoadTile<Shape, kRows>(launch.q + row * launch.q_stride + at, launch.q_stride, tile.rows - first, queries);
    LoadTile<Shape, kRows>(launch.dout + row * launch.dout_stride + at, launch.dout_stride, tile.rows - first, douts);
  }
  template <int kRows>
  __device__ __forceinline__ void LoadKeys(int64_t kv_head, int first, uint32_t keys, uint32_t values) const {
    const int64_t at = (tile.row_begin + first) * launch.kv_stride + kv_head * Shape::kHeadDim;
    LoadTile<Shape, kRows>(launch.k + at, launch.kv_stride, tile.rows - first, keys);
    LoadTile<Shape, kRows>(launch.v + at, launch.kv_stride, tile.rows - first, values);
  }
  // Of a document's row; rows past its end have no weight.
  __device__ __forceinline__ QuerySums SumsOf(int64_t head, int row) const {
    if (row >= tile.rows) return {.log_sum_exp = INFINITY, .dout_out = 0};
    return launch.sums[head * launch.rows + tile.row_begin + row];
  }
};

// Of the warp's rows: writes or adds `scale` times the sums.
template <typename Shape, bool kAdd>
__device__ __forceinline__ void WriteSums(const Place<Shape>& place, const Sums<Shape>& sums, float scale, int64_t head,
                                          float* out, int64_t stride) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int i = 0; i < 2 * Shape::kFragments; ++i) {
    const int row = place.WarpFirst() + i * 8 + lane / 4;
    if (row >= place.tile.rows) continue;
    float* const to = out + (place.tile.row_begin + row) * stride + head * Shape::kHeadDim + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 8; ++n) {
      auto* const pair = reinterpret_cast<float2*>(to + n * 8);
      const float* own = &sums[i / 2][n][i % 2 * 2];
      float2 values = {own[0] * scale, own[1] * scale};
      if constexpr (kAdd) {
        const float2 before = *pair;
        values = {values.x + before.x, values.y + before.y};
      }
      *pair = values;
    }
  }
}

// The scores and dout V^T of the warp's rows with another tile, masked; false: none of the pairs attends.
template <typename Shape>
__device__ __forceinline__ bool ComputeScores(const Place<Shape>& place, int other, int stage, Scores<Shape>& scores,
                                              Scores<Shape>& products) {
  const Ages ages = AgesOf<Shape>(place.WarpFirst(), other);
  if (ages.oldest < 0 || ages.youngest >= place.window) return false;
  MultiplyRows<Shape>(place.Own(0), place.Other(stage, 0), scores);
  MultiplyRows<Shape>(place.Own(1), place.Other(stage, 1), products);
  if (ages.youngest < 0 || ages.oldest >= place.window) {
    MaskScores<Shape>(place.WarpFirst(), other, place.window, scores);
  }
  return true;
}

// A tile of queries from row `other` on: dv += P^T dout, dk += dS^T q.
template <typename Shape>
__device__ __forceinline__ void VisitQueries(const Place<Shape>& place, int other, int stage, Sums<Shape>& dk,
                                             Sums<Shape>& dv) {
  Scores<Shape> scores;
  Scores<Shape> products;
  if (!ComputeScores<Shape>(place, other, stage, scores, products)) return;
  const QuerySums* sums = place.StageSums(stage) + threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < Shape::kOtherRows / 8; ++n) {
    const float4 two = *reinterpret_cast<const float4*>(sums + n * 8);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const QuerySums of_query = i % 2 == 0 ? QuerySums{two.x, two.y} : QuerySums{two.z, two.w};
      Differentiate(place.launch.scale_log2, of_query, scores[0][n][i], products[0][n][i]);
    }
  }
  Weights<Shape> weights;
  Pack<Shape>(scores, weights);
  AddWeighted<Shape>(weights, place.Other(stage, 1), dv);
  Pack<Shape>(products, weights);
  AddWeighted<Shape>(weights, place.Other(stage, 0), dk);
}

// Grid: KV heads, tiles.
template <typename Shape>
__global__ void __launch_bounds__(kThreads, Shape::kBlocks)
    KeyKernel(const TensorAttentionBackward launch, int window) {
  constexpr int kRows = Shape::kOtherRows;
  static_assert(Shape::kOwnRows == kAttentionBackwardTile && Shape::kOwnRows == kRows);
  const AttentionBackwardTile tile = launch.tiles[blockIdx.y];
  const int first = tile.tile * kRows;
  const Place<Shape> place{launch, {tile.row_begin, tile.rows, first}, window, DynamicSharedMemory()};
  // Tiles of queries: up to the document's last or, of a window, that of the last key's last query.
  const int last = min(tile.rows - 1, first + kRows - 1 + window - 1);
  const int tiles = last / kRows + 1 - tile.tile;
  const int steps = tiles * launch.group;
  const auto head_of = [&](int step) { return static_cast<int64_t>(blockIdx.x) * launch.group + step / tiles; };
  const auto row_of = [&](int step) { return first + step % tiles * kRows; };
  const auto load = [&](int step) {
    place.template LoadQueries<kRows>(head_of(step), row_of(step), place.Other(step % 2, 0), place.Other(step % 2, 1));
  };
  const auto sums_of = [&](int step) {
    return place.SumsOf(head_of(step), row_of(step) + static_cast<int>(threadIdx.x) % kRows);
  };
  place.template LoadKeys<Shape::kOwnRows>(blockIdx.x, first, place.Own(0), place.Own(1));
  load(0);
  CommitCopies();
  QuerySums next = sums_of(0);
  Sums<Shape> dk = {};
  Sums<Shape> dv = {};
  for (int step = 0; step < steps; ++step) {
    // All warps are done with the step before the last one, which had this stage.
    if (threadIdx.x < kRows) place.StageSums(step % 2)[threadIdx.x] = next;
    WaitForCopies<0>();
    // This step's tiles are there for all, and all are done with the step before.
    __syncthreads();
    if (step + 1 < steps) {
      load(step + 1);
      next = sums_of(step + 1);
    }
    CommitCopies();
    VisitQueries<Shape>(place, row_of(step), step % 2, dk, dv);
  }
  WriteSums<Shape, true>(place, dk, launch.scale, blockIdx.x, launch.dk, launch.dkv_stride);
  WriteSums<Shape, true>(place, dv, 1, blockIdx.x, launch.dv, launch.dkv_stride);
}

// A tile of keys from row `other` on: dq += dS K. sums: of the lane's rows.
template <typename Shape>
__device__ __forceinline__ void VisitKeys(const Place<Shape>& place, const QuerySums (&sums)[2 * Shape::kFragments],
                                          int other, int stage, Sums<Shape>& dq) {
  Scores<Shape> scores;
  Scores<Shape> products;
  if (!ComputeScores<Shape>(place, other, stage, scores, products)) return;
#pragma unroll
  for (int m = 0; m < Shape::kFragments; ++m) {
#pragma unroll
    for (int n = 0; n < Shape::kOtherRows / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Differentiate(place.launch.scale_log2, sums[2 * m + i / 2], scores[m][n][i], products[m][n][i]);
      }
    }
  }
  Weights<Shape> weights;
  Pack<Shape>(products, weights);
  AddWeighted<Shape>(weights, place.Other(stage, 0), dq);
}

// Grid: heads, tiles. A block takes the queries of two tiles, the other of them nothing.
template <typename Shape>
__global__ void __launch_bounds__(kThreads, Shape::kBlocks)
    QueryKernel(const TensorAttentionBackward launch, int window) {
  constexpr int kRows = Shape::kOtherRows;
  static_assert(Shape::kOwnRows == 2 * kAttentionBackwardTile);
  const AttentionBackwardTile tile = launch.tiles[blockIdx.y];
  const int index = (tile.rows - 1) / kAttentionBackwardTile - tile.tile;
  if (index % 2 != 0) return;
  const Place<Shape> place{
      launch, {tile.row_begin, tile.rows, index * kAttentionBackwardTile}, window, DynamicSharedMemory()};
  const int own = place.tile.first;
  const int64_t kv_head = blockIdx.x / launch.group;
  const auto load = [&](int key_tile) {
    place.template LoadKeys<kRows>(kv_head, key_tile * kRows, place.Other(key_tile % 2, 0),
                                   place.Other(key_tile % 2, 1));
  };
  int key_tile = max(0, own - window + 1) / kRows;
  const int last = (min(tile.rows, own + Shape::kOwnRows) - 1) / kRows;
  place.template LoadQueries<Shape::kOwnRows>(blockIdx.x, own, place.Own(0), place.Own(1));
  load(key_tile);
  CommitCopies();
  QuerySums sums[2 * Shape::kFragments];
#pragma unroll
  for (int i = 0; i < 2 * Shape::kFragments; ++i) {
    sums[i] = place.SumsOf(blockIdx.x, place.WarpFirst() + i * 8 + static_cast<int>(threadIdx.x % 32) / 4);
  }
  Sums<Shape> dq = {};
  for (; key_tile <= last; ++key_tile) {
    WaitForCopies<0>();
    // This tile is there for all warps, and all are done with the one before.
    __syncthreads();
    if (key_tile < last) load(key_tile + 1);
    CommitCopies();
    VisitKeys<Shape>(place, sums, key_tile * kRows, key_tile % 2, dq);
  }
  WriteSums<Shape, false>(place, dq, launch.scale, blockIdx.x, launch.dq, launch.dq_stride);
}

template <int kHeadDim>
void Launch(const TensorAttentionBackward& launch, int64_t tile_count, cudaStream_t stream) {
  using Keys = Shape<kHeadDim, true>;
  using Queries = Shape<kHeadDim, false>;
  static const cudaError_t keys_raised =
      cudaFuncSetAttribute(KeyKernel<Keys>, cudaFuncAttributeMaxDynamicSharedMemorySize, Keys::kSharedBytes);
  static const cudaError_t queries_raised =
      cudaFuncSetAttribute(QueryKernel<Queries>, cudaFuncAttributeMaxDynamicSharedMemorySize, Queries::kSharedBytes);
  static_cast<void>(keys_raised);  // a launch would fail by itself
  static_cast<void>(queries_raised);
  const int window = launch.window > 0 ? static_cast<int>(std::min<int64_t>(launch.window, kNoWindow)) : kNoWindow;
  const dim3 key_grid(static_cast<unsigned>(launch.kv_heads), static_cast<unsigned>(tile_count));
  const dim3 query_grid(static_cast<unsigned>(launch.heads), static_cast<unsigned>(tile_count));
  KeyKernel<Keys><<<key_grid, kThreads, Keys::kSharedBytes, stream>>>(launch, window);
  QueryKernel<Queries><<<query_grid, kThreads, Queries::kSharedBytes, stream>>>(launch, window);
}

}  // namespace

void RunTensorAttentionBackward(const TensorAttentionBackward& launch, int64_t head_dim, int64_t tile_count,
                                cudaStream_t stream) {
  if (head_dim == 64) {
    Launch<64>(launch, tile_count, stream);
  } else {
    Launch<128>(launch, tile_count, stream);
  }
}

}  // namespace swiftkv::kernels::cuda
