// The backward of attention: what is prepared for all of it, and kernels in plain float32 for float32 inputs and for
// head dimensions that no tensor core kernel is made for. There a warp has one row of one head.
#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>

#include "kernels/cuda/backward.h"
#include "kernels/cuda/backward_attention.h"
#include "kernels/cuda/device-inl.h"
#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarpSize * kWarps;
constexpr int kLaneDims = kMaxHeadDim / kWarpSize;  // dimensions lane, lane + 32, ...
constexpr float kLog2OfE = 1.4426950408889634f;

__device__ __forceinline__ float WarpSum(float value) {
  return WarpReduce(value, [](float a, float b) { return a + b; });
}

// A head's vector at a row: a lane's dimensions, zeros past head_dim.
struct Vector {
  float values[kLaneDims] = {};
};

template <typename T>
__device__ __forceinline__ Vector LoadVector(const T* from, int head_dim) {
  Vector vector;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) {
    const int dimension = i * kWarpSize + static_cast<int>(threadIdx.x) % kWarpSize;
    if (dimension < head_dim) vector.values[i] = static_cast<float>(from[dimension]);
  }
  return vector;
}

__device__ __forceinline__ float Dot(const Vector& a, const Vector& b) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) sum += a.values[i] * b.values[i];
  return WarpSum(sum);
}

__device__ __forceinline__ void AddScaled(float scale, const Vector& x, Vector& sum) {
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) sum.values[i] += scale * x.values[i];
}

// out[head_dim] = scale * x, or += where kAdd.
template <bool kAdd>
__device__ __forceinline__ void StoreVector(const Vector& x, float scale, int head_dim, float* out) {
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) {
    const int dimension = i * kWarpSize + static_cast<int>(threadIdx.x) % kWarpSize;
    if (dimension < head_dim) out[dimension] = scale * x.values[i] + (kAdd ? out[dimension] : 0.0f);
  }
}

// sums [heads, rows]. A warp has one row of one head. Grid: rows / kWarps, heads.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    QuerySumsKernel(const AttentionBackwardArgs args, float log_scale, QuerySums* sums) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  const int64_t head = blockIdx.y;
  if (row >= args.rows) return;
  const int head_dim = static_cast<int>(args.head_dim);
  const int64_t at = row * args.out_stride + head * head_dim;
  const float dout_out = Dot(LoadVector(static_cast<const T*>(args.out) + at, head_dim),
                             LoadVector(static_cast<const T*>(args.dout) + at, head_dim));
  if (threadIdx.x % kWarpSize != 0) return;
  sums[head * args.rows + row] = {.log_sum_exp = args.log_sum_exp[row * args.heads + head] * log_scale,
                                  .dout_out = dout_out};
}

// The plain kernels' inputs at their places; of bf16 rounded as products take them.
template <typename T>
struct Inputs {
  AttentionBackwardArgs args;
  const QuerySums* sums;  // [heads, rows]

  __device__ __forceinline__ Vector LoadRounded(const float* from) const {
    Vector vector = LoadVector(from, static_cast<int>(args.head_dim));
    if constexpr (std::is_same_v<T, BF16>) {
#pragma unroll
      for (float& value : vector.values) value = __bfloat162float(__float2bfloat16(value));
    }
    return vector;
  }
  __device__ __forceinline__ Vector Query(int64_t row, int64_t head) const {
    return LoadRounded(args.q + row * args.q_stride + head * args.head_dim);
  }
  __device__ __forceinline__ Vector Key(int64_t row, int64_t kv_head) const {
    return LoadRounded(args.k + row * args.kv_stride + kv_head * args.head_dim);
  }
  __device__ __forceinline__ Vector Value(int64_t row, int64_t kv_head) const {
    return LoadRounded(args.v + row * args.kv_stride + kv_head * args.head_dim);
  }
  __device__ __forceinline__ Vector DOut(int64_t row, int64_t head) const {
    return LoadVector(static_cast<const T*>(args.dout) + row * args.out_stride + head * args.head_dim,
                      static_cast<int>(args.head_dim));
  }
  __device__ __forceinline__ const QuerySums& Sums(int64_t row, int64_t head) const {
    return sums[head * args.rows + row];
  }
};

// The warp's row of the tile; -1 past the document's end. Grid: heads, tiles, kTile / kWarps.
__device__ __forceinline__ int RowInDocument(const AttentionBackwardTile& tile) {
  const int row = tile.tile * kAttentionBackwardTile + static_cast<int>(blockIdx.z * kWarps + threadIdx.x / kWarpSize);
  return row < tile.rows ? row : -1;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) PlainQueryKernel(Inputs<T> in, const AttentionBackwardTile* tiles) {
  const AttentionBackwardTile tile = tiles[blockIdx.y];
  const AttentionBackwardArgs& args = in.args;
  const int row = RowInDocument(tile);
  if (row < 0) return;
  const int64_t head = blockIdx.x;
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  const int64_t query = tile.row_begin + row;
  const Vector q = in.Query(query, head);
  const Vector dout = in.DOut(query, head);
  const QuerySums sums = in.Sums(query, head);
  Vector dq;
  const int64_t first = args.window > 0 && args.window <= row ? query - args.window + 1 : tile.row_begin;
  for (int64_t key = first; key <= query; ++key) {
    const Vector k = in.Key(key, kv_head);
    const float p = expf(args.scale * Dot(q, k) - sums.log_sum_exp);
    AddScaled(p * (Dot(dout, in.Value(key, kv_head)) - sums.dout_out), k, dq);
  }
  const int head_dim = static_cast<int>(args.head_dim);
  StoreVector<false>(dq, args.scale, head_dim, args.dq + query * args.dq_stride + head * args.head_dim);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) PlainKeyKernel(Inputs<T> in, const AttentionBackwardTile* tiles) {
  const AttentionBackwardTile tile = tiles[blockIdx.y];
  const AttentionBackwardArgs& args = in.args;
  const int row = RowInDocument(tile);
  if (row < 0) return;
  const int64_t kv_head = blockIdx.x;
  const int64_t group = args.heads / args.kv_heads;
  const int64_t key = tile.row_begin + row;
  const Vector k = in.Key(key, kv_head);
  const Vector v = in.Value(key, kv_head);
  Vector dk;
  Vector dv;
  const int64_t end = tile.row_begin + tile.rows;
  const int64_t last = args.window > 0 && args.window < end - key ? key + args.window - 1 : end - 1;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t query = key; query <= last; ++query) {
      const Vector q = in.Query(query, head);
      const Vector dout = in.DOut(query, head);
      const QuerySums sums = in.Sums(query, head);
      const float p = expf(args.scale * Dot(q, k) - sums.log_sum_exp);
      AddScaled(p, dout, dv);
      AddScaled(p * (Dot(dout, v) - sums.dout_out), q, dk);
    }
  }
  const int64_t at = key * args.dkv_stride + kv_head * args.head_dim;
  StoreVector<true>(dk, args.scale, static_cast<int>(args.head_dim), args.dk + at);
  StoreVector<true>(dv, 1, static_cast<int>(args.head_dim), args.dv + at);
}

// Workspace: sums, then q, k and v in bf16.
int64_t SumsBytes(const AttentionBackwardArgs& args) {
  return CeilDiv(args.rows * args.heads * int64_t{sizeof(QuerySums)}, 256) * 256;
}

bool HasTensorShape(const AttentionBackwardArgs& args) {
  return args.dtype == DType::kBF16 && (args.head_dim == 64 || args.head_dim == 128);
}

bool TakesTensorCores(const AttentionBackwardArgs& args) {
  return HasTensorShape(args) && IsAligned<8>(static_cast<const BF16*>(args.dout), args.out_stride) &&
         IsAligned<2>(args.dq, args.dq_stride) && IsAligned<2>(args.dk, args.dkv_stride) &&
         IsAligned<2>(args.dv, args.dkv_stride);
}

void RunOnTensorCores(const AttentionBackwardArgs& args, const AttentionBackwardTile* tiles, int64_t tile_count,
                      const QuerySums* sums, std::byte* rounded, cudaStream_t stream) {
  const int64_t q_size = args.heads * args.head_dim;
  const int64_t kv_size = args.kv_heads * args.head_dim;
  auto* const q = reinterpret_cast<BF16*>(rounded);
  BF16* const k = q + args.rows * q_size;
  BF16* const v = k + args.rows * kv_size;
  const auto round = [&](const float* x, int64_t stride, int64_t size, BF16* out) {
    Round({.x = x,
           .x_stride = stride,
           .rows = args.rows,
           .size = size,
           .out = out,
           .out_stride = size,
           .dtype = DType::kBF16},
          stream);
  };
  round(args.q, args.q_stride, q_size, q);
  round(args.k, args.kv_stride, kv_size, k);
  round(args.v, args.kv_stride, kv_size, v);
  RunTensorAttentionBackward({.q = q,
                              .dout = static_cast<const BF16*>(args.dout),
                              .k = k,
                              .v = v,
                              .q_stride = q_size,
                              .dout_stride = args.out_stride,
                              .kv_stride = kv_size,
                              .sums = sums,
                              .tiles = tiles,
                              .rows = args.rows,
                              .heads = args.heads,
                              .kv_heads = args.kv_heads,
                              .group = static_cast<int>(args.heads / args.kv_heads),
                              .window = args.window,
                              .scale = args.scale,
                              .scale_log2 = args.scale * kLog2OfE,
                              .dq = args.dq,
                              .dq_stride = args.dq_stride,
                              .dk = args.dk,
                              .dv = args.dv,
                              .dkv_stride = args.dkv_stride},
                             args.head_dim, tile_count, stream);
}

}  // namespace

void AttentionBackward(const AttentionBackwardArgs& args, const AttentionBackwardTile* tiles, int64_t tile_count,
                       std::byte* workspace, cudaStream_t stream) {
  if (tile_count == 0) return;
  auto* const sums = reinterpret_cast<QuerySums*>(workspace);
  const bool tensor_cores = TakesTensorCores(args);
  WithBool(args.dtype == DType::kBF16, [&](auto is_bf16) {
    using T = std::conditional_t<decltype(is_bf16)::value, BF16, float>;
    const dim3 sums_grid(static_cast<unsigned>(CeilDiv(args.rows, kWarps)), static_cast<unsigned>(args.heads));
    QuerySumsKernel<T><<<sums_grid, kThreads, 0, stream>>>(args, tensor_cores ? kLog2OfE : 1.0f, sums);
    if (tensor_cores) {
      RunOnTensorCores(args, tiles, tile_count, sums, workspace + SumsBytes(args), stream);
      return;
    }
    const Inputs<T> inputs{args, sums};
    dim3 grid(static_cast<unsigned>(args.heads), static_cast<unsigned>(tile_count), kAttentionBackwardTile / kWarps);
    PlainQueryKernel<T><<<grid, kThreads, 0, stream>>>(inputs, tiles);
    grid.x = static_cast<unsigned>(args.kv_heads);
    PlainKeyKernel<T><<<grid, kThreads, 0, stream>>>(inputs, tiles);
  });
}

int64_t AttentionBackwardWorkspaceBytes(const AttentionBackwardArgs& args) {
  const int64_t elements = args.rows * (args.heads + 2 * args.kv_heads) * args.head_dim;
  return SumsBytes(args) + (HasTensorShape(args) ? elements * int64_t{sizeof(BF16)} : 0);
}

}  // namespace swiftkv::kernels::cuda
