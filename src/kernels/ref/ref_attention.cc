#include "kernels/ref/ref_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/quantize.h"
#include "kernels/ref/ref_math.h"

namespace swiftkv::kernels::ref {
namespace {

// Where the cache holds a token's K and V for one head. INT8 values are followed by their scales, of K and then of V:
// float32 [kv_heads, kBlockTokens].
struct CacheView {
  std::byte* cache;
  int64_t kv_heads;
  int64_t head_dim;
  DType dtype;

  int64_t HalfBytes() const { return kv_heads * kBlockTokens * head_dim * ElementBytes(dtype); }
  int64_t BlockBytes() const {
    const int64_t scales = dtype == DType::kI8 ? 2 * kv_heads * kBlockTokens * int64_t{sizeof(float)} : 0;
    return 2 * HalfBytes() + scales;
  }
  // value: 0 for K, 1 for V.
  std::byte* Vector(int value, int64_t block, int64_t offset, int64_t head) const {
    return cache + block * BlockBytes() + value * HalfBytes() +
           (head * kBlockTokens + offset) * head_dim * ElementBytes(dtype);
  }
  float* Scale(int value, int64_t block, int64_t offset, int64_t head) const {
    return reinterpret_cast<float*>(cache + block * BlockBytes() + 2 * HalfBytes()) +
           (value * kv_heads + head) * kBlockTokens + offset;
  }
  float At(int value, int64_t block, int64_t offset, int64_t head, int64_t i) const {
    const std::byte* vector = Vector(value, block, offset, head);
    if (dtype != DType::kI8) return Load(vector, i, dtype);
    return static_cast<float>(reinterpret_cast<const int8_t*>(vector)[i]) * *Scale(value, block, offset, head);
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
    double dot = 0;
    for (int64_t i = 0; i < args.head_dim; ++i) {
      // Queries meet the cache in its type: products of bf16 by bf16 unless the cache is float32.
      const float qi = args.cache_dtype == DType::kF32 ? q[i] : ToFloat(ToBFloat16(q[i]));
      dot += static_cast<double>(qi) * view.At(0, block_table[t / kBlockTokens], t % kBlockTokens, kv_head, i);
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
      out += weights[t - first] * view.At(1, block_table[t / kBlockTokens], t % kBlockTokens, kv_head, i);
    }
    Store(args.out, row * args.out_stride + head * args.head_dim + i, args.out_dtype, static_cast<float>(out / sum));
  }
}

}  // namespace

int64_t KvBlockBytes(int64_t kv_heads, int64_t head_dim, DType cache_dtype) {
  return CacheView{nullptr, kv_heads, head_dim, cache_dtype}.BlockBytes();
}

void WriteKv(const KvWriteArgs& args) {
  const CacheView view{args.cache, args.kv_heads, args.head_dim, args.cache_dtype};
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t block = args.slots[row] / kBlockTokens;
    const int64_t offset = args.slots[row] % kBlockTokens;
    for (int64_t head = 0; head < args.kv_heads; ++head) {
      const float* vectors[2] = {args.k + row * args.k_stride + head * args.head_dim,
                                 args.v + row * args.v_stride + head * args.head_dim};
      for (int value = 0; value < 2; ++value) {
        std::byte* out = view.Vector(value, block, offset, head);
        if (args.cache_dtype == DType::kI8) {
          *view.Scale(value, block, offset, head) =
              QuantizeVector(vectors[value], args.head_dim, reinterpret_cast<int8_t*>(out));
          continue;
        }
        for (int64_t i = 0; i < args.head_dim; ++i) Store(out, i, args.cache_dtype, vectors[value][i]);
      }
    }
  }
}

void Attention(const AttentionArgs& args) {
  // Only read from here on.
  const CacheView view{const_cast<std::byte*>(args.cache), args.kv_heads, args.head_dim, args.cache_dtype};
  for (const AttentionSequence& sequence : args.sequences) {
    for (int64_t r = 0; r < sequence.rows; ++r) {
      for (int64_t head = 0; head < args.heads; ++head) {
        AttendOne(args, view, sequence.block_table, sequence.positions[r], sequence.row_begin + r, head);
      }
    }
  }
}

}  // namespace swiftkv::kernels::ref
