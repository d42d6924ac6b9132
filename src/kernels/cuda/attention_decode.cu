// Attention of one row of each sequence on tensor cores, as fast as the cache can be read: the tokens of a sequence are
// split over blocks (flash-decoding), whose partial results a second kernel merges.
//
// A block computes 16 query heads of one KV head (the rows of a fragment; of a smaller group some are padding) over its
// split's tokens. Each of four warps has every fourth 16-token block of the cache and a ring of stages of its own, so
// that no warp waits for another before the end.
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_plain.h"
#include "kernels/cuda/attention_tile-inl.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mma-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTileHeads = 16;
constexpr int kTokens = static_cast<int>(kBlockTokens);  // that a warp takes at once
constexpr int kTileTokens = kTokens * kWarps;
constexpr int kMaxSplits = 64;
// Blocks that the GPU runs at once: two on each of an H100's multiprocessors. A constant, so that results don't depend
// on the device.
constexpr int64_t kConcurrentBlocks = 2 * 132;

int64_t HeadTiles(int64_t heads, int64_t kv_heads) { return (heads / kv_heads + kTileHeads - 1) / kTileHeads; }

// Splits of a sequence. The more there are the better the blocks fill the GPU, but each costs a start, and a merge.
int64_t Splits(int64_t count, int64_t heads, int64_t kv_heads) {
  const int64_t blocks = std::max<int64_t>(1, count * kv_heads * HeadTiles(heads, kv_heads));
  for (int64_t splits = 1; splits < kMaxSplits; ++splits) {
    const int64_t total = blocks * splits;
    const int64_t waves = (total + kConcurrentBlocks - 1) / kConcurrentBlocks;
    // At least two waves, for sequences differ in length, and the last of them nearly full.
    if (total * 20 >= 2 * kConcurrentBlocks * 19 && total * 20 >= waves * kConcurrentBlocks * 17) return splits;
  }
  return kMaxSplits;
}

template <int kHeadDimension, bool kIsE4M3>
struct Shape {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr bool kE4M3 = kIsE4M3;
  static constexpr int kRowBytes = kE4M3 ? kHeadDim : kHeadDim * 2;
  static constexpr int kSlabBytes = kTokens * kRowBytes;  // one cache block's K or V of one head
  // Two blocks of threads fit into a multiprocessor's shared memory, and keep more in flight than the memory's latency
  // asks for.
  static constexpr int kStages = std::min(6, 24 * 1024 / (2 * kSlabBytes));
  static constexpr int kWarpBytes = kStages * 2 * kSlabBytes;
  static constexpr int kSharedBytes = kWarps * kWarpBytes;
  static_assert(kWarpBytes >= kTileHeads * (kHeadDim + 2) * int{sizeof(float)}, "a warp's partial results go there");
};

// The query heads of one block, all of one KV head's group.
struct HeadTile {
  int kv_head;
  int first;
  int count;  // at most kTileHeads
};

__device__ __forceinline__ HeadTile ThisHeadTile(const AttentionLaunch& args) {
  const int group = static_cast<int>(args.heads / args.kv_heads);
  const int head_tiles = (group + kTileHeads - 1) / kTileHeads;
  const int kv_head = static_cast<int>(blockIdx.y) / head_tiles;
  const int first = static_cast<int>(blockIdx.y) % head_tiles * kTileHeads;  // in the group
  return {.kv_head = kv_head, .first = kv_head * group + first, .count = min(kTileHeads, group - first)};
}

// What a split has of one sequence, and which tiles of the cache it takes.
struct Span {
  int first;   // token that the row attends to
  int last;    // the row's position
  int splits;  // that have tokens
  int begin;   // first token of this split's first tile
  int end;     // one tile after its last
};

__device__ __forceinline__ Span MakeSpan(const AttentionSequence& sequence, int window, int splits, int split) {
  Span span;
  span.last = sequence.positions[0];
  span.first = max(0, span.last - window + 1);
  const int first_tile = span.first / kTileTokens;
  const int tiles = span.last / kTileTokens + 1 - first_tile;
  const int split_tiles = (tiles + splits - 1) / splits;
  span.splits = (tiles + split_tiles - 1) / split_tiles;
  span.begin = (first_tile + split * split_tiles) * kTileTokens;
  span.end = (first_tile + min((split + 1) * split_tiles, tiles)) * kTileTokens;
  return span;
}

// The partial results of a split of one (sequence, head), as they lie in the workspace: out [count, heads, splits,
// head_dim], not divided by the sum, then max and sum [count, heads, splits].
struct Partials {
  float* out;
  float2* max_and_sum;  // of scores times scale times log2(e), and of the powers of 2 below the maximum
};

__device__ __forceinline__ Partials PartialsOf(const AttentionLaunch& args, int splits, int64_t sequence,
                                               int64_t head) {
  const int64_t index = (sequence * args.heads + head) * splits;
  auto* out = static_cast<float*>(args.workspace);
  auto* max_and_sum = reinterpret_cast<float2*>(out + args.count * args.heads * splits * args.head_dim);
  return {.out = out + index * args.head_dim, .max_and_sum = max_and_sum + index};
}

__device__ __forceinline__ void Write(const AttentionLaunch& args, int64_t offset, float x) {
  if (args.out_dtype == DType::kBF16) {
    static_cast<__nv_bfloat16*>(args.out)[offset] = __float2bfloat16(x);
  } else {
    static_cast<float*>(args.out)[offset] = x;
  }
}

__device__ __forceinline__ void WriteLogSumExp(const AttentionLaunch& args, int64_t row, int64_t head,
                                               float2 max_and_sum) {
  constexpr float kLn2 = 0.6931471805599453f;
  if (args.log_sum_exp == nullptr) return;
  args.log_sum_exp[row * args.heads + head] = max_and_sum.x * kLn2 + logf(max_and_sum.y);
}

// What a warp keeps of its 16 heads, in fragments (MultiplyAdd): head 8 * half + lane / 4.
template <typename Shape>
struct Softmax {
  float out[Shape::kHeadDim / 8][4] = {};  // not yet divided by the sum
  float max[2] = {-INFINITY, -INFINITY};   // of the scores times scale times log2(e)
  float sum[2] = {};                       // of this lane's columns
};

// Query fragments. A fragment's 16 columns are dimensions 16 * k + column, or of E4M3 in the order that keys have when
// a lane takes four adjacent bytes: columns c, c + 1, c + 8, c + 9 are 16 * k + 2 * c .. 2 * c + 3.
template <typename Shape>
struct Queries {
  uint32_t fragments[Shape::kHeadDim / 16][4];

  // row: [heads, head_dim]
  __device__ __forceinline__ Queries(const float* row, const HeadTile& heads) {
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = half * 8 + lane / 4;
      const float* q = row + (heads.first + head) * Shape::kHeadDim;
#pragma unroll
      for (int k = 0; k < Shape::kHeadDim / 16; ++k) {
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
          const int dimension = k * 16 + (Shape::kE4M3 ? lane % 4 * 4 + upper * 2 : lane % 4 * 2 + upper * 8);
          const float2 pair = head < heads.count ? *reinterpret_cast<const float2*>(q + dimension) : float2{};
          fragments[k][upper * 2 + half] = PackBFloat16(pair.x, pair.y);
        }
      }
    }
  }
};

// Starts the copies of one cache block's K and V, of which this warp alone reads. Tokens that the row doesn't attend to
// become zeros: what their slots hold may be NaN.
template <typename Shape>
__device__ __forceinline__ void LoadBlock(const AttentionLaunch& args, const Span& span, int kv_head, int block,
                                          int first_token, uint32_t stage) {
  constexpr int kRowChunks = Shape::kRowBytes / 16;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::byte* slab = args.cache + block * args.block_bytes + kv_head * Shape::kSlabBytes;
  const int64_t half_bytes = args.kv_heads * Shape::kSlabBytes;
#pragma unroll
  for (int i = 0; i < Shape::kSlabBytes / 512; ++i) {
    const int index = i * 32 + lane;
    const int token = first_token + index / kRowChunks;
    const bool valid = token >= span.first && token <= span.last;
    const uint32_t to = stage + SwizzledOffset<Shape::kRowBytes>(index / kRowChunks, index % kRowChunks);
    CopyAsync16(to, slab + index * 16, valid);
    CopyAsync16(to + Shape::kSlabBytes, slab + half_bytes + index * 16, valid);
  }
}

// scores[16 heads, 16 tokens] = Q K^T
template <typename Shape>
__device__ __forceinline__ void MultiplyQueriesByKeys(const Queries<Shape>& queries, uint32_t keys,
                                                      float (&scores)[2][4]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  if constexpr (Shape::kE4M3) {
    // The matrices of one load: tokens 0 .. 7 and 8 .. 15, of each two chunks of 16 dimensions.
    const uint32_t address = keys + SwizzledOffset<Shape::kRowBytes>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < Shape::kHeadDim / 32; ++k) {
      uint32_t key[4];
      LoadMatrices(address ^ (k * 32), key);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        MultiplyAdd(scores[i / 2], queries.fragments[2 * k + i % 2], E4M3ToBFloat16<0, 1>(key[i]),
                    E4M3ToBFloat16<2, 3>(key[i]));
      }
    }
  } else {
    // The matrices of one load: tokens 0 .. 7 and 8 .. 15, of each the lower and the upper half of 16 dimensions.
    const uint32_t address = keys + SwizzledOffset<Shape::kRowBytes>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < Shape::kHeadDim / 16; ++k) {
      uint32_t key[4];
      LoadMatrices(address ^ (k * 32), key);
      MultiplyAdd(scores[0], queries.fragments[k], key[0], key[1]);
      MultiplyAdd(scores[1], queries.fragments[k], key[2], key[3]);
    }
  }
}

// out[16 heads, head_dim] += weights[16 heads, 16 tokens] V. Of E4M3 the columns of fragments 2 * n and 2 * n + 1 are
// the even and the odd ones of dimensions 16 * n and following: a transposed load takes bytes in pairs.
template <typename Shape>
__device__ __forceinline__ void MultiplyWeightsByValues(uint32_t values, const float (&weights)[2][4],
                                                        Softmax<Shape>& softmax) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const uint32_t weight[4] = {PackBFloat16(weights[0][0], weights[0][1]), PackBFloat16(weights[0][2], weights[0][3]),
                              PackBFloat16(weights[1][0], weights[1][1]), PackBFloat16(weights[1][2], weights[1][3])};
  // The matrices of one load, transposed: two chunks, of each tokens 0 .. 7 and 8 .. 15.
  const uint32_t address = values + SwizzledOffset<Shape::kRowBytes>(lane % 16, lane / 16);
#pragma unroll
  for (int n = 0; n < Shape::kRowBytes / 32; ++n) {
    uint32_t value[4];
    LoadMatricesTransposed(address ^ (n * 32), value);
#pragma unroll
    for (int chunk = 0; chunk < 2; ++chunk) {
      const uint32_t low = value[chunk * 2];
      const uint32_t high = value[chunk * 2 + 1];
      if constexpr (Shape::kE4M3) {
        float(&even)[4] = softmax.out[4 * n + 2 * chunk];
        float(&odd)[4] = softmax.out[4 * n + 2 * chunk + 1];
        MultiplyAdd(even, weight, E4M3ToBFloat16<0, 2>(low), E4M3ToBFloat16<0, 2>(high));
        MultiplyAdd(odd, weight, E4M3ToBFloat16<1, 3>(low), E4M3ToBFloat16<1, 3>(high));
      } else {
        MultiplyAdd(softmax.out[2 * n + chunk], weight, low, high);
      }
    }
  }
}

// Scores become weights, and what has been summed up is scaled to the new maximum. Every block that a warp takes has a
// token of its row, so that the maximum is finite.
template <typename Shape>
__device__ __forceinline__ void UpdateSoftmax(float scale_log2, float (&scores)[2][4], Softmax<Shape>& softmax) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; ++i) largest = fmaxf(largest, scores[i / 2][half * 2 + i % 2]);
    largest = fmaxf(softmax.max[half], QuadMax(largest) * scale_log2);
    const float correction = Exp2(softmax.max[half] - largest);
    softmax.max[half] = largest;
    softmax.sum[half] *= correction;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& weight = scores[i / 2][half * 2 + i % 2];
      weight = Exp2(weight * scale_log2 - largest);
      softmax.sum[half] += weight;
    }
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 8; ++n) {
      softmax.out[n][half * 2] *= correction;
      softmax.out[n][half * 2 + 1] *= correction;
    }
  }
}

// One cache block of 16 tokens.
template <typename Shape>
__device__ __forceinline__ void AttendBlock(const Queries<Shape>& queries, const Span& span, int first_token,
                                            float scale_log2, uint32_t stage, Softmax<Shape>& softmax) {
  float scores[2][4] = {};
  MultiplyQueriesByKeys<Shape>(queries, stage, scores);
  if (first_token < span.first || first_token + kTokens - 1 > span.last) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int token = first_token + i / 4 * 8 + static_cast<int>(threadIdx.x % 4) * 2 + i % 2;
      if (token < span.first || token > span.last) scores[i / 4][i % 4] = -INFINITY;
    }
  }
  UpdateSoftmax<Shape>(scale_log2, scores, softmax);
  MultiplyWeightsByValues<Shape>(stage + Shape::kSlabBytes, scores, softmax);
}

// The warp's blocks of the split: those at its place in each tile. `stages` is its own shared memory.
template <typename Shape>
__device__ __forceinline__ void AttendSplit(const AttentionLaunch& args, const AttentionSequence& sequence,
                                            const Span& span, const HeadTile& heads, uint32_t stages,
                                            Softmax<Shape>& softmax) {
  const int warp_token = static_cast<int>(threadIdx.x / 32) * kTokens;
  // The first and the last tile may have no token of the row at the warp's place.
  int load = span.begin + warp_token;
  if (load + kTokens <= span.first) load += kTileTokens;
  const int end = min(span.end, span.last + 1);
  int token = load;
  uint32_t load_stage = stages;
  int block = load < end ? sequence.block_table[load / kTokens] : 0;
  const auto load_next = [&] {
    if (load < end) {
      LoadBlock<Shape>(args, span, heads.kv_head, block, load, load_stage);
      load += kTileTokens;
      if (load < end) block = sequence.block_table[load / kTokens];
      load_stage = load_stage + 2 * Shape::kSlabBytes == stages + Shape::kWarpBytes
                       ? stages
                       : load_stage + 2 * Shape::kSlabBytes;
    }
    CommitCopies();
  };
  for (int i = 0; i < Shape::kStages - 1; ++i) load_next();
  const Queries<Shape> queries(args.q + sequence.row_begin * args.q_stride, heads);
  uint32_t stage = stages;
  for (; token < end; token += kTileTokens) {
    WaitForCopies<Shape::kStages - 2>();
    // All lanes' copies are there, and all are done with the stage that is loaded next.
    __syncwarp();
    load_next();
    AttendBlock<Shape>(queries, span, token, args.scale * kLog2E, stage, softmax);
    stage = stage + 2 * Shape::kSlabBytes == stages + Shape::kWarpBytes ? stages : stage + 2 * Shape::kSlabBytes;
  }
}

// A warp's partial results in shared memory: out [16, head_dim], then max and sum [16].
template <typename Shape>
__device__ __forceinline__ void StoreWarp(const Softmax<Shape>& softmax, std::byte* shared) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  auto* out = reinterpret_cast<float*>(shared);
  auto* max_and_sum = reinterpret_cast<float2*>(out + kTileHeads * Shape::kHeadDim);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = half * 8 + lane / 4;
    const float sum = QuadSum(softmax.sum[half]);
    if (lane % 4 == 0) max_and_sum[head] = {softmax.max[half], sum};
    float* row = out + head * Shape::kHeadDim;
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 16; ++n) {
      const float* lower = &softmax.out[2 * n][half * 2];
      const float* upper = &softmax.out[2 * n + 1][half * 2];
      if constexpr (Shape::kE4M3) {
        *reinterpret_cast<float4*>(row + n * 16 + lane % 4 * 4) = {lower[0], upper[0], lower[1], upper[1]};
      } else {
        *reinterpret_cast<float2*>(row + n * 16 + lane % 4 * 2) = {lower[0], lower[1]};
        *reinterpret_cast<float2*>(row + n * 16 + 8 + lane % 4 * 2) = {upper[0], upper[1]};
      }
    }
  }
}

// Merges the warps' partial results in their order, and writes the result, or the split's part of it.
template <typename Shape>
__device__ __forceinline__ void MergeWarps(const AttentionLaunch& args, const AttentionSequence& sequence,
                                           const HeadTile& heads, int splits, const std::byte* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < heads.count * Shape::kHeadDim; i += kThreads) {
    const int head = i / Shape::kHeadDim;
    const int dimension = i % Shape::kHeadDim;
    const float* out[kWarps];
    float2 max_and_sum[kWarps];
    float max = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      out[w] = reinterpret_cast<const float*>(shared + w * Shape::kWarpBytes);
      max_and_sum[w] = reinterpret_cast<const float2*>(out[w] + kTileHeads * Shape::kHeadDim)[head];
      max = fmaxf(max, max_and_sum[w].x);
    }
    float sum = 0;
    float result = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = Exp2(max_and_sum[w].x - max);
      sum += weight * max_and_sum[w].y;
      result += weight * out[w][i];
    }
    if (splits == 1) {
      const int64_t offset = sequence.row_begin * args.out_stride + (heads.first + head) * Shape::kHeadDim + dimension;
      Write(args, offset, result / sum);
      if (dimension == 0) WriteLogSumExp(args, sequence.row_begin, heads.first + head, {max, sum});
    } else {
      const Partials partials = PartialsOf(args, splits, blockIdx.z, heads.first + head);
      partials.out[static_cast<int64_t>(blockIdx.x) * Shape::kHeadDim + dimension] = result;
      if (dimension == 0) partials.max_and_sum[blockIdx.x] = {max, sum};
    }
  }
}

// Grid: splits, KV heads times tiles of 16 heads of each group, sequences.
template <typename Shape>
__global__ void __launch_bounds__(kThreads) DecodeKernel(const AttentionLaunch args, int window) {
  const AttentionSequence sequence = args.sequences[blockIdx.z];
  if (sequence.rows == 0) return;
  const int splits = static_cast<int>(gridDim.x);
  const Span span = MakeSpan(sequence, window, splits, static_cast<int>(blockIdx.x));
  if (static_cast<int>(blockIdx.x) >= span.splits) return;
  const HeadTile heads = ThisHeadTile(args);
  std::byte* shared = DynamicSharedMemory();
  std::byte* warp_shared = shared + threadIdx.x / 32 * Shape::kWarpBytes;
  Softmax<Shape> softmax;
  AttendSplit<Shape>(args, sequence, span, heads, SharedAddress(warp_shared), softmax);
  // The last stages have been read by all lanes, and no copy is under way: their place is free.
  WaitForCopies<0>();
  __syncwarp();
  StoreWarp<Shape>(softmax, warp_shared);
  __syncthreads();
  MergeWarps<Shape>(args, sequence, heads, splits, shared);
}

// Merges the splits of one head of one sequence in their order. Grid: heads, sequences. Block: head_dim threads.
__global__ void __launch_bounds__(128) MergeSplitsKernel(const AttentionLaunch args, int window, int splits) {
  const AttentionSequence sequence = args.sequences[blockIdx.y];
  if (sequence.rows == 0) return;
  const Span span = MakeSpan(sequence, window, splits, 0);
  const Partials partials = PartialsOf(args, splits, blockIdx.y, blockIdx.x);
  __shared__ float2 max_and_sum[kMaxSplits];
  if (static_cast<int>(threadIdx.x) < span.splits) max_and_sum[threadIdx.x] = partials.max_and_sum[threadIdx.x];
  __syncthreads();
  float max = -INFINITY;
  for (int s = 0; s < span.splits; ++s) max = fmaxf(max, max_and_sum[s].x);
  float sum = 0;
  float result = 0;
#pragma unroll 8
  for (int s = 0; s < span.splits; ++s) {
    const float weight = Exp2(max_and_sum[s].x - max);
    sum += weight * max_and_sum[s].y;
    result += weight * partials.out[s * args.head_dim + threadIdx.x];
  }
  Write(args, sequence.row_begin * args.out_stride + blockIdx.x * args.head_dim + threadIdx.x, result / sum);
  if (threadIdx.x == 0) WriteLogSumExp(args, sequence.row_begin, blockIdx.x, {max, sum});
}

template <typename Shape>
void LaunchDecode(const AttentionLaunch& args, cudaStream_t stream) {
  static const cudaError_t raised =
      cudaFuncSetAttribute(DecodeKernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  static_cast<void>(raised);  // a launch would fail by itself
  const int window = WindowOf(args);
  const auto splits = static_cast<unsigned>(Splits(args.count, args.heads, args.kv_heads));
  const dim3 grid(splits, static_cast<unsigned>(args.kv_heads * HeadTiles(args.heads, args.kv_heads)),
                  static_cast<unsigned>(args.count));
  DecodeKernel<Shape><<<grid, kThreads, Shape::kSharedBytes, stream>>>(args, window);
  if (splits == 1) return;
  const dim3 merge_grid(static_cast<unsigned>(args.heads), static_cast<unsigned>(args.count));
  MergeSplitsKernel<<<merge_grid, Shape::kHeadDim, 0, stream>>>(args, window, static_cast<int>(splits));
}

}  // namespace

void DecodeAttention(const AttentionLaunch& args, cudaStream_t stream) {
  if (args.count == 0) return;
  const bool e4m3 = args.cache_dtype == DType::kF8E4M3;
  if (args.cache_dtype == DType::kF32 || (args.head_dim != 64 && args.head_dim != 128)) {
    PlainAttention(args, 1, stream);
  } else if (args.head_dim == 64) {
    e4m3 ? LaunchDecode<Shape<64, true>>(args, stream) : LaunchDecode<Shape<64, false>>(args, stream);
  } else {
    e4m3 ? LaunchDecode<Shape<128, true>>(args, stream) : LaunchDecode<Shape<128, false>>(args, stream);
  }
}

int64_t DecodeWorkspaceBytes(int64_t count, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return count * heads * Splits(count, heads, kv_heads) * (head_dim + 2) * int64_t{sizeof(float)};
}

}  // namespace swiftkv::kernels::cuda
