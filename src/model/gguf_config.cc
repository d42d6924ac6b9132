#include "model/gguf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <utility>

#include "base/printable.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kRopeFactors[] = "rope_freqs.weight";
constexpr std::string_view kFirstLayer = "model.layers.0.";

bool HasTensor(const GgufFile& gguf, std::string_view name) { return gguf.Find(name) != nullptr; }
bool HasLayerTensor(const GgufFile& gguf, std::string_view name) {
  return HasTensor(gguf, fmt::format("{}{}", kFirstLayer, name));
}

// Copies metadata values into the JSON under their Hugging Face names.
class Translator {
 public:
  Translator(const GgufFile& gguf, Json* json) : gguf_(gguf), json_(*json) {}

  std::string Key(std::string_view name) const { return fmt::format("{}.{}", gguf_.architecture(), name); }
  Status Int(const char* hf_name, const std::string& key) {
    SWIFTKV_ASSIGN_OR_RETURN(json_[hf_name], gguf_.Int(key));
    return Ok();
  }
  Status Number(const char* hf_name, const std::string& key) {
    SWIFTKV_ASSIGN_OR_RETURN(json_[hf_name], gguf_.Number(key));
    return Ok();
  }
  Status OptionalInt(const char* hf_name, const std::string& key) {
    return gguf_.Contains(key) ? Int(hf_name, key) : Ok();
  }
  Status OptionalNumber(const char* hf_name, const std::string& key) {
    return gguf_.Contains(key) ? Number(hf_name, key) : Ok();
  }

 private:
  const GgufFile& gguf_;
  Json& json_;
};

Status TranslateSizes(const GgufFile& gguf, Json* json) {
  const StoredTensor* embedding = gguf.Find("model.embed_tokens.weight");
  if (embedding == nullptr) return InvalidInput("{}: there is no token_embd.weight: not a whole model", gguf.path());
  (*json)["vocab_size"] = embedding->rows();
  Translator translate(gguf, json);
  const auto key = [&](std::string_view name) { return translate.Key(name); };
  SWIFTKV_RETURN_IF_ERROR(translate.Int("hidden_size", key("embedding_length")));
  SWIFTKV_RETURN_IF_ERROR(translate.Int("intermediate_size", key("feed_forward_length")));
  SWIFTKV_RETURN_IF_ERROR(translate.Int("num_hidden_layers", key("block_count")));
  SWIFTKV_RETURN_IF_ERROR(translate.Int("num_attention_heads", key("attention.head_count")));
  (*json)["num_key_value_heads"] = (*json)["num_attention_heads"];
  SWIFTKV_RETURN_IF_ERROR(translate.OptionalInt("num_key_value_heads", key("attention.head_count_kv")));
  const int64_t heads = (*json)["num_attention_heads"];
  if (heads < 1) return InvalidInput("{}: {} must be at least 1", gguf.path(), key("attention.head_count"));
  const auto head_dim = (*json)["hidden_size"].get<int64_t>() / heads;
  (*json)["head_dim"] = head_dim;
  SWIFTKV_RETURN_IF_ERROR(translate.OptionalInt("head_dim", key("attention.key_length")));
  // Values of another length, or a partial rotation, are other architectures.
  for (const char* name : {"attention.value_length", "rope.dimension_count"}) {
    Json same = {{"size", (*json)["head_dim"]}};
    SWIFTKV_RETURN_IF_ERROR(Translator(gguf, &same).OptionalInt("size", key(name)));
    if (same["size"] != (*json)["head_dim"]) {
      return InvalidInput("{}: {} is {}, only the head's size {} is supported", gguf.path(), key(name),
                          same["size"].get<int64_t>(), (*json)["head_dim"].get<int64_t>());
    }
  }
  SWIFTKV_RETURN_IF_ERROR(translate.Int("max_position_embeddings", key("context_length")));
  return translate.Number("rms_norm_eps", key("attention.layer_norm_rms_epsilon"));
}

Result<Json> Llama3Parameters(const GgufFile& gguf, double theta) {
  const StoredTensor& tensor = *gguf.Find(kRopeFactors);
  std::vector<float> factors(std::min<int64_t>(tensor.columns(), 4096));
  if (tensor.rows() != 1 || tensor.columns() != std::ssize(factors)) {
    return InvalidInput("{}: {} must be a vector", gguf.path(), kRopeFactors);
  }
  SWIFTKV_RETURN_IF_ERROR(DecodeRows(tensor, 0, 1, factors.data()));
  const std::optional<RopeConfig> rope = FitLlama3Rope(factors, theta);
  if (!rope.has_value()) {
    return InvalidInput("{}: the factors in {} follow no llama3 formula, other ones are not supported", gguf.path(),
                        kRopeFactors);
  }
  if (rope->rope_type == RopeType::kDefault) return Json{{"rope_type", "default"}};
  return Json{{"rope_type", "llama3"},
              {"factor", rope->factor},
              {"low_freq_factor", rope->low_freq_factor},
              {"high_freq_factor", rope->high_freq_factor},
              {"original_max_position_embeddings", rope->original_max_position_embeddings}};
}

Status TranslateScaling(const GgufFile& gguf, Json* rope) {
  Translator translate(gguf, rope);
  const auto key = [&](std::string_view name) { return translate.Key(name); };
  if (gguf.Contains(key("rope.scale_linear"))) {  // before rope.scaling.* existed
    (*rope)["rope_type"] = "linear";
    return translate.Number("factor", key("rope.scale_linear"));
  }
  if (!gguf.Contains(key("rope.scaling.type"))) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const std::string_view type, gguf.String(key("rope.scaling.type")));
  if (type == "none") return Ok();
  if (type != "linear" && type != "yarn") {
    return InvalidInput("{}: {} \"{}\" is not supported; supported are none, linear and yarn", gguf.path(),
                        key("rope.scaling.type"), Printable(type));
  }
  (*rope)["rope_type"] = type;
  SWIFTKV_RETURN_IF_ERROR(translate.Number("factor", key("rope.scaling.factor")));
  if (type == "linear") return Ok();
  for (const char* name : {"yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor"}) {
    if (!gguf.Contains(key(fmt::format("rope.scaling.{}", name)))) continue;
    return InvalidInput("{}: {} is not supported", gguf.path(), key(fmt::format("rope.scaling.{}", name)));
  }
  SWIFTKV_RETURN_IF_ERROR(
      translate.OptionalInt("original_max_position_embeddings", key("rope.scaling.original_context_length")));
  SWIFTKV_RETURN_IF_ERROR(translate.OptionalNumber("beta_fast", key("rope.scaling.yarn_beta_fast")));
  SWIFTKV_RETURN_IF_ERROR(translate.OptionalNumber("beta_slow", key("rope.scaling.yarn_beta_slow")));
  if (gguf.Contains(key("rope.scaling.attn_factor"))) {
    // llama.cpp multiplies its attn_factor with yarn's own, transformers' attention_factor replaces it.
    SWIFTKV_ASSIGN_OR_RETURN(const double attention, gguf.Number(key("rope.scaling.attn_factor")));
    const double factor = std::max(1.0, (*rope)["factor"].get<double>());
    if (attention != 1.0) (*rope)["attention_factor"] = attention * (0.1 * std::log(factor) + 1.0);
  }
  return Ok();
}

// In transformers 4's spelling, which transformers 5 reads too.
Status TranslateRope(const GgufFile& gguf, Json* json) {
  (*json)["rope_theta"] = 10000.0;
  Translator translate(gguf, json);
  SWIFTKV_RETURN_IF_ERROR(translate.OptionalNumber("rope_theta", translate.Key("rope.freq_base")));
  Json scaling = {{"rope_type", "default"}};
  SWIFTKV_RETURN_IF_ERROR(TranslateScaling(gguf, &scaling));
  if (HasTensor(gguf, kRopeFactors)) {
    if (scaling["rope_type"] != "default") {
      return InvalidInput("{}: both {} and rope scaling {}", gguf.path(), kRopeFactors,
                          scaling["rope_type"].get<std::string>());
    }
    SWIFTKV_ASSIGN_OR_RETURN(scaling, Llama3Parameters(gguf, (*json)["rope_theta"].get<double>()));
  }
  (*json)["rope_scaling"] = scaling["rope_type"] == "default" ? Json() : scaling;
  return Ok();
}

// The end tokens that the file names, and control tokens that end a turn in the families' chat formats: GGUF has no
// list of several end tokens.
Status TranslateTokens(const GgufFile& gguf, Json* json) {
  Translator translate(gguf, json);
  SWIFTKV_RETURN_IF_ERROR(translate.OptionalInt("bos_token_id", "tokenizer.ggml.bos_token_id"));
  SWIFTKV_RETURN_IF_ERROR(translate.OptionalInt("pad_token_id", "tokenizer.ggml.padding_token_id"));
  Json eos = Json::array();
  const auto add = [&](int64_t id) {
    if (std::find(eos.begin(), eos.end(), Json(id)) == eos.end()) eos.push_back(id);
  };
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (!gguf.Contains(key)) continue;
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t id, gguf.Int(key));
    add(id);
  }
  if (gguf.Contains("tokenizer.ggml.tokens") && gguf.Contains("tokenizer.ggml.token_type")) {
    constexpr std::array<std::string_view, 5> kEnds = {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>",
                                                       "<|endoftext|>"};
    constexpr int32_t kControl = 3;
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, gguf.Strings("tokenizer.ggml.tokens"));
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int32_t> types, gguf.Ints("tokenizer.ggml.token_type"));
    for (size_t id = 0; id < std::min(tokens.size(), types.size()); ++id) {
      if (types[id] == kControl && std::find(kEnds.begin(), kEnds.end(), tokens[id]) != kEnds.end()) {
        add(static_cast<int64_t>(id));
      }
    }
  }
  (*json)["eos_token_id"] = eos;
  if (!json->contains("bos_token_id")) (*json)["bos_token_id"] = nullptr;
  return Ok();
}

// What the file's matrices are stored as, in config.json's words; block types count as bfloat16.
const char* DTypeName(const GgufFile& gguf) {
  const StoredTensor* matrix = gguf.Find(fmt::format("{}self_attn.q_proj.weight", kFirstLayer));
  if (matrix != nullptr && matrix->dtype == DType::kF32) return "float32";
  return matrix != nullptr && matrix->dtype == DType::kF16 ? "float16" : "bfloat16";
}

// The config.json that the same model has at Hugging Face.
Result<Json> HfConfigOfGguf(const GgufFile& gguf) {
  const std::string& architecture = gguf.architecture();
  if (architecture != "llama" && architecture != "qwen2" && architecture != "qwen3") {
    return InvalidInput("{}: architecture \"{}\" is not supported; supported are llama, qwen2 and qwen3", gguf.path(),
                        Printable(architecture));
  }
  const std::string experts = architecture + ".expert_count";
  if (gguf.Contains(experts)) {
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t count, gguf.Int(experts));
    if (count != 0) return InvalidInput("{}: a mixture of {} experts is not supported", gguf.path(), count);
  }
  Json json;
  json["architectures"] = {architecture == "llama"   ? "LlamaForCausalLM"
                           : architecture == "qwen2" ? "Qwen2ForCausalLM"
                                                     : "Qwen3ForCausalLM"};
  json["model_type"] = architecture;
  SWIFTKV_RETURN_IF_ERROR(TranslateSizes(gguf, &json));
  SWIFTKV_RETURN_IF_ERROR(TranslateRope(gguf, &json));
  SWIFTKV_RETURN_IF_ERROR(TranslateTokens(gguf, &json));
  json["hidden_act"] = "silu";
  json["tie_word_embeddings"] = !HasTensor(gguf, "lm_head.weight");
  if (architecture != "qwen2") json["attention_bias"] = HasLayerTensor(gguf, "self_attn.q_proj.bias");
  if (architecture == "llama") json["mlp_bias"] = HasLayerTensor(gguf, "mlp.gate_proj.bias");
  json["torch_dtype"] = DTypeName(gguf);
  return json;
}

constexpr double kTwoPi = 2.0 * std::numbers::pi;

// The factor of one frequency by transformers' llama3 formula.
double Llama3Factor(const RopeConfig& rope, double wavelength) {
  const auto length = static_cast<double>(rope.original_max_position_embeddings);
  if (wavelength < length / rope.high_freq_factor) return 1.0;
  if (wavelength > length / rope.low_freq_factor) return rope.factor;
  const double smooth = (length / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return 1.0 / ((1.0 - smooth) / rope.factor + smooth);
}

}  // namespace

std::optional<RopeConfig> FitLlama3Rope(std::span<const float> factors, double rope_theta) {
  RopeConfig rope;
  rope.rope_theta = rope_theta;
  if (factors.empty()) return std::nullopt;
  rope.factor = std::round(factors.back() * 1000.0) / 1000.0;  // of the longest wave, less float32's noise
  const auto wavelength = [&](size_t i) {
    return kTwoPi * std::pow(rope_theta, static_cast<double>(i) / static_cast<double>(factors.size()));
  };
  const auto fits = [&](const RopeConfig& candidate) {
    for (size_t i = 0; i < factors.size(); ++i) {
      // Negated, so that NaN does not fit.
      if (!(std::abs(Llama3Factor(candidate, wavelength(i)) / factors[i] - 1.0) < 1e-3)) return false;
    }
    return true;
  };
  if (std::all_of(factors.begin(), factors.end(), [](float factor) { return factor == 1.0f; })) return rope;
  if (!(rope.factor > 1.0 && rope.factor <= 1e6)) return std::nullopt;
  rope.rope_type = RopeType::kLlama3;

  // Between the two bounds, smooth = (length / wavelength - low) / (high - low) is a line over 1 / wavelength. Only the
  // ratios of length, low and high matter, so low is 1.
  std::vector<std::pair<double, double>> line;
  for (size_t i = 0; i < factors.size(); ++i) {
    const double smooth = (1.0 / factors[i] - 1.0 / rope.factor) / (1.0 - 1.0 / rope.factor);
    if (smooth > 1e-4 && smooth < 1.0 - 1e-4) line.emplace_back(1.0 / wavelength(i), smooth);
  }
  std::vector<std::pair<double, double>> candidates;  // (length, high)
  if (line.size() >= 2) {
    const auto [x0, y0] = line.front();
    const auto [x1, y1] = line.back();
    const double slope = (y1 - y0) / (x1 - x0);
    const double intercept = y0 - slope * x0;
    const double high = std::round((1.0 - 1.0 / intercept) * 1000.0) / 1000.0;
    candidates.emplace_back(std::round(slope * (high - 1.0)), high);
  }
  // Too few points on the line: the published models' parameters.
  for (const double length : {8192.0, 4096.0, 2048.0, 16384.0, 32768.0}) candidates.emplace_back(length, 4.0);
  for (const auto& [length, high] : candidates) {
    if (!(length >= 1.0 && length <= 1e9 && high > 1.0 && high <= 1e6)) continue;
    rope.original_max_position_embeddings = static_cast<int64_t>(length);
    rope.low_freq_factor = 1.0;
    rope.high_freq_factor = high;
    if (fits(rope)) return rope;
  }
  return std::nullopt;
}

Result<ModelConfig> ParseGgufConfig(const GgufFile& gguf) {
  SWIFTKV_ASSIGN_OR_RETURN(const Json json, HfConfigOfGguf(gguf));
  SWIFTKV_ASSIGN_OR_RETURN(ModelConfig config, ParseHfConfig(json, gguf.path()));
  config.qkv_bias = HasLayerTensor(gguf, "self_attn.q_proj.bias");
  config.o_bias = HasLayerTensor(gguf, "self_attn.o_proj.bias");
  const std::string window_key = gguf.architecture() + ".attention.sliding_window";
  if (gguf.Contains(window_key)) {
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t window, gguf.Int(window_key));
    if (window < 0) return InvalidInput("{}: {} is negative", gguf.path(), window_key);
    if (window < config.max_position_embeddings) config.sliding_window.assign(config.num_hidden_layers, window);
  }
  return config;
}

}  // namespace swiftkv
