// Attention of many rows of a sequence with warpgroup products, after FlashAttention-3.
//
// A block computes a RowTile with two warpgroups of 64 rows each, and a third one copies the cache for both: K and V of
// 128 tokens in turn into a ring of stages, each with a barrier that says it is full and one that says it is empty.
// While a warpgroup computes the weights of a tile, its product of those of the tile before with V and the products of
// the other one keep the tensor cores busy.
#include <cuda_bf16.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/attention_hopper.h"
#include "kernels/cuda/attention_tile-inl.h"
#include "kernels/cuda/hopper-inl.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mma-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kConsumers = 2;  // warpgroups, then the one that copies
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
constexpr int kStages = 6;

template <int kHeadDimension>
struct Shape {
  static constexpr int kHeadDim = kHeadDimension;
  // Tiles of Q, K and V: [head_dim / 64, 128 rows or tokens, 64 dimensions], swizzled in rows of 128 bytes.
  static constexpr int kPartBytes = 128 * 128;
  static constexpr int kTileBytes = kHeadDim / 64 * kPartBytes;
  static constexpr int kAlignment = 1024;  // of tiles; the start of shared memory needn't have it
  static constexpr int kSharedBytes = (1 + kStages) * kTileBytes + kAlignment;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int kGroupRows = kTileRows / kConsumers;
constexpr int kTileTokens = 128;

// The rows of a warpgroup or of the whole block: from the first's position to the last's.
struct Rows {
  int first;
  int last;
};

// Of the matrix rows [begin, end), of which there is at least one.
__device__ __forceinline__ Rows RowsOf(const RowTile& tile, int begin, int end) {
  const int32_t* positions = tile.sequence->positions;
  return {.first = positions[begin / tile.group], .last = positions[(min(end, tile.end) - 1) / tile.group]};
}

// The block's tiles of the cache: `count` from token `token`. Its stages are filled in the order K, V of tile 0, K, V
// of tile 1 and so on; fill n goes to stage n % kStages.
struct Tiles {
  int token;
  int count;
};

__device__ __forceinline__ Tiles TilesOf(const Rows& rows, int window) {
  const int first = max(0, rows.first - window + 1) / kTileTokens;
  return {.token = first * kTileTokens, .count = rows.last / kTileTokens + 1 - first};
}

struct Ring {
  uint64_t* full;   // [kStages]
  uint64_t* empty;  // [kStages]

  __device__ __forceinline__ void WaitUntilFull(int fill) const {
    WaitForBarrier(full + fill % kStages, fill / kStages % 2);
  }
  __device__ __forceinline__ void WaitUntilEmpty(int fill) const {
    if (fill >= kStages) WaitForBarrier(empty + fill % kStages, (fill / kStages - 1) % 2);
  }
  // By the threads that copy, when this thread's copies are complete.
  __device__ __forceinline__ void SetFull(int fill) const {
    FenceForProducts();
    ArriveAtBarrier(full + fill % kStages);
  }
  // By all warps of the consumers.
  __device__ __forceinline__ void SetEmpty(int fill) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ArriveAtBarrier(empty + fill % kStages);
  }
};

// Starts the copies of a cache block's K or V of one head (`slab`) to tokens 16 * place and following of a stage.
// Tokens that no row attends to become zeros: what their slots hold may be NaN.
template <typename Shape>
__device__ __forceinline__ void LoadSlab(const std::byte* slab, int place, int first_valid, int last_valid,
                                         uint32_t stage) {
  constexpr int kRowChunks = Shape::kHeadDim / 8;
  constexpr int kRowStep = 32 / kRowChunks;  // rows that a warp copies at once
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int row = lane / kRowChunks;
  const int chunk = lane % kRowChunks;
  const uint32_t to = stage + chunk / 8 * Shape::kPartBytes +
                      SwizzledOffset<128>(place * static_cast<int>(kBlockTokens) + row, chunk % 8);
#pragma unroll
  for (int i = 0; i < kRowChunks / 2; ++i) {
    const int block_row = i * kRowStep + row;
    CopyAsync16((to ^ (i * kRowStep % 8 * 16)) + i * kRowStep * 128, slab + (i * 32 + lane) * 16,
                block_row >= first_valid && block_row <= last_valid);
  }
}

// The warpgroup that copies. Each warp has two of a tile's eight cache blocks.
template <typename Shape>
__device__ __forceinline__ void Produce(const AttentionLaunch& args, const int32_t* block_table, const Rows& rows,
                                        int window, const Ring& ring, uint32_t stages) {
  constexpr int kBlock = static_cast<int>(kBlockTokens);
  constexpr int kSlabBytes = kBlock * Shape::kHeadDim * 2;
  const Tiles tiles = TilesOf(rows, window);
  const int first = max(0, rows.first - window + 1);
  const int warp = static_cast<int>(threadIdx.x / 32 % 4);
  const auto block_of = [&](int token) { return block_table[min(max(token, first), rows.last) / kBlock]; };
  const int fills = 2 * tiles.count;
  int token = tiles.token + warp * kBlock;
  int blocks[2] = {block_of(token), block_of(token + 4 * kBlock)};
  for (int fill = 0; fill < fills; ++fill) {
    ring.WaitUntilEmpty(fill);
    const std::byte* head = args.cache + (fill % 2 * args.kv_heads + blockIdx.y) * kSlabBytes;
    const uint32_t stage = stages + fill % kStages * Shape::kTileBytes;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int slab_token = token + i * 4 * kBlock;
      LoadSlab<Shape>(head + blocks[i] * args.block_bytes, warp + i * 4, first - slab_token, rows.last - slab_token,
                      stage);
    }
    CommitCopies();
    if (fill % 2 == 1) {
      token += kTileTokens;
      blocks[0] = block_of(token);
      blocks[1] = block_of(token + 4 * kBlock);
    }
    if (fill > 0) {
      WaitForCopies<1>();
      ring.SetFull(fill - 1);
    }
  }
  WaitForCopies<0>();
  ring.SetFull(fills - 1);
}

// A warpgroup's queries as bf16 in shared memory; zeros for rows past the end.
template <typename Shape>
__device__ __forceinline__ void StoreQueries(const AttentionLaunch& args, const RowTile& tile, std::byte* queries) {
  constexpr int kRowChunks = Shape::kHeadDim / 8;
  const int group_row = static_cast<int>(threadIdx.x / kWarpgroup) * kGroupRows;
  for (int i = static_cast<int>(threadIdx.x % kWarpgroup); i < kGroupRows * kRowChunks; i += kWarpgroup) {
    const int row = group_row + i / kRowChunks;
    const int chunk = i % kRowChunks;
    uint4 packed = {};
    if (tile.begin + row < tile.end) {
      const float* q = args.q + RowOffset(tile, tile.begin + row, args.q_stride, Shape::kHeadDim) + chunk * 8;
      const float4 low = *reinterpret_cast<const float4*>(q);
      const float4 high = *reinterpret_cast<const float4*>(q + 4);
      packed = {PackBFloat16(low.x, low.y), PackBFloat16(low.z, low.w), PackBFloat16(high.x, high.y),
                PackBFloat16(high.z, high.w)};
    }
    *reinterpret_cast<uint4*>(queries + chunk / 8 * Shape::kPartBytes + SwizzledOffset<128>(row, chunk % 8)) = packed;
  }
}

// What a thread keeps of its rows: row 16 * warp + 8 * half + lane / 4 of the warpgroup's 64. Element i of a fragment
// of `columns / 2` floats is row half i / 2 % 2, column i / 4 * 8 + lane % 4 * 2 + i % 2.
template <typename Shape>
struct Softmax {
  float out[Shape::kHeadDim / 2] = {};    // not yet divided by the sum
  float max[2] = {-INFINITY, -INFINITY};  // of the scores, unscaled
  float sum[2] = {};                      // of this lane's columns
};

using Scores = float[kTileTokens / 2];
using Weights = uint32_t[kTileTokens / 16][4];

// Starts scores[64, 128] = Q K^T.
template <typename Shape>
__device__ __forceinline__ void StartScores(uint32_t queries, uint32_t keys, Scores& scores) {
  FenceProducts();
#pragma unroll
  for (int k = 0; k < Shape::kHeadDim / 16; ++k) {
    const uint32_t offset = k / 4 * Shape::kPartBytes + k % 4 * 32;
    MultiplyShared(scores, MatrixDescriptor(queries + offset, 16), MatrixDescriptor(keys + offset, 16), k > 0);
  }
  CommitProducts();
}

// Starts out[64, head_dim] += weights[64, 128] V.
template <typename Shape>
__device__ __forceinline__ void StartOut(const Weights& weights, uint32_t values, Softmax<Shape>& softmax) {
  FenceProducts();
#pragma unroll
  for (int k = 0; k < kTileTokens / 16; ++k) {
    MultiplyTransposed(softmax.out, weights[k], MatrixDescriptor(values + k * 16 * 128, Shape::kPartBytes));
  }
  CommitProducts();
}

// Scores of tokens that a row doesn't attend to become -infinity. row_last: of the thread's two rows.
__device__ __forceinline__ void MaskScores(const int (&row_last)[2], int first_token, int window, Scores& scores) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int last = row_last[half] - first_token - static_cast<int>(threadIdx.x % 4) * 2;
#pragma unroll
    for (int i = 0; i < kTileTokens / 4; ++i) {
      const int column = i / 2 * 8 + i % 2;
      if (column > last || column <= last - window) scores[i / 2 * 4 + half * 2 + i % 2] = -INFINITY;
    }
  }
}

// Scores become weights. What has been summed up must then be scaled by `correction`.
template <typename Shape>
__device__ __forceinline__ void UpdateSoftmax(float scale_log2, Scores& scores, Softmax<Shape>& softmax,
                                              float (&correction)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = softmax.max[half];
#pragma unroll
    for (int i = 0; i < kTileTokens / 4; ++i) largest = fmaxf(largest, scores[i / 2 * 4 + half * 2 + i % 2]);
    largest = QuadMax(largest);
    // A row that has met none of its tokens yet: its weights are 0 then, and not 2^(inf - inf).
    const float offset = largest == -INFINITY ? 0.0f : largest * scale_log2;
    correction[half] = Exp2(softmax.max[half] * scale_log2 - offset);
    softmax.max[half] = largest;
    float sum = softmax.sum[half] * correction[half];
#pragma unroll
    for (int i = 0; i < kTileTokens / 4; ++i) {
      float& weight = scores[i / 2 * 4 + half * 2 + i % 2];
      weight = Exp2(weight * scale_log2 - offset);
      sum += weight;
    }
    softmax.sum[half] = sum;
  }
}

// Weights as fragments of the next product.
__device__ __forceinline__ void PackWeights(const Scores& scores, Weights& weights) {
#pragma unroll
  for (int i = 0; i < kTileTokens / 4; ++i) {
    weights[i / 4][i % 4] = PackBFloat16(scores[2 * i], scores[2 * i + 1]);
  }
}

template <typename Shape>
__device__ __forceinline__ void ScaleOut(const float (&correction)[2], Softmax<Shape>& softmax) {
#pragma unroll
  for (int i = 0; i < Shape::kHeadDim / 2; ++i) softmax.out[i] *= correction[i / 2 % 2];
}

// One warpgroup's 64 rows.
template <typename Shape>
class Consumer {
 public:
  __device__ __forceinline__ Consumer(const RowTile& tile, const Tiles& tiles, int window, float scale_log2,
                                      const Ring& ring, uint32_t queries, uint32_t stages)
      : tiles_(tiles), window_(window), scale_log2_(scale_log2), ring_(ring), stages_(stages) {
    const int group_begin = static_cast<int>(threadIdx.x / kWarpgroup) * kGroupRows;
    queries_ = queries + group_begin * 128;
    const int begin = tile.begin + group_begin;
    first_tile_ = end_tile_ = tiles.count;
    if (begin >= tile.end) return;
    rows_ = RowsOf(tile, begin, begin + kGroupRows);
    const Tiles own = TilesOf(rows_, window);
    first_tile_ = (own.token - tiles.token) / kTileTokens;
    end_tile_ = first_tile_ + own.count;
    const int row = begin + static_cast<int>(threadIdx.x % kWarpgroup / 32 * 16 + threadIdx.x % 32 / 4);
    for (int half = 0; half < 2; ++half) {
      row_last_[half] = tile.sequence->positions[min(row + half * 8, tile.end - 1) / tile.group];
    }
  }

  __device__ __forceinline__ void Run(Softmax<Shape>& softmax) {
    int tile = 0;
    for (; tile < first_tile_; ++tile) Skip(tile);
    if (tile < end_tile_) {
      Scores scores = {};
      Weights weights;
      float correction[2];
      Start(tile, scores);
      WaitForProducts<0>();
      FinishScores(tile, scores, softmax, correction);
      PackWeights(scores, weights);
      for (++tile; tile < end_tile_; ++tile) {
        Start(tile, scores);
        StartWeighing(tile - 1, weights, softmax);
        WaitForProducts<1>();
        FinishScores(tile, scores, softmax, correction);
        WaitForProducts<0>();
        FinishWeighing(tile - 1, softmax);
        // Not earlier: the products took the old weights from their registers.
        HoldRegisters(scores);
        PackWeights(scores, weights);
        ScaleOut<Shape>(correction, softmax);
      }
      StartWeighing(tile - 1, weights, softmax);
      WaitForProducts<0>();
      FinishWeighing(tile - 1, softmax);
    }
    for (; tile < tiles_.count; ++tile) Skip(tile);
  }

 private:
  __device__ __forceinline__ uint32_t StageOf(int fill) const { return stages_ + fill % kStages * Shape::kTileBytes; }

  // A tile that only the other warpgroup needs. Its stages are there before they are given back, else this warpgroup's
  // arrivals could be taken for the other's.
  __device__ __forceinline__ void Skip(int tile) const {
    for (int fill = 2 * tile; fill < 2 * tile + 2; ++fill) {
      ring_.WaitUntilFull(fill);
      ring_.SetEmpty(fill);
    }
  }

  __device__ __forceinline__ void Start(int tile, Scores& scores) const {
    ring_.WaitUntilFull(2 * tile);
    StartScores<Shape>(queries_, StageOf(2 * tile), scores);
  }

  // After the scores' products have been waited for.
  __device__ __forceinline__ void FinishScores(int tile, Scores& scores, Softmax<Shape>& softmax,
                                               float (&correction)[2]) const {
    HoldRegisters(scores);
    ring_.SetEmpty(2 * tile);
    const int first_token = tiles_.token + tile * kTileTokens;
    if (first_token + kTileTokens - 1 > rows_.first || first_token <= rows_.last - window_) {
      MaskScores(row_last_, first_token, window_, scores);
    }
    UpdateSoftmax<Shape>(scale_log2_, scores, softmax, correction);
  }

  __device__ __forceinline__ void StartWeighing(int tile, const Weights& weights, Softmax<Shape>& softmax) const {
    ring_.WaitUntilFull(2 * tile + 1);
    StartOut<Shape>(weights, StageOf(2 * tile + 1), softmax);
  }

  __device__ __forceinline__ void FinishWeighing(int tile, Softmax<Shape>& softmax) const {
    HoldRegisters(softmax.out);
    ring_.SetEmpty(2 * tile + 1);
  }

  Tiles tiles_;  // of the block
  int window_;
  float scale_log2_;
  Ring ring_;
  uint32_t stages_;
  uint32_t queries_;
  Rows rows_ = {};
  int first_tile_;  // that the warpgroup needs, of tiles_
  int end_tile_;
  int row_last_[2] = {};
};

template <typename Shape>
__device__ __forceinline__ void WriteOut(const AttentionLaunch& args, const RowTile& tile,
                                         const Softmax<Shape>& softmax) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = QuadSum(softmax.sum[half]);
    const float scale = 1.0f / sum;
    const int row = tile.begin + static_cast<int>(threadIdx.x / 32) * 16 + half * 8 + lane / 4;
    if (row >= tile.end) continue;
    if (lane % 4 == 0) WriteLogSumExp(args, tile, row, softmax.max[half], sum);
    const int64_t offset = RowOffset(tile, row, args.out_stride, Shape::kHeadDim) + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < Shape::kHeadDim / 8; ++n) {
      const float low = softmax.out[4 * n + half * 2] * scale;
      const float high = softmax.out[4 * n + half * 2 + 1] * scale;
      if (args.out_dtype == DType::kBF16) {
        *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(args.out) + offset + n * 8) = PackBFloat16(low, high);
      } else {
        *reinterpret_cast<float2*>(static_cast<float*>(args.out) + offset + n * 8) = {low, high};
      }
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// Grid: RowTileGrid. Compiled for other architectures it is empty and has no shared memory, which IsCompiled sees.
template <typename Shape>
__global__ void __launch_bounds__(kThreads, 1)
    HopperPrefillKernel(const AttentionLaunch args, int window, float scale_log2) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ uint64_t full[kStages];
  __shared__ uint64_t empty[kStages];
  const RowTile tile = ThisRowTile(args);
  if (tile.begin >= tile.end) return;
  const Ring ring = {.full = full, .empty = empty};
  std::byte* shared = DynamicSharedMemory();
  shared += (Shape::kAlignment - SharedAddress(shared) % Shape::kAlignment) % Shape::kAlignment;
  const uint32_t stages = SharedAddress(shared) + Shape::kTileBytes;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(full + i, kWarpgroup);
      InitBarrier(empty + i, kConsumers * kWarpgroup / 32);
    }
  }
  __syncthreads();
  const Rows rows = RowsOf(tile, tile.begin, tile.begin + kTileRows);
  // The registers of a block, 65536, are dealt anew: most are the consumers'.
  if (threadIdx.x / kWarpgroup == kConsumers) {
    GiveUpRegisters<40>();
    Produce<Shape>(args, tile.sequence->block_table, rows, window, ring, stages);
  } else {
    TakeRegisters<232>();
    StoreQueries<Shape>(args, tile, shared);
    FenceForProducts();
    SyncWarpgroup(1 + static_cast<int>(threadIdx.x / kWarpgroup));
    Softmax<Shape> softmax;
    Consumer<Shape>(tile, TilesOf(rows, window), window, scale_log2, ring, SharedAddress(shared), stages).Run(softmax);
    WriteOut<Shape>(args, tile, softmax);
  }
#endif
}

template <typename Shape>
bool IsCompiled() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, HopperPrefillKernel<Shape>) == cudaSuccess &&
         attributes.sharedSizeBytes > 0;
}

// Whether this device can run the kernel; prepares it then. A device of another kind would run the empty one.
template <typename Shape>
bool Prepare() {
  int device = 0;
  int major = 0;
  int minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 &&
         minor == 0 && IsCompiled<Shape>() &&
         cudaFuncSetAttribute(HopperPrefillKernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              Shape::kSharedBytes) == cudaSuccess;
}

template <typename Shape>
bool Launch(const AttentionLaunch& args, cudaStream_t stream) {
  static const bool ready = Prepare<Shape>();
  if (!ready) return false;
  HopperPrefillKernel<Shape>
      <<<RowTileGrid(args), kThreads, Shape::kSharedBytes, stream>>>(args, WindowOf(args), args.scale * kLog2E);
  return true;
}

std::atomic<bool>& IsSwitchedOff() {
  static std::atomic<bool> off = [] {
    const char* choice = std::getenv("SWIFTKV_CUDA_ATTENTION");
    return choice != nullptr && std::strcmp(choice, "mma") == 0;
  }();
  return off;
}

}  // namespace

bool HopperPrefillAttention(const AttentionLaunch& args, cudaStream_t stream) {
  if (args.cache_dtype != DType::kBF16 || IsSwitchedOff()) return false;
  if (args.head_dim == 64) return Launch<Shape<64>>(args, stream);
  return args.head_dim == 128 && Launch<Shape<128>>(args, stream);
}

void ForceMmaAttention(bool force) { IsSwitchedOff() = force; }

}  // namespace swiftkv::kernels::cuda
