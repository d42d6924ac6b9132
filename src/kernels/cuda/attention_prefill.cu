// Attention of many rows of a sequence on tensor cores, after FlashAttention-2: scores exist in registers alone, and
// the softmax's maximum and sum grow along the cache.
//
// A block computes kTileRows rows of the matrix [rows * group, head_dim] of one sequence and KV head, group being the
// query heads that share it: row m is query head m % group of the sequence's row m / group. So K and V are read once
// for all of them. Each of four warps has 32 of the rows, and the cache is walked in tiles of 64 tokens from a multiple
// of 64, so that a row's bytes don't depend on the rows beside it.
#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention_hopper.h"
#include "kernels/cuda/attention_plain.h"
#include "kernels/cuda/attention_tile-inl.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mma-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTileTokens = 64;  // each warp loads the 16 of one cache block

template <int kHeadDimension, bool kIsE4M3>
struct Shape {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr bool kE4M3 = kIsE4M3;
  static constexpr int kRowBytes = kHeadDim * 2;  // of bf16 in shared memory
  static constexpr int kCacheRowBytes = kE4M3 ? kHeadDim : kRowBytes;
  static constexpr int kCacheRowChunks = kCacheRowBytes / 16;
  static constexpr int kLaneChunks = kBlockTokens * kCacheRowChunks / 32;  // that a lane loads of K, and of V
  static constexpr int kQueryBytes = kTileRows * kRowBytes;
  static constexpr int kTileBytes = kTileTokens * kRowBytes;  // of K, and of V
  // Shared memory: queries; bf16: two stages of K and V; E4M3: one of K and V as bf16, and one as the cache has them.
  static constexpr int kKeysOffset = kQueryBytes;
  static constexpr int kRawOffset = kKeysOffset + 2 * kTileBytes;
  static constexpr int kSharedBytes = kRawOffset + 2 * kTileTokens * kCacheRowBytes;
};

// The part of the cache that they need.
struct Context {
  const AttentionSequence* sequence;
  int first;  // token that any row attends to
  int last;
  int row_last;  // the last token of the lane's row begin + 32 * warp + lane, -1 where the warp has no rows
};

__device__ __forceinline__ Context MakeContext(const RowTile& tile, int window) {
  const int32_t* positions = tile.sequence->positions;
  const int warp_begin = tile.begin + static_cast<int>(threadIdx.x / 32) * 32;
  const int row = min(tile.end - 1, tile.begin + static_cast<int>(threadIdx.x)) / tile.group;
  return {.sequence = tile.sequence,
          .first = max(0, positions[tile.begin / tile.group] - window + 1),
          .last = positions[(min(tile.end, tile.begin + kTileRows) - 1) / tile.group],
          .row_last = warp_begin < tile.end ? positions[row] : -1};
}

// Queries as bf16 in shared memory [kTileRows, head_dim]; zeros for rows past the end.
template <typename Shape>
__device__ __forceinline__ void StoreQueries(const AttentionLaunch& args, const RowTile& tile, std::byte* queries) {
  constexpr int kRowChunks = Shape::kRowBytes / 16;
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kRowChunks; i += kThreads) {
    const int row = i / kRowChunks;
    const int chunk = i % kRowChunks;
    uint4 packed = {};
    if (tile.begin + row < tile.end) {
      const float* q = args.q + RowOffset(tile, tile.begin + row, args.q_stride, Shape::kHeadDim) + chunk * 8;
      const float4 low = *reinterpret_cast<const float4*>(q);
      const float4 high = *reinterpret_cast<const float4*>(q + 4);
      packed = {PackBFloat16(low.x, low.y), PackBFloat16(low.z, low.w), PackBFloat16(high.x, high.y),
                PackBFloat16(high.z, high.w)};
    }
    *reinterpret_cast<uint4*>(queries + SwizzledOffset<Shape::kRowBytes>(row, chunk)) = packed;
  }
}

// The block of the 16 tokens that this warp loads of a tile; of one that is needed where that isn't.
__device__ __forceinline__ int WarpBlock(const Context& context, int first_token) {
  const int token = first_token + static_cast<int>(threadIdx.x / 32 * kBlockTokens);
  const int index = min(max(token, context.first), context.last) / static_cast<int>(kBlockTokens);
  return context.sequence->block_table[index];  // the table's address is read anew: registers are scarce
}

// Where a tile is copied to.
template <typename Shape>
__device__ __forceinline__ uint32_t LoadAddress(const std::byte* shared, int first_token) {
  if constexpr (Shape::kE4M3) return SharedAddress(shared + Shape::kRawOffset);
  return SharedAddress(shared + Shape::kKeysOffset) + first_token / kTileTokens % 2 * (2 * Shape::kTileBytes);
}

// Starts the copies of those 16 tokens, K to `keys` and V one tile further: swizzled as bf16; E4M3 as the thread will
// read it again in ConvertTile, [chunk of the lane, thread]. Tokens that no row attends to become zeros: what their
// slots hold may be NaN.
template <typename Shape>
__device__ __forceinline__ void LoadTile(const AttentionLaunch& args, const Context& context, int first_token,
                                         int block, uint32_t keys) {
  constexpr int kSlabBytes = static_cast<int>(kBlockTokens) * Shape::kCacheRowBytes;
  constexpr int kRowStep = 32 / Shape::kCacheRowChunks;
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::byte* slab = args.cache + block * args.block_bytes + blockIdx.y * kSlabBytes + lane * 16;
  const int half_bytes = static_cast<int>(args.kv_heads) * kSlabBytes;
  const int row = warp * static_cast<int>(kBlockTokens) + lane / Shape::kCacheRowChunks;  // then kRowStep further
  const int first_row = context.first - first_token - row;
  const int last_row = context.last - first_token - row;
  const uint32_t to = keys + (Shape::kE4M3 ? static_cast<int>(threadIdx.x) * 16
                                           : SwizzledOffset<Shape::kRowBytes>(row, lane % Shape::kCacheRowChunks));
#pragma unroll
  for (int i = 0; i < Shape::kLaneChunks; ++i) {
    const bool valid = i * kRowStep >= first_row && i * kRowStep <= last_row;
    const uint32_t chunk =
        Shape::kE4M3 ? to + i * kThreads * 16 : (to ^ (i * kRowStep % 8 * 16)) + i * kRowStep * Shape::kRowBytes;
    CopyAsync16(chunk, slab + i * 512, valid);
    CopyAsync16(chunk + kTileTokens * Shape::kCacheRowBytes, slab + half_bytes + i * 512, valid);
  }
}

// The E4M3 chunks that this thread loaded with LoadTile, from `raw` to bf16 in `keys`, K and V.
template <typename Shape>
__device__ __forceinline__ void ConvertTile(const std::byte* raw, std::byte* keys) {
  const int warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll 2
  for (int i = 0; i < 2 * Shape::kLaneChunks; ++i) {
    const int value = i / Shape::kLaneChunks;  // 0: K, 1: V
    const int index = i % Shape::kLaneChunks * 32 + static_cast<int>(threadIdx.x % 32);
    const int row = warp * 16 + index / Shape::kCacheRowChunks;
    const int chunk = index % Shape::kCacheRowChunks * 2;
    const uint4 values =
        *reinterpret_cast<const uint4*>(raw + value * kTileTokens * Shape::kCacheRowBytes +
                                        (i % Shape::kLaneChunks * kThreads + static_cast<int>(threadIdx.x)) * 16);
    std::byte* to = keys + value * Shape::kTileBytes;
    *reinterpret_cast<uint4*>(to + SwizzledOffset<Shape::kRowBytes>(row, chunk)) = {
        E4M3ToBFloat16<0, 1>(values.x), E4M3ToBFloat16<2, 3>(values.x), E4M3ToBFloat16<0, 1>(values.y),
        E4M3ToBFloat16<2, 3>(values.y)};
    *reinterpret_cast<uint4*>(to + SwizzledOffset<Shape::kRowBytes>(row, chunk + 1)) = {
        E4M3ToBFloat16<0, 1>(values.z), E4M3ToBFloat16<2, 3>(values.z), E4M3ToBFloat16<0, 1>(values.w),
        E4M3ToBFloat16<2, 3>(values.w)};
  }
}

// What a warp keeps of its 32 rows, in fragments of 16 (MultiplyAdd): row 16 * m + 8 * half + lane / 4.
template <typename Shape>
struct Softmax {
  float out[2][Shape::kHeadDim / 8][4] = {};  // not yet divided by the sum
  float max[2][2];                            // of the scores, unscaled
  float sum[2][2] = {};                       // of this lane's columns

  __device__ __forceinline__ Softmax() { max[0][0] = max[0][1] = max[1][0] = max[1][1] = -INFINITY; }
};

using Scores = float[2][kTileTokens / 8][4];

// scores[32, 64] = Q K^T
template <typename Shape>
__device__ __forceinline__ void MultiplyQueriesByKeys(uint32_t queries, uint32_t keys, Scores& scores) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp_row = static_cast<int>(threadIdx.x / 32) * 32;
  const uint32_t query_address = queries + SwizzledOffset<Shape::kRowBytes>(warp_row + lane % 16, lane / 16);
  // The matrices of one load: tokens 0 .. 7 and 8 .. 15, of each the lower and the upper half of 16 dimensions.
  const uint32_t key_address = keys + SwizzledOffset<Shape::kRowBytes>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll 4  // all at once would need more registers than there are
  for (int k = 0; k < Shape::kHeadDim / 16; ++k) {
    uint32_t q[2][4];
    LoadMatrices(query_address ^ (k * 32), q[0]);
    LoadMatrices((query_address ^ (k * 32)) + 16 * Shape::kRowBytes, q[1]);
#pragma unroll
    for (int n = 0; n < kTileTokens / 16; ++n) {
      uint32_t key[4];
      LoadMatrices((key_address ^ (k * 32)) + n * 16 * Shape::kRowBytes, key);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        MultiplyAdd(scores[m][2 * n], q[m], key[0], key[1]);
        MultiplyAdd(scores[m][2 * n + 1], q[m], key[2], key[3]);
      }
    }
  }
}

// Scores of tokens that a row doesn't attend to become -infinity.
__device__ __forceinline__ void MaskScores(const Context& context, int first_token, int window, Scores& scores) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int last =
          __shfl_sync(kAllLanes, context.row_last, m * 16 + half * 8 + lane / 4) - first_token - lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < kTileTokens / 4; ++i) {
        const int column = i / 2 * 8 + i % 2;
        if (column > last || column <= last - window) scores[m][i / 2][half * 2 + i % 2] = -INFINITY;
      }
    }
  }
}

// Scores become weights, and what has been summed up is scaled to the new maximum.
template <typename Shape>
__device__ __forceinline__ void UpdateSoftmax(float scale_log2, Scores& scores, Softmax<Shape>& softmax) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = softmax.max[m][half];
#pragma unroll
      for (int i = 0; i < kTileTokens / 4; ++i) largest = fmaxf(largest, scores[m][i / 2][half * 2 + i % 2]);
      largest = QuadMax(largest);
      // A row that has met none of its tokens yet: its weights are 0 then, and not 2^(inf - inf).
      const float offset = largest == -INFINITY ? 0.0f : largest * scale_log2;
      const float correction = Exp2(softmax.max[m][half] * scale_log2 - offset);
      softmax.max[m][half] = largest;
      float sum = softmax.sum[m][half] * correction;
#pragma unroll
      for (int i = 0; i < kTileTokens / 4; ++i) {
        float& weight = scores[m][i / 2][half * 2 + i % 2];
        weight = Exp2(weight * scale_log2 - offset);
        sum += weight;
      }
      softmax.sum[m][half] = sum;
#pragma unroll
      for (int n = 0; n < Shape::kHeadDim / 8; ++n) {
        softmax.out[m][n][half * 2] *= correction;
        softmax.out[m][n][half * 2 + 1] *= correction;
      }
    }
  }
}

// out[32, head_dim] += weights[32, 64] V
template <typename Shape>
__device__ __forceinline__ void MultiplyWeightsByValues(uint32_t values, const Scores& weights,
                                                        Softmax<Shape>& softmax) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  // The matrices of one load, transposed: dimensions 0 .. 7 and 8 .. 15, of each tokens 0 .. 7 and 8 .. 15.
  const uint32_t address = values + SwizzledOffset<Shape::kRowBytes>(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < kTileTokens / 16; ++k) {
    uint32_t weight[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &weights[m][2 * k + i / 2][i % 2 * 2];
        weight[m][i] = PackBFloat16(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 16; ++n) {
      uint32_t value[4];
      LoadMatricesTransposed((address ^ (n * 32)) + k * 16 * Shape::kRowBytes, value);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        MultiplyAdd(softmax.out[m][2 * n], weight[m], value[0], value[1]);
        MultiplyAdd(softmax.out[m][2 * n + 1], weight[m], value[2], value[3]);
      }
    }
  }
}

// One tile of the cache for the warp's rows.
template <typename Shape>
__device__ __forceinline__ void AttendTile(const Context& context, int first_token, int window, float scale_log2,
                                           uint32_t queries, uint32_t keys, Softmax<Shape>& softmax) {
  const int last_token = first_token + kTileTokens - 1;
  const int first_row_last = __shfl_sync(kAllLanes, context.row_last, 0);
  const int last_row_last = __shfl_sync(kAllLanes, context.row_last, 31);
  if (first_token > last_row_last || last_token <= first_row_last - window) return;
  Scores scores = {};
  MultiplyQueriesByKeys<Shape>(queries, keys, scores);
  if (last_token > first_row_last || first_token <= last_row_last - window) {
    MaskScores(context, first_token, window, scores);
  }
  UpdateSoftmax<Shape>(scale_log2, scores, softmax);
  MultiplyWeightsByValues<Shape>(keys + Shape::kTileBytes, scores, softmax);
}

template <typename Shape>
__device__ __forceinline__ void WriteOut(const AttentionLaunch& args, const RowTile& tile,
                                         const Softmax<Shape>& softmax) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = QuadSum(softmax.sum[m][half]);
      const float scale = 1.0f / sum;
      const int row = tile.begin + static_cast<int>(threadIdx.x / 32) * 32 + m * 16 + half * 8 + lane / 4;
      if (row >= tile.end) continue;
      if (lane % 4 == 0) WriteLogSumExp(args, tile, row, softmax.max[m][half], sum);
      const int64_t offset = RowOffset(tile, row, args.out_stride, Shape::kHeadDim) + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < Shape::kHeadDim / 8; ++n) {
        const float low = softmax.out[m][n][half * 2] * scale;
        const float high = softmax.out[m][n][half * 2 + 1] * scale;
        if (args.out_dtype == DType::kBF16) {
          *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(args.out) + offset + n * 8) =
              PackBFloat16(low, high);
        } else {
          *reinterpret_cast<float2*>(static_cast<float*>(args.out) + offset + n * 8) = {low, high};
        }
      }
    }
  }
}

// Grid: tiles of kTileRows of the longest sequence, KV heads, sequences.
template <typename Shape>
__global__ void __launch_bounds__(kThreads) PrefillKernel(const AttentionLaunch args, int window, float scale_log2) {
  const RowTile tile = ThisRowTile(args);
  if (tile.begin >= tile.end) return;
  const Context context = MakeContext(tile, window);
  std::byte* shared = DynamicSharedMemory();

  int token = context.first / kTileTokens * kTileTokens;
  LoadTile<Shape>(args, context, token, WarpBlock(context, token), LoadAddress<Shape>(shared, token));
  CommitCopies();
  int next_block = WarpBlock(context, token + kTileTokens);
  StoreQueries<Shape>(args, tile, shared);

  Softmax<Shape> softmax;
  for (; token <= context.last; token += kTileTokens) {
    WaitForCopies<0>();
    // All warps are done with the tile before; of bf16 this tile is there for all.
    __syncthreads();
    if constexpr (Shape::kE4M3) {
      ConvertTile<Shape>(shared + Shape::kRawOffset, shared + Shape::kKeysOffset);
    }
    if (token + kTileTokens <= context.last) {
      LoadTile<Shape>(args, context, token + kTileTokens, next_block, LoadAddress<Shape>(shared, token + kTileTokens));
      next_block = WarpBlock(context, token + 2 * kTileTokens);
    }
    CommitCopies();
    if constexpr (Shape::kE4M3) __syncthreads();
    const uint32_t keys = Shape::kE4M3 ? SharedAddress(shared + Shape::kKeysOffset) : LoadAddress<Shape>(shared, token);
    AttendTile<Shape>(context, token, window, scale_log2, SharedAddress(shared), keys, softmax);
  }
  WriteOut<Shape>(args, ThisRowTile(args), softmax);
}

template <typename Shape>
void LaunchPrefill(const AttentionLaunch& args, cudaStream_t stream) {
  static const cudaError_t raised =
      cudaFuncSetAttribute(PrefillKernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  static_cast<void>(raised);  // a launch would fail by itself
  PrefillKernel<Shape>
      <<<RowTileGrid(args), kThreads, Shape::kSharedBytes, stream>>>(args, WindowOf(args), args.scale * kLog2E);
}

}  // namespace

void PrefillAttention(const AttentionLaunch& args, cudaStream_t stream) {
  if (args.count == 0 || args.max_rows == 0 || HopperPrefillAttention(args, stream)) return;
  const bool e4m3 = args.cache_dtype == DType::kF8E4M3;
  if (args.cache_dtype == DType::kF32 || (args.head_dim != 64 && args.head_dim != 128)) {
    PlainAttention(args, args.max_rows, stream);
  } else if (args.head_dim == 64) {
    e4m3 ? LaunchPrefill<Shape<64, true>>(args, stream) : LaunchPrefill<Shape<64, false>>(args, stream);
  } else {
    e4m3 ? LaunchPrefill<Shape<128, true>>(args, stream) : LaunchPrefill<Shape<128, false>>(args, stream);
  }
}

}  // namespace swiftkv::kernels::cuda
