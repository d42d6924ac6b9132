// The arguments of operations (ops.h) that a device's compiler reads, too: plain structs, without the rest of the
// interface.
#ifndef SWIFTKV_KERNELS_KERNEL_ARGS_H_
#define SWIFTKV_KERNELS_KERNEL_ARGS_H_

#include <cstdint>

namespace swiftkv::kernels {

inline constexpr int64_t kBlockTokens = 16;          // tokens in one block of the K/V cache
inline constexpr int64_t kAttentionPartition = 512;  // cache tokens whose partial softmax is merged as one unit

// In place on x: optional RMSNorm of each head (Qwen3's q_norm, k_norm), then rotary embedding in the rotate-half
// (NeoX) convention: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) with x2 the second half of the head.
struct RopeArgs {
  float* x = nullptr;  // [rows, heads, head_dim]; heads are adjacent, rows x_stride apart
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  const int32_t* positions = nullptr;  // [rows]
  const float* cos = nullptr;          // [max position + 1, head_dim / 2]
  const float* sin = nullptr;          // [max position + 1, head_dim / 2]
  const float* norm_weight = nullptr;  // [head_dim] or null
  float norm_eps = 0;
};

// Some rows of one sequence. Row r at position p attends to cache tokens max(0, p - window + 1) .. p (window 0: all).
// The rows' own K and V are in the cache already.
struct AttentionSequence {
  int64_t row_begin = 0;  // first row in q and out
  int64_t rows = 0;
  const int32_t* positions = nullptr;    // [rows], ascending, not necessarily adjacent
  const int32_t* block_table = nullptr;  // [last position / kBlockTokens + 1] block numbers
};

// What sampling and scoring need of one row of logits.
struct LogitStats {
  int32_t argmax = 0;  // the first of equal maxima
  float max = 0;
  float log_sum_exp = 0;
};

// How a row's next token is drawn: from its likeliest tokens, weighed by e^(logit / temperature). In order: tokens with
// less than min_p of the likeliest one's weight are left out, then all but the top_k likeliest (with all that are as
// likely as the last), then those that are not needed for top_p of the weight.
struct TokenDraw {
  float temperature = 0;  // 0: the likeliest token
  int32_t top_k = 0;      // 0: all
  float top_p = 1;
  float min_p = 0;
  double uniform = 0;  // the draw, in [0, 1)
};

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_KERNEL_ARGS_H_
