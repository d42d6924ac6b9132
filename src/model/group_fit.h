// The fit of one KV group: the keys and values that g layers (one for SingleInputKV, more for AcrossKV) share, as a
// linear map of s = RMSNorm(h; norm_swiftkv). Each layer's own keys and values are fitted first; the shared ones are a
// combination of these maps:
//
//   values  v = (sum_j M_j)⁻¹ sum_j M_j v_j with M_j = sum over the KV head's query heads of O_jᵀ O_j: the least error
//           after each layer's own (frozen) o_proj.
//   keys    RoPE turns each pair of dimensions (i, i + D/2) as one complex number, so a complex factor per layer and
//           pair commutes with it: k_j ~ f_j c, where c is the first principal component of the group's keys in that
//           pair, and conj(f_j) goes into layer j's trainable query projection. Families that normalise queries and
//           keys (qk-norm) take the plain mean of the keys.
#ifndef SWIFTKV_MODEL_GROUP_FIT_H_
#define SWIFTKV_MODEL_GROUP_FIT_H_

#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "model/ridge_fit.h"

namespace swiftkv {

// What a token's error counts in the fit.
enum class TokenWeights {
  kUniform,
  kLayer,  // the attention it receives in the layer, mean over heads
  kHead,   // the attention it receives from the KV head's own queries
};

// The share of the teacher's keys and values of one layer that its own fit leaves unexplained, 0 to 1.
struct LayerFit {
  int64_t layer = 0;
  double k_unexplained = 0;
  double v_unexplained = 0;
};

struct GroupSolution {
  std::vector<float> k_weight;  // [kv_size, hidden]
  std::vector<float> v_weight;  // [kv_size, hidden]
  std::vector<float> k_bias;    // [kv_size] or empty
  std::vector<float> v_bias;    // [kv_size] or empty
  // [g, kv_heads, head_dim / 2] what the queries' pairs are multiplied with; empty: queries stay as they are.
  std::vector<std::complex<double>> query_factor;
  std::vector<LayerFit> fits;  // [g]
};

class GroupFit {
 public:
  // `owner`: the first layer of the group.
  GroupFit(const ModelConfig& student, int64_t owner, TokenWeights weights);

  // Keys and values of the group's layer owner + index, [rows, kv_size], before norm and RoPE.
  void SetKeysValues(int64_t index, std::span<const float> k, std::span<const float> v);
  // The attention that its tokens receive, [kv_heads, rows]; anything of that size for kUniform.
  void SetReceived(int64_t index, std::span<const float> received);
  // Adds what was set for all layers of the group, with the tile's inputs.
  void Add(RidgeTile* tile);

  // o_proj: [g] weights [hidden, q_size] of the group's layers; read only for g > 1.
  Result<GroupSolution> Solve(double lambda, std::span<const std::vector<float>> o_proj) const;

 private:
  // KV heads with the same token weights are fitted together.
  int64_t units() const { return static_cast<int64_t>(sums_.size()); }
  int64_t unit_heads() const { return config_.num_key_value_heads / units(); }
  bool aligned() const { return group_ > 1 && !config_.qk_norm; }
  void AddCovariance(int64_t head, std::span<const float> weights);
  void ShareValues(int64_t head, std::span<const std::vector<float>> o_proj, std::span<const RidgeSolution> fits,
                   GroupSolution* solution) const;
  void ShareKeys(int64_t head, std::span<const RidgeSolution> fits, GroupSolution* solution) const;

  const ModelConfig& config_;
  int64_t owner_;
  int64_t group_;  // g
  TokenWeights token_weights_;
  std::vector<RidgeSums> sums_;                   // [units], outputs [g, k then v, unit_heads, head_dim]
  std::vector<std::vector<float>> k_;             // [g][rows, kv_size]
  std::vector<std::vector<float>> v_;             // [g][rows, kv_size]
  std::vector<float> weights_;                    // [units, rows]
  std::vector<std::complex<double>> covariance_;  // [kv_heads, head_dim / 2, g, g] sum w k_i conj(k_j)
};

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_GROUP_FIT_H_
