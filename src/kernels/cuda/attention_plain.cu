#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/attention_plain.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kLaneDims = kMaxHeadDim / 32;  // dimensions lane, lane + 32, ...
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float Load(const std::byte* vector, int i, DType dtype) {
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(vector)[i];
  if (dtype == DType::kBF16) return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(vector)[i]);
  return static_cast<float>(reinterpret_cast<const __nv_fp8_e4m3*>(vector)[i]);
}

// What a warp has of one query: a lane has its dimensions of `out`, all lanes the maximum and the sum.
struct Softmax {
  float out[kLaneDims] = {};  // not yet divided by the sum
  float max = -INFINITY;      // of the scaled scores
  float sum = 0;
};

__device__ __forceinline__ float WarpSum(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// One token: k and v [head_dim] of the cache.
__device__ __forceinline__ void AttendToken(const AttentionLaunch& args, const float (&q)[kLaneDims],
                                            const std::byte* k, const std::byte* v, Softmax& softmax) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  float dot = 0;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) {
    if (i * 32 + lane < args.head_dim) dot = fmaf(q[i], Load(k, i * 32 + lane, args.cache_dtype), dot);
  }
  const float score = WarpSum(dot) * args.scale;
  const float max = fmaxf(softmax.max, score);
  const float correction = expf(softmax.max - max);
  const float weight = expf(score - max);
  softmax.max = max;
  softmax.sum = softmax.sum * correction + weight;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) {
    if (i * 32 + lane >= args.head_dim) continue;
    softmax.out[i] = softmax.out[i] * correction + weight * Load(v, i * 32 + lane, args.cache_dtype);
  }
}

// This warp's share of the row's tokens [first, last]: every kWarps-th block of the cache, counted from token 0, so
// that the result doesn't depend on the rows beside it.
__device__ __forceinline__ void AttendBlocks(const AttentionLaunch& args, const AttentionSequence& sequence,
                                             int64_t kv_head, int64_t first, int64_t last, const float (&q)[kLaneDims],
                                             Softmax& softmax) {
  const int64_t half_bytes = args.block_bytes / 2;
  const int64_t vector_bytes = half_bytes / (args.kv_heads * kBlockTokens);
  const int64_t first_block = first / kBlockTokens;
  const auto warp = static_cast<int64_t>(threadIdx.x / 32);
  for (int64_t b = first_block + (warp - first_block % kWarps + kWarps) % kWarps; b <= last / kBlockTokens;
       b += kWarps) {
    const std::byte* block = args.cache + sequence.block_table[b] * args.block_bytes;
    for (int64_t offset = 0; offset < kBlockTokens; ++offset) {
      const int64_t token = b * kBlockTokens + offset;
      if (token < first || token > last) continue;
      const std::byte* k = block + (kv_head * kBlockTokens + offset) * vector_bytes;
      AttendToken(args, q, k, k + half_bytes, softmax);
    }
  }
}

// Merges the warps' parts in their order and writes the row's head. Parts of warps that had no token weigh nothing.
__device__ __forceinline__ void MergeAndWrite(const AttentionLaunch& args, const Softmax& softmax, int64_t row,
                                              int64_t head) {
  __shared__ float out[kWarps][kMaxHeadDim];
  __shared__ float max[kWarps];
  __shared__ float sum[kWarps];
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) out[warp][i * 32 + lane] = softmax.out[i];
  max[warp] = softmax.max;
  sum[warp] = softmax.sum;
  __syncthreads();
  float all_max = max[0];
  for (int w = 1; w < kWarps; ++w) all_max = fmaxf(all_max, max[w]);
  const int64_t offset = row * args.out_stride + head * args.head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < args.head_dim; i += 32 * kWarps) {
    float all_sum = 0;
    float all_out = 0;
    for (int w = 0; w < kWarps; ++w) {
      const float weight = expf(max[w] - all_max);
      all_sum += weight * sum[w];
      all_out += weight * out[w][i];
    }
    if (i == 0 && args.log_sum_exp != nullptr) args.log_sum_exp[row * args.heads + head] = all_max + logf(all_sum);
    if (args.out_dtype == DType::kBF16) {
      static_cast<__nv_bfloat16*>(args.out)[offset + i] = __float2bfloat16(all_out / all_sum);
    } else {
      static_cast<float*>(args.out)[offset + i] = all_out / all_sum;
    }
  }
}

// Grid: rows of the longest sequence, heads, sequences.
__global__ void __launch_bounds__(32 * kWarps) PlainKernel(const AttentionLaunch args) {
  const AttentionSequence sequence = args.sequences[blockIdx.z];
  if (blockIdx.x >= sequence.rows) return;
  const int64_t head = blockIdx.y;
  const int64_t row = sequence.row_begin + blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x % 32);
  float q[kLaneDims] = {};
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) {
    if (i * 32 + lane >= args.head_dim) continue;
    q[i] = args.q[row * args.q_stride + head * args.head_dim + i * 32 + lane];
    // Queries meet the cache in its type: products of bf16 by bf16 unless the cache is float32.
    if (args.cache_dtype != DType::kF32) q[i] = __bfloat162float(__float2bfloat16(q[i]));
  }
  const int64_t last = sequence.positions[blockIdx.x];
  const int64_t first = args.window > 0 && args.window <= last ? last - args.window + 1 : 0;
  Softmax softmax;
  AttendBlocks(args, sequence, head / (args.heads / args.kv_heads), first, last, q, softmax);
  MergeAndWrite(args, softmax, row, head);
}

}  // namespace

void PlainAttention(const AttentionLaunch& args, int64_t max_rows, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(max_rows), static_cast<unsigned>(args.heads),
                  static_cast<unsigned>(args.count));
  PlainKernel<<<grid, 32 * kWarps, 0, stream>>>(args);
}

}  // namespace swiftkv::kernels::cuda
