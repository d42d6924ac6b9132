#include "model/attention_received.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "base/parallel.h"

namespace swiftkv {
namespace {

constexpr int64_t kRowBlock = 64;

// Turns row i of the scores into probabilities over tokens begin .. i and adds them to sums.
void AddSoftmax(float* scores, int64_t begin, int64_t i, float scale, float* sums) {
  Eigen::Map<Eigen::ArrayXf> row(scores + begin, i + 1 - begin);
  row = ((row - row.maxCoeff()) * scale).exp();
  Eigen::Map<Eigen::ArrayXf>(sums + begin, row.size()) += row / row.sum();
}

}  // namespace

AttentionReceived::AttentionReceived(const ModelConfig& config, const kernels::Backend& backend)
    : config_(config), backend_(backend), rope_(config) {}

void AttentionReceived::Rotate(std::vector<float>* x, int64_t heads, const float* norm) {
  backend_.Rope({.x = x->data(),
                 .x_stride = heads * config_.head_dim,
                 .rows = static_cast<int64_t>(positions_.size()),
                 .heads = heads,
                 .head_dim = config_.head_dim,
                 .positions = positions_.data(),
                 .cos = rope_.cos(),
                 .sin = rope_.sin(),
                 .norm_weight = norm,
                 .norm_eps = static_cast<float>(config_.rms_norm_eps)});
}

void AttentionReceived::AddHead(const float* q, int64_t tokens, int64_t window, float* received) {
  backend_.Gemm({.x = q,
                 .x_stride = config_.q_size(),
                 .m = tokens,
                 .w = &packed_k_,
                 .y = probabilities_.data(),
                 .y_stride = tokens,
                 .y_dtype = DType::kF32});
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  const int64_t blocks = (tokens + kRowBlock - 1) / kRowBlock;
  partial_.assign(static_cast<size_t>(blocks * tokens), 0.0f);
  ParallelFor(blocks, [&](int64_t block) {
    for (int64_t i = block * kRowBlock; i < std::min(tokens, (block + 1) * kRowBlock); ++i) {
      const int64_t begin = window > 0 ? std::max<int64_t>(0, i - window + 1) : 0;
      AddSoftmax(probabilities_.data() + i * tokens, begin, i, scale, partial_.data() + block * tokens);
    }
  });
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t t = 0; t < tokens; ++t) received[t] += partial_[static_cast<size_t>(block * tokens + t)];
  }
}

Status AttentionReceived::Compute(int64_t layer, std::span<const int64_t> lengths, std::span<const float> q,
                                  std::span<const float> k, const float* q_norm, const float* k_norm, float* received) {
  const int64_t head_dim = config_.head_dim;
  positions_.clear();
  for (const int64_t length : lengths) {
    SWIFTKV_RETURN_IF_ERROR(rope_.Grow(length));
    for (int64_t position = 0; position < length; ++position) positions_.push_back(static_cast<int32_t>(position));
  }
  q_.assign(q.begin(), q.end());
  k_.assign(k.begin(), k.end());
  Rotate(&q_, config_.num_attention_heads, q_norm);
  Rotate(&k_, config_.num_key_value_heads, k_norm);

  const int64_t heads_per_kv = config_.num_attention_heads / config_.num_key_value_heads;
  const auto rows = static_cast<int64_t>(positions_.size());
  int64_t first = 0;
  for (const int64_t tokens : lengths) {
    if (packed_k_.n != tokens) {
      SWIFTKV_ASSIGN_OR_RETURN(packed_k_, backend_.AllocatePacked(tokens, head_dim, DType::kF32));
    }
    probabilities_.resize(static_cast<size_t>(tokens * tokens));
    for (int64_t kv_head = 0; kv_head < config_.num_key_value_heads; ++kv_head) {
      k_head_.clear();
      for (int64_t t = first; t < first + tokens; ++t) {
        const float* row = k_.data() + t * config_.kv_size() + kv_head * head_dim;
        k_head_.insert(k_head_.end(), row, row + head_dim);
      }
      backend_.PackRows(k_head_.data(), 0, tokens, &packed_k_);
      float* out = received + kv_head * rows + first;
      std::fill(out, out + tokens, 0.0f);
      for (int64_t head = kv_head * heads_per_kv; head < (kv_head + 1) * heads_per_kv; ++head) {
        AddHead(q_.data() + first * config_.q_size() + head * head_dim, tokens,
                config_.sliding_window[static_cast<size_t>(layer)], out);
      }
      for (int64_t t = 0; t < tokens; ++t) out[t] /= static_cast<float>(heads_per_kv);
    }
    first += tokens;
  }
  return Ok();
}

}  // namespace swiftkv
