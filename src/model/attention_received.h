// How much attention each token of a sequence receives in one layer: the weight of its error in a fit of K and V.
#ifndef SWIFTKV_MODEL_ATTENTION_RECEIVED_H_
#define SWIFTKV_MODEL_ATTENTION_RECEIVED_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/rope.h"

namespace swiftkv {

class AttentionReceived {
 public:
  AttentionReceived(const ModelConfig& config, const kernels::Backend& backend);

  // q [rows, q_size] and k [rows, kv_size] of `layer` before q/k norms and RoPE, of sequences put one after another,
  // each from position 0; the norms [head_dim] may be null. received [kv_heads, rows]: the attention that a token gets
  // from all queries of its sequence, mean over the query heads that share the KV head: 1 on average over tokens.
  Status Compute(int64_t layer, std::span<const int64_t> lengths, std::span<const float> q, std::span<const float> k,
                 const float* q_norm, const float* k_norm, float* received);

 private:
  void Rotate(std::vector<float>* x, int64_t heads, const float* norm);
  // Adds one head's attention over one sequence to received [tokens].
  void AddHead(const float* q, int64_t tokens, int64_t window, float* received);

  const ModelConfig& config_;
  const kernels::Backend& backend_;
  RopeTable rope_;
  std::vector<int32_t> positions_;
  std::vector<float> q_;
  std::vector<float> k_;
  std::vector<float> k_head_;         // [tokens, head_dim]
  kernels::PackedMatrix packed_k_;    // the same, as the right-hand side of a GEMM
  std::vector<float> probabilities_;  // [tokens, tokens]
  std::vector<float> partial_;        // [row blocks, tokens]
};

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_ATTENTION_RECEIVED_H_
