// The seam between portable code (memory, work lists, the Backend class) and the kernels that are compiled once per
// instruction set. Everything that a kernel file includes stands here, so that no standard header is ever compiled
// inside a target region.
#ifndef SWIFTKV_KERNELS_CPU_CPU_KERNELS_H_
#define SWIFTKV_KERNELS_CPU_CPU_KERNELS_H_

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "base/bfloat16.h"
#include "base/parallel.h"
#include "kernels/backward_ops.h"
#include "kernels/cpu/int8_layout.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/quantized_layout.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ops.h"
#include "kernels/quantize.h"

namespace swiftkv::kernels::cpu {

// The query heads of one K/V head, for some adjacent rows of one sequence, over some partitions of its cache.
struct AttentionTile {
  const AttentionSequence* sequence = nullptr;
  int64_t kv_head = 0;
  int64_t row = 0;  // within the sequence
  int64_t rows = 0;
  int64_t partition_begin = 0;
  int64_t partition_end = 0;
};

// Per query (row, head): the softmax maximum, the sum, and the weighted values [padded head_dim].
inline int64_t AttentionStateFloats(int64_t head_dim) { return 2 + PaddedHeadDim(head_dim); }

// Rows whose share of a weight's gradient is summed as one piece; the pieces are then added in order.
inline constexpr int64_t kGradientRows = 64;
inline int64_t GradientPieces(int64_t rows) { return (rows + kGradientRows - 1) / kGradientRows; }

// One instruction set's kernels.
struct CpuKernels {
  void (*gemm)(const GemmArgs& args);
  bool (*gated_gemm)(const GatedGemmArgs& args);  // false: not for this matrix
  void (*rms_norm)(const RmsNormArgs& args);
  void (*rope)(const RopeArgs& args);
  void (*silu_mul)(const SiluMulArgs& args);
  NarrowKernel narrow;
  bool multiplies_int8_cache;  // attend reads INT8 caches in fours (kv_layout.h)
  void (*logit_stats)(const float* logits, int64_t rows, int64_t vocab, LogitStats* stats);
  void (*kl_divergence)(const float* p_logits, const float* q_logits, int64_t rows, int64_t vocab, float* kl);
  // Partial attention of a tile into `states` [rows * heads / kv_heads, AttentionStateFloats].
  void (*attend)(const AttentionArgs& args, const AttentionTile& tile, float* states);
  // Merges `count` states of the tile's successive partitions, in order, and writes the tile's rows of args.out.
  // states [count, rows * heads / kv_heads, AttentionStateFloats] is overwritten.
  void (*finish_attention)(const AttentionArgs& args, const AttentionTile& tile, float* states, int64_t count);

  // shares: [GradientPieces(rows), size] zeros, or null where dweight is not wanted.
  void (*rms_norm_backward)(const RmsNormBackwardArgs& args, float* shares);
  void (*rope_backward)(const RopeBackwardArgs& args);
  void (*silu_mul_backward)(const SiluMulBackwardArgs& args);
  // dk_share, dv_share: [rows, heads, head_dim], contents undefined.
  void (*attention_backward)(const AttentionBackwardArgs& args, float* dk_share, float* dv_share);
  void (*kl_loss)(const KlLossArgs& args);
  void (*round)(const RoundArgs& args);
};

const CpuKernels& Avx2Kernels();
const CpuKernels& Avx2VnniKernels();
const CpuKernels& Avx512Kernels();
const CpuKernels& Avx512VnniKernels();
const CpuKernels& Avx512Bf16Kernels();
const CpuKernels& AmxKernels();

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_CPU_KERNELS_H_
