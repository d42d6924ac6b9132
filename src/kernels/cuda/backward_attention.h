// The two ways in which backward_attention_plain.cu and backward_attention.cu share the backward of attention: the
// first prepares what both need, and computes itself what tensor cores don't take. For these files alone.
#ifndef SWIFTKV_KERNELS_CUDA_BACKWARD_ATTENTION_H_
#define SWIFTKV_KERNELS_CUDA_BACKWARD_ATTENTION_H_

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/backward.h"

namespace swiftkv::kernels::cuda {

// Of one query head at one row.
struct alignas(8) QuerySums {
  float log_sum_exp;  // of the scaled scores; for tensor cores in powers of 2
  float dout_out;     // sum of dout * out
};

struct TensorAttentionBackward {
  const __nv_bfloat16* q = nullptr;     // [rows, heads, head_dim]
  const __nv_bfloat16* dout = nullptr;  // [rows, heads, head_dim], 16-byte aligned rows
  const __nv_bfloat16* k = nullptr;     // [rows, kv_heads, head_dim]
  const __nv_bfloat16* v = nullptr;     // [rows, kv_heads, head_dim]
  int64_t q_stride = 0;
  int64_t dout_stride = 0;
  int64_t kv_stride = 0;            // of k and of v
  const QuerySums* sums = nullptr;  // [heads, rows]
  const AttentionBackwardTile* tiles = nullptr;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int group = 1;  // heads / kv_heads
  int64_t window = 0;
  float scale = 0;
  float scale_log2 = 0;  // scale * log2(e)
  float* dq = nullptr;   // [rows, heads, head_dim], 8-byte aligned rows
  int64_t dq_stride = 0;
  float* dk = nullptr;  // [rows, kv_heads, head_dim], 8-byte aligned rows; added to
  float* dv = nullptr;  // the same
  int64_t dkv_stride = 0;
};

// head_dim: 64 or 128.
void RunTensorAttentionBackward(const TensorAttentionBackward& launch, int64_t head_dim, int64_t tile_count,
                                cudaStream_t stream);

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_BACKWARD_ATTENTION_H_
