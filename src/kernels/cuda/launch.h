// The CUDA twin's kernels as functions that put them on a stream. All pointers are device memory unless said; nothing
// here waits, allocates or fails but by the stream's own error, which the backend reads (cuda_backend.cc).
//
// Layout of one block of a KV group's cache: [2, kv_heads, kBlockTokens, head_dim] of the cache's type, K then V; block
// b lies b * KvBlockBytes further. A KV group's memory is [blocks] of these.
#ifndef SWIFTKV_KERNELS_CUDA_LAUNCH_H_
#define SWIFTKV_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "kernels/kernel_args.h"

namespace swiftkv::kernels::cuda {

// Whether the program has kernels for the device. They are all compiled for the same ones.
cudaError_t FindKernels();

// Of attention and its gradients: a lane of a warp keeps at most 8 dimensions.
inline constexpr int kMaxHeadDim = 256;

// out[r] = RMSNorm(x[r]) * weight. out_dtype kF32, kBF16, or kF8E4M3: then scales[r] is the row's largest magnitude
// over 448 (1 for a row of zeros), and out holds the quotients.
struct RmsNormLaunch {
  const float* x = nullptr;  // [rows, size]
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [size]
  float eps = 0;
  int64_t rows = 0;
  int64_t size = 0;
  void* out = nullptr;  // [rows, size]
  int64_t out_stride = 0;
  DType out_dtype = DType::kF32;
  float* scales = nullptr;  // [rows], of kF8E4M3 alone
};
void RmsNorm(const RmsNormLaunch& args, cudaStream_t stream);

// Rows of activations to E4M3 with a scale each: the row's largest magnitude over 448 (1 for a row of zeros).
struct QuantizeRowsLaunch {
  const void* x = nullptr;  // [rows, size]
  int64_t x_stride = 0;
  DType x_dtype = DType::kBF16;  // kBF16 or kF32
  int64_t rows = 0;
  int64_t size = 0;
  uint8_t* out = nullptr;   // [rows, size], E4M3, rows `size` apart
  float* scales = nullptr;  // [rows]
};
void QuantizeRows(const QuantizeRowsLaunch& args, cudaStream_t stream);

// out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i]; with out_dtype kF8E4M3 quantized as above.
struct SiluMulLaunch {
  const void* gate_up = nullptr;  // [rows, 2 * size], dtype
  int64_t gate_up_stride = 0;
  DType dtype = DType::kBF16;  // kBF16 or kF32
  int64_t rows = 0;
  int64_t size = 0;
  void* out = nullptr;  // [rows, size], out_dtype
  int64_t out_stride = 0;
  DType out_dtype = DType::kBF16;  // dtype or kF8E4M3
  float* scales = nullptr;         // [rows], of kF8E4M3 alone
};
void SiluMul(const SiluMulLaunch& args, cudaStream_t stream);

// One launch for what stands between the projections and attention: queries rotated in place, keys rotated and written
// into the cache with the values, for one KV group or for several whose rows and caches lie at equal distances.
// A row whose slot is negative writes nothing into the cache.
struct RotateAndStoreLaunch {
  float* q = nullptr;  // [rows, heads, head_dim] or null: no queries
  int64_t q_stride = 0;
  int64_t heads = 0;
  const float* q_norm = nullptr;  // [head_dim] or null, as RopeArgs::norm_weight
  const float* k = nullptr;       // [rows, groups, kv_heads, head_dim] or null: no keys; not changed
  const float* v = nullptr;       // the same
  int64_t kv_stride = 0;          // of k and of v, between rows
  int64_t groups = 1;
  int64_t kv_heads = 0;
  const float* k_norm = nullptr;  // [head_dim] or null
  int64_t head_dim = 0;           // even
  int64_t rows = 0;
  const int32_t* positions = nullptr;  // [rows]
  const float* cos = nullptr;          // [max position + 1, head_dim / 2]; null: keys are rotated already
  const float* sin = nullptr;
  float norm_eps = 0;
  const int64_t* slots = nullptr;   // [rows] block * kBlockTokens + offset, or negative
  std::byte* cache = nullptr;       // of group 0
  int64_t group_bytes = 0;          // from one group's cache to the next
  DType cache_dtype = DType::kF32;  // kF32, kBF16 or kF8E4M3 (saturated, scale 1)
};
void RotateAndStore(const RotateAndStoreLaunch& args, cudaStream_t stream);
// In place, keys and queries alike: RopeArgs as ops.h has it, its pointers on the device.
void Rope(const RopeArgs& args, cudaStream_t stream);

// out[i] = rows ids[i] of a matrix [n, k] as float32. dtype kF32, kBF16 or kF8E4M3 with scales [n].
void UnpackRows(const void* matrix, DType dtype, const float* scales, int64_t k, const int32_t* ids, int64_t count,
                float* out, cudaStream_t stream);
// out[i, :] = x[ids[i], :], float32 rows of `size`, out not x.
void GatherRows(const float* x, int64_t size, const int32_t* ids, int64_t count, float* out, cudaStream_t stream);
// y[r, :] += bias, y float32 or bf16 [rows, size].
void AddBias(void* y, DType dtype, int64_t y_stride, const float* bias, int64_t rows, int64_t size,
             cudaStream_t stream);
// stats[r], kl[r] as ops.h has them, in device memory.
void ComputeLogitStats(const float* logits, int64_t rows, int64_t vocab, LogitStats* stats, cudaStream_t stream);
void KlDivergence(const float* p_logits, const float* q_logits, int64_t rows, int64_t vocab, float* kl,
                  cudaStream_t stream);

// Attention of ops.h. `sequences` are in device memory, the pointers in them too.
struct AttentionLaunch {
  const float* q = nullptr;  // [rows, heads, head_dim], rotated
  int64_t q_stride = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 0;
  int64_t window = 0;                            // 0: all
  const std::byte* cache = nullptr;              // the KV group's blocks
  DType cache_dtype = DType::kBF16;              // kF32, kBF16 or kF8E4M3 (scale 1)
  int64_t block_bytes = 0;                       // KvBlockBytes
  const AttentionSequence* sequences = nullptr;  // [count]
  int64_t count = 0;
  int64_t max_rows = 0;  // the most rows that one of them has; of prefill
  void* out = nullptr;   // [rows, heads, head_dim], out_dtype
  int64_t out_stride = 0;
  DType out_dtype = DType::kBF16;  // kBF16 or kF32
  float* log_sum_exp = nullptr;    // [rows, heads] or null: of the scaled scores, in nats
  // Of decode: partial results of splits, DecodeWorkspaceBytes(count).
  void* workspace = nullptr;
};
// Sequences of any number of rows: tensor cores for a cache of bf16 or E4M3 and head_dim 64 or 128, else plain float32.
void PrefillAttention(const AttentionLaunch& args, cudaStream_t stream);
// Sequences of one row each (or none: nothing is written). The grid depends on `count` and the shape of the heads
// alone, never on lengths, so that a recorded graph stays right when sequences grow.
void DecodeAttention(const AttentionLaunch& args, cudaStream_t stream);
int64_t DecodeWorkspaceBytes(int64_t count, int64_t heads, int64_t kv_heads, int64_t head_dim);

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_LAUNCH_H_
