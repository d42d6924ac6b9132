#include "kernels/ref/ref_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ref/ref_math.h"

namespace swiftkv::kernels::ref {
namespace {

// Where the cache holds element 0 of a token's K or V for one head.
struct CacheView {
  int64_t kv_heads;
  int64_t head_dim;
  DType dtype;

  int64_t BlockElements() const { return 2 * kv_heads * kBlockTokens * head_dim; }
  int64_t K(int64_t block, int64_t offset, int64_t head) const {
    return block * BlockElements() + (head * kBlockTokens + offset) * head_dim;
  }
  int64_t V(int64_t block, int64_t offset, int64_t head) const {
    return K(block, offset, head) + kv_heads * kBlockTokens * head_dim;
  }
};

// One query head of one row.
void AttendOne(const AttentionArgs& args, const CacheView& view, const int32_t* block_table, int64_t position,
               int64_t row, int64_t head) {
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  const int64_t first = args.window > 0 ? std::max<int64_t>(0, position - args.window + 1) : 0;
  const float* q = args.q + row * args.q_stride + head * args.head_dim;

  std::vector<double> weights(position - first + 1);  // scores, then softmax numerators
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t t = first; t <= position; ++t) {
    const int64_t k = view.K(block_table[t / kBlockTokens], t % kBlockTokens, kv_head);
    double dot = 0;
    for (int64_t i = 0; i < args.head_dim; ++i) {
      // Queries meet the cache in its type: products of bf16 by bf16 where the cache is bf16.
      const float qi = args.cache_dtype == DType::kBF16 ? ToFloat(ToBFloat16(q[i])) : q[i];
      dot += static_cast<double>(qi) * Load(args.cache, k + i, args.cache_dtype);
    }
    weights[t - first] = dot * args.scale;
    max = std::max(max, weights[t - first]);
  }
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(weight - max);
    sum += weight;
  }
  if (args.log_sum_exp != nullptr) {
    args.log_sum_exp[row * args.heads + head] = static_cast<float>(max + std::log(sum));
  }
  for (int64_t i = 0; i < args.head_dim; ++i) {
    double out = 0;
    for (int64_t t = first; t <= position; ++t) {
      const int64_t v = view.V(block_table[t / kBlockTokens], t % kBlockTokens, kv_head);
      out += weights[t - first] * Load(args.cache, v + i, args.cache_dtype);
    }
    Store(args.out, row * args.out_stride + head * args.head_dim + i, args.out_dtype, static_cast<float>(out / sum));
  }
}

}  // namespace

int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype) {
  return CacheView{kv_heads, head_dim, cache_dtype}.BlockElements() * ElementBytes(cache_dtype);
}

void WriteKv(const KvWriteArgs& args) {
  const CacheView view{args.kv_heads, args.head_dim, args.cache_dtype};
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t block = args.slots[row] / kBlockTokens;
    const int64_t offset = args.slots[row] % kBlockTokens;
    for (int64_t head = 0; head < args.kv_heads; ++head) {
      for (int64_t i = 0; i < args.head_dim; ++i) {
        const float k = args.k[row * args.k_stride + head * args.head_dim + i];
        const float v = args.v[row * args.v_stride + head * args.head_dim + i];
        Store(args.cache, view.K(block, offset, head) + i, args.cache_dtype, k);
        Store(args.cache, view.V(block, offset, head) + i, args.cache_dtype, v);
      }
    }
  }
}

void Attention(const AttentionArgs& args) {
  const CacheView view{args.kv_heads, args.head_dim, args.cache_dtype};
  for (const AttentionSequence& sequence : args.sequences) {
    for (int64_t r = 0; r < sequence.rows; ++r) {
      for (int64_t head = 0; head < args.heads; ++head) {
        AttendOne(args, view, sequence.block_table, sequence.positions[r], sequence.row_begin + r, head);
      }
    }
  }
}

}  // namespace swiftkv::kernels::ref
