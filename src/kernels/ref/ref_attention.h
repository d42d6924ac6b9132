// Reference K/V cache and attention. A cache block is K [kv_heads, kBlockTokens, head_dim], then V likewise.
#ifndef SWIFTKV_KERNELS_REF_REF_ATTENTION_H_
#define SWIFTKV_KERNELS_REF_REF_ATTENTION_H_

#include "kernels/ops.h"

namespace swiftkv::kernels::ref {

int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype);
void WriteKv(const KvWriteArgs& args);
void Attention(const AttentionArgs& args);

}  // namespace swiftkv::kernels::ref

#endif  // SWIFTKV_KERNELS_REF_REF_ATTENTION_H_
