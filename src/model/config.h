// What a model is: the fields of Hugging Face's config.json that the forward pass needs, under their own names
// (transformers 4 and 5 spellings are both read), plus SwiftKV's (design section 2; swiftkv.md section 2.2).
#ifndef SWIFTKV_MODEL_CONFIG_H_
#define SWIFTKV_MODEL_CONFIG_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"

namespace swiftkv {

enum class Family { kLlama, kMistral, kQwen2, kQwen3 };
std::string_view Name(Family family);  // "llama", ...

enum class RopeType { kDefault, kLinear, kLlama3, kYarn };

struct RopeConfig {
  RopeType rope_type = RopeType::kDefault;
  double rope_theta = 10000.0;
  double factor = 1.0;
  int64_t original_max_position_embeddings = 0;
  double low_freq_factor = 1.0;            // llama3
  double high_freq_factor = 4.0;           // llama3
  double beta_fast = 32.0;                 // yarn
  double beta_slow = 1.0;                  // yarn
  std::optional<double> attention_factor;  // yarn; else from mscale, mscale_all_dim or factor as transformers does
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  bool truncate = true;  // yarn: round the correction range to whole dimensions
};

struct ModelConfig {
  Family family = Family::kLlama;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;  // L
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;                // llama with attention_bias, qwen2
  bool o_bias = false;                  // llama with attention_bias
  bool mlp_bias = false;                // llama with mlp_bias
  bool qk_norm = false;                 // qwen3: RMSNorm of each query and key head before RoPE
  std::vector<int64_t> sliding_window;  // [num_hidden_layers], 0: full attention
  RopeConfig rope;
  DType dtype = DType::kBF16;  // of the stored weights, as the config says

  // SwiftKV. A plain model has num_key_value_layers == num_hidden_layers.
  int64_t num_key_value_layers = 0;  // n
  int64_t key_value_group_size = 1;  // g

  std::vector<int32_t> eos_token_id;
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;

  int64_t q_size() const { return num_attention_heads * head_dim; }
  int64_t kv_size() const { return num_key_value_heads * head_dim; }
  bool is_swiftkv() const { return num_key_value_layers < num_hidden_layers; }
  // n + (L - n) / g
  int64_t kv_groups() const {
    return num_key_value_layers + (num_hidden_layers - num_key_value_layers) / key_value_group_size;
  }
  // The KV group whose cache layer j reads.
  int64_t kv_group(int64_t layer) const {
    return layer < num_key_value_layers ? layer
                                        : num_key_value_layers + (layer - num_key_value_layers) / key_value_group_size;
  }
  // The layer that owns the K/V projections of the group of layer j: j - (j - n) mod g.
  int64_t kv_owner(int64_t layer) const {
    return layer < num_key_value_layers ? layer : layer - (layer - num_key_value_layers) % key_value_group_size;
  }
  // The same model as a plain one: what the teacher runs.
  ModelConfig Teacher() const;
};

// From a parsed config.json; `origin` (a path) is named in errors. An unknown architecture, rope type, activation or a
// size out of range is refused with a sentence.
Result<ModelConfig> ParseHfConfig(const nlohmann::ordered_json& json, const std::string& origin);

// What holds between the sizes of any config, wherever it came from. Part of ParseHfConfig.
Status CheckConfig(const ModelConfig& config, const std::string& origin);

// Adds the stop tokens of generation_config.json to `config`.
Status MergeGenerationConfig(const nlohmann::ordered_json& json, const std::string& origin, ModelConfig* config);

// Turns the config of a base model into that of the base model with an adapter: the adapter's config.json must be for
// the same family and sizes, and gives num_key_value_layers and key_value_group_size.
Status MergeAdapterConfig(const nlohmann::ordered_json& json, const std::string& origin, ModelConfig* config);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_CONFIG_H_
