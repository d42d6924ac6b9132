#include "model/swiftkv_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

Json RopeScaling(const RopeConfig& rope) {
  switch (rope.rope_type) {
    case RopeType::kDefault:
      return nullptr;
    case RopeType::kLinear:
      return {{"rope_type", "linear"}, {"factor", rope.factor}};
    case RopeType::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", rope.original_max_position_embeddings}};
    case RopeType::kYarn:
      break;
  }
  Json json = {
      {"rope_type", "yarn"},         {"factor", rope.factor},
      {"beta_fast", rope.beta_fast}, {"beta_slow", rope.beta_slow},
      {"truncate", rope.truncate},   {"original_max_position_embeddings", rope.original_max_position_embeddings}};
  if (rope.attention_factor) json["attention_factor"] = *rope.attention_factor;
  if (rope.mscale) json["mscale"] = *rope.mscale;
  if (rope.mscale_all_dim) json["mscale_all_dim"] = *rope.mscale_all_dim;
  return json;
}

bool HasWindow(const ModelConfig& config) {
  return std::any_of(config.sliding_window.begin(), config.sliding_window.end(), [](int64_t size) { return size > 0; });
}

}  // namespace

Json HfConfigJson(const ModelConfig& config) {
  Json json = {{"model_type", Name(config.family)},
               {"vocab_size", config.vocab_size},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_hidden_layers", config.num_hidden_layers},
               {"num_attention_heads", config.num_attention_heads},
               {"num_key_value_heads", config.num_key_value_heads},
               {"head_dim", config.head_dim},
               {"hidden_act", "silu"},
               {"max_position_embeddings", config.max_position_embeddings},
               {"rms_norm_eps", config.rms_norm_eps},
               {"rope_theta", config.rope.rope_theta},
               {"rope_scaling", RopeScaling(config.rope)},
               {"tie_word_embeddings", config.tie_word_embeddings},
               {"attention_bias", config.o_bias},
               {"mlp_bias", config.mlp_bias},
               {"attention_dropout", 0.0},
               {"initializer_range", 0.02},
               {"use_cache", true}};
  if (config.bos_token_id) json["bos_token_id"] = *config.bos_token_id;
  if (!config.eos_token_id.empty()) json["eos_token_id"] = config.eos_token_id;
  if (config.pad_token_id) json["pad_token_id"] = *config.pad_token_id;
  return json;
}

Status SetSwiftKvFields(const ModelConfig& student, DType dtype, Json* json) {
  if (student.family == Family::kMistral && HasWindow(student)) {
    return InvalidInput(
        "Mistral with a sliding window has no SwiftKV class in the reference implementations, so it cannot be "
        "converted");
  }
  std::string type = "llama";
  std::string name = "Llama";
  if (student.family == Family::kQwen2) type = "qwen2", name = "Qwen2";
  if (student.family == Family::kQwen3) type = "qwen3", name = "Qwen3";
  (*json)["architectures"] = {name + "SwiftKVForCausalLM"};
  (*json)["model_type"] = type + "_swiftkv";
  (*json)["swiftkv"] = true;
  (*json)["num_key_value_layers"] = student.num_key_value_layers;
  (*json)["key_value_group_size"] = student.key_value_group_size;
  // Class defaults differ between the families, so what they leave open is written out.
  (*json)["head_dim"] = student.head_dim;
  (*json)["num_key_value_heads"] = student.num_key_value_heads;
  (*json)["torch_dtype"] = dtype == DType::kBF16 ? "bfloat16" : dtype == DType::kF16 ? "float16" : "float32";
  // transformers 5 has both in rope_parameters, which transformers 4 does not read: it would take theta for 10000.
  if (json->contains("rope_parameters")) {
    (*json)["rope_theta"] = student.rope.rope_theta;
    (*json)["rope_scaling"] = RopeScaling(student.rope);
  }
  // transformers 5's name of torch_dtype, and the description of weights that are written out plain here.
  for (const char* stale : {"dtype", "quantization_config", "auto_map", "_name_or_path"}) json->erase(stale);
  return Ok();
}

Json QuantizationConfigJson(CompressedFormat format) {
  const bool is_packed = format == CompressedFormat::kInt4;
  const char* const type = format == CompressedFormat::kFp8 ? "float" : "int";
  const std::string layout = is_packed ? "pack" : type;
  Json group_size = nullptr;
  if (is_packed) group_size = kInt4Group;
  Json weights = {{"num_bits", is_packed ? 4 : 8},
                  {"type", type},
                  {"symmetric", true},
                  {"strategy", is_packed ? "group" : "channel"},
                  {"group_size", group_size},
                  {"dynamic", false},
                  {"actorder", nullptr}};
  // The published FP8 checkpoints have this, and vLLM reads int8 weights without packing only with it.
  Json inputs = nullptr;
  if (!is_packed) {
    inputs = {{"num_bits", 8}, {"type", type}, {"symmetric", true}, {"strategy", "token"}, {"dynamic", true}};
  }
  const Json group = {
      {"targets", {"Linear"}}, {"weights", weights}, {"input_activations", inputs}, {"output_activations", nullptr}};
  return {
      {"quant_method", "compressed-tensors"},  {"format", layout + "-quantized"}, {"quantization_status", "compressed"},
      {"config_groups", {{"group_0", group}}}, {"ignore", {"lm_head"}},           {"kv_cache_scheme", nullptr}};
}

}  // namespace swiftkv
