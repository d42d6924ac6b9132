// The layout of one cache block (16 tokens of one KV group), made so that attention multiplies it without a copy.
// The head dimension is padded to a multiple of 16 ("dim"). bf16 keeps pairs adjacent along the summed axis.
//
//           K                                  V
//   f32     [kv_heads, dim, 16 tokens]         [kv_heads, 16 tokens, dim]
//   bf16    [kv_heads, dim / 2, 16 tokens, 2]  [kv_heads, 16 tokens / 2, dim, 2]
//   int8    as bf16 in pairs, or in fours:
//           [kv_heads, dim / 4, 16 tokens, 4]  [kv_heads, 16 tokens / 4, dim, 4]
//           and behind both the scales of K, then of V: float32 [kv_heads, 16 tokens]
#ifndef SWIFTKV_KERNELS_CPU_KV_LAYOUT_H_
#define SWIFTKV_KERNELS_CPU_KV_LAYOUT_H_

#include <cstdint>

#include "base/bfloat16.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ops.h"

namespace swiftkv::kernels::cpu {

inline int64_t PaddedHeadDim(int64_t head_dim) { return RoundUp(head_dim, 16); }

// Elements of K (or of V) of one head in one block.
inline int64_t HeadBlockElements(int64_t head_dim) { return PaddedHeadDim(head_dim) * kBlockTokens; }

// The scales of an INT8 block, of K and then of V: [2, kv_heads, 16 tokens].
inline float* Int8Scales(int8_t* block, int64_t kv_heads, int64_t head_dim) {
  return reinterpret_cast<float*>(block + 2 * kv_heads * HeadBlockElements(head_dim));
}
inline const float* Int8Scales(const int8_t* block, int64_t kv_heads, int64_t head_dim) {
  return reinterpret_cast<const float*>(block + 2 * kv_heads * HeadBlockElements(head_dim));
}

// How many int8 values along the summed axis are adjacent: fours where a kernel multiplies them as they are, 64 of a
// head at a time.
inline int64_t Int8Adjacent(bool multiplies_int8_cache, int64_t head_dim) {
  return multiplies_int8_cache && PaddedHeadDim(head_dim) % 64 == 0 ? 4 : 2;
}

int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype);
// float32 to bf16, rounded as ToBFloat16 does.
using NarrowKernel = void (*)(const float* values, int64_t size, BFloat16* out);
void WriteKv(const KvWriteArgs& args, NarrowKernel narrow, bool multiplies_int8_cache);

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_KV_LAYOUT_H_
