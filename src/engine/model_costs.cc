#include "engine/model_costs.h"

namespace swiftkv {

ModelCosts ComputeModelCosts(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t layers = config.num_hidden_layers;
  const int64_t later = layers - config.num_key_value_layers;
  const int64_t later_groups = config.kv_groups() - config.num_key_value_layers;

  const int64_t q = hidden * config.q_size();
  const int64_t kv = 2 * hidden * config.kv_size();
  const int64_t o = config.q_size() * hidden;
  const int64_t mlp = 3 * hidden * config.intermediate_size;
  const int64_t layer_macs = q + kv + o + mlp;

  // Parameters that are not matrices: biases and per-head norms.
  const int64_t q_extra = (config.qkv_bias ? config.q_size() : 0) + (config.qk_norm ? config.head_dim : 0);
  const int64_t kv_extra = (config.qkv_bias ? 2 * config.kv_size() : 0) + (config.qk_norm ? config.head_dim : 0);
  const int64_t layer_extra = q_extra + kv_extra + (config.o_bias ? hidden : 0) +
                              (config.mlp_bias ? 2 * config.intermediate_size + hidden : 0) + 2 * hidden;
  const int64_t embeddings = config.vocab_size * hidden * (config.tie_word_embeddings ? 1 : 2);

  ModelCosts costs;
  costs.base_parameters = embeddings + layers * (layer_macs + layer_extra) + hidden;
  costs.teacher_only_parameters = later * (q + kv + q_extra + kv_extra);
  if (config.is_swiftkv()) costs.swiftkv_parameters = later * (q + q_extra) + later_groups * (kv + kv_extra) + hidden;
  costs.base_kv_elements = 2 * config.kv_size() * layers;
  costs.swiftkv_kv_elements = 2 * config.kv_size() * config.kv_groups();
  costs.base_prefill_macs = layers * layer_macs;
  costs.swiftkv_prefill_macs = config.num_key_value_layers * layer_macs + later_groups * kv;
  return costs;
}

int64_t BothModesBytes(const ModelConfig& config, DType dtype) {
  const ModelCosts costs = ComputeModelCosts(config);
  return (costs.base_parameters + costs.swiftkv_parameters) * BlockBytes(dtype);
}

}  // namespace swiftkv
