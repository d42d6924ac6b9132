#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// Far above every published model, and low enough that no product of sizes overflows.
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxHidden = 1 << 18;
constexpr int64_t kMaxIntermediate = 1 << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

// Reads the members of one object and keeps the first error, so that a parser reads as a list of fields.
// A member that is null counts as missing, as in transformers.
class Fields {
 public:
  Fields(const Json& object, std::string origin) : object_(object), origin_(std::move(origin)) {}

  bool Contains(const char* name) const { return object_.is_object() && object_.contains(name); }
  const Json* Find(const char* name) const {
    if (!object_.is_object()) return nullptr;
    const auto member = object_.find(name);
    return member == object_.end() || member->is_null() ? nullptr : &*member;
  }

  int64_t Int(const char* name, std::optional<int64_t> missing, int64_t min, int64_t max) {
    const Json* value = Find(name);
    if (value == nullptr && missing.has_value()) return *missing;
    if (value == nullptr) {
      Fail("{}: the field {} is missing", origin_, name);
    } else if (const std::optional<int64_t> number = AsInt(*value); !number.has_value()) {
      Fail("{}: {} must be a whole number", origin_, name);
    } else if (*number < min || *number > max) {
      Fail("{}: {} is {}, the range is {} to {}", origin_, name, *number, min, max);
    } else {
      return *number;
    }
    return min;
  }

  // Without a value for `missing` the field is required; `min` itself is excluded.
  double Number(const char* name, std::optional<double> missing, double min, double max) {
    const Json* value = Find(name);
    if (value == nullptr && missing.has_value()) return *missing;
    if (value == nullptr) {
      Fail("{}: the field {} is missing", origin_, name);
    } else if (!value->is_number()) {
      Fail("{}: {} must be a number", origin_, name);
    } else if (const double number = value->get<double>(); !(number > min && number <= max)) {
      Fail("{}: {} is {}, it must be above {} and at most {}", origin_, name, number, min, max);
    } else {
      return number;
    }
    return max;
  }
  std::optional<double> OptionalNumber(const char* name, double min, double max) {
    if (Find(name) == nullptr) return std::nullopt;
    return Number(name, std::nullopt, min, max);
  }

  bool Bool(const char* name, bool missing) {
    const Json* value = Find(name);
    if (value == nullptr) return missing;
    if (!value->is_boolean()) Fail("{}: {} must be true or false", origin_, name);
    return value->is_boolean() && value->get<bool>();
  }

  std::string String(const char* name, const char* missing) {
    const Json* value = Find(name);
    if (value == nullptr) return missing;
    if (!value->is_string()) Fail("{}: {} must be a string", origin_, name);
    return value->is_string() ? value->get<std::string>() : "";
  }

  // A token id or a list of them. What is no id of the vocabulary (-1 for "none") cannot occur and is dropped.
  std::vector<int32_t> TokenIds(const char* name, int64_t vocab_size) {
    std::vector<int32_t> ids;
    const Json* value = Find(name);
    if (value == nullptr) return ids;
    const Json list = value->is_array() ? *value : Json::array({*value});
    for (const Json& item : list) {
      const std::optional<int64_t> id = AsInt(item);
      if (!id.has_value()) Fail("{}: {} must be a token id or a list of them", origin_, name);
      if (id.has_value() && *id >= 0 && *id < vocab_size) ids.push_back(static_cast<int32_t>(*id));
    }
    return ids;
  }
  std::optional<int32_t> TokenId(const char* name, int64_t vocab_size) {
    const std::vector<int32_t> ids = TokenIds(name, vocab_size);
    return ids.empty() ? std::nullopt : std::optional(ids.front());
  }

  template <class... Args>
  void Fail(fmt::format_string<Args...> format, Args&&... args) {
    if (status_) status_ = InvalidInput(format, std::forward<Args>(args)...);
  }
  const Status& status() const { return status_; }
  const std::string& origin() const { return origin_; }

 private:
  static std::optional<int64_t> AsInt(const Json& value) {
    if (value.is_number_unsigned()) {
      const auto number = value.get<uint64_t>();
      return number > INT64_MAX ? INT64_MAX : static_cast<int64_t>(number);
    }
    if (value.is_number_integer()) return value.get<int64_t>();
    // 8192.0 occurs in rope parameters.
    if (value.is_number_float()) {
      const double number = value.get<double>();
      if (std::abs(number) < 1e15 && number == std::floor(number)) return static_cast<int64_t>(number);
    }
    return std::nullopt;
  }

  const Json& object_;
  std::string origin_;
  Status status_;
};

struct Architecture {
  std::string_view model_type;
  Family family;
  bool swiftkv;
};
constexpr std::array<Architecture, 7> kArchitectures = {{
    {"llama", Family::kLlama, false},
    {"llama_swiftkv", Family::kLlama, true},
    {"mistral", Family::kMistral, false},
    {"qwen2", Family::kQwen2, false},
    {"qwen2_swiftkv", Family::kQwen2, true},
    {"qwen3", Family::kQwen3, false},
    {"qwen3_swiftkv", Family::kQwen3, true},
}};

// What transformers assumes where config.json is silent.
struct FamilyDefaults {
  std::optional<int64_t> num_key_value_heads;  // none: as many as heads
  int64_t head_dim;                            // 0: hidden_size / num_attention_heads
  int64_t max_position_embeddings;
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> eos_token_id;
};
FamilyDefaults DefaultsOf(Family family) {
  switch (family) {
    case Family::kLlama:
      return {std::nullopt, 0, 2048, 1, 2};
    case Family::kMistral:
      return {8, 0, 131072, 1, 2};
    case Family::kQwen2:
      return {32, 0, 32768, std::nullopt, std::nullopt};
    case Family::kQwen3:
      return {32, 128, 32768, std::nullopt, std::nullopt};
  }
  return {};
}

Result<Architecture> FindArchitecture(Fields& fields) {
  const std::string model_type = fields.String("model_type", "");
  SWIFTKV_RETURN_IF_ERROR(fields.status());
  const auto found = std::find_if(kArchitectures.begin(), kArchitectures.end(),
                                  [&](const Architecture& known) { return known.model_type == model_type; });
  if (found == kArchitectures.end()) {
    return InvalidInput(
        "{}: model_type \"{}\" is not supported; supported are llama, mistral, qwen2, qwen3 and llama_swiftkv, "
        "qwen2_swiftkv, qwen3_swiftkv",
        fields.origin(), Printable(model_type));
  }
  return *found;
}

// A model without a language model's head (LlamaModel, LlamaForSequenceClassification) cannot generate.
void CheckClass(Fields& fields) {
  const Json* classes = fields.Find("architectures");
  if (classes == nullptr || (classes->is_array() && classes->empty())) return;
  const auto causal = [](const Json& name) {
    return name.is_string() && name.get_ref<const std::string&>().ends_with("ForCausalLM");
  };
  if (!classes->is_array() || std::none_of(classes->begin(), classes->end(), causal)) {
    fields.Fail("{}: architectures names no ...ForCausalLM class", fields.origin());
  }
}

// The quantised formats that are read (checkpoint/compressed_tensors.h).
void CheckQuantization(Fields& fields) {
  const Json* config = fields.Find("quantization_config");
  if (config == nullptr) return;
  Fields quantization(*config, fields.origin());
  const std::string method = quantization.String("quant_method", "");
  const std::string format = quantization.String("format", "");
  constexpr std::array kFormats = {"float-quantized", "naive-quantized", "int-quantized", "pack-quantized"};
  const bool compressed =
      method == "compressed-tensors" && std::find(kFormats.begin(), kFormats.end(), format) != kFormats.end();
  if (!compressed && method != "fbgemm_fp8") {
    fields.Fail(
        "{}: quantization_config with quant_method \"{}\" and format \"{}\" is not supported; supported are "
        "compressed-tensors with {}, and fbgemm_fp8",
        fields.origin(), Printable(method), Printable(format), fmt::join(kFormats, ", "));
  }
}

void ParseSizes(Fields& fields, ModelConfig* config) {
  const FamilyDefaults defaults = DefaultsOf(config->family);
  config->vocab_size = fields.Int("vocab_size", std::nullopt, 1, kMaxVocab);
  config->hidden_size = fields.Int("hidden_size", std::nullopt, 1, kMaxHidden);
  config->intermediate_size = fields.Int("intermediate_size", std::nullopt, 1, kMaxIntermediate);
  config->num_hidden_layers = fields.Int("num_hidden_layers", std::nullopt, 1, kMaxLayers);
  config->num_attention_heads = fields.Int("num_attention_heads", std::nullopt, 1, kMaxHeads);
  const int64_t heads = config->num_attention_heads;
  // transformers: a missing field has the class's default, null means one K/V head a query head.
  const int64_t kv_default =
      fields.Contains("num_key_value_heads") ? heads : defaults.num_key_value_heads.value_or(heads);
  config->num_key_value_heads = fields.Int("num_key_value_heads", kv_default, 1, kMaxHeads);
  const int64_t head_dim = defaults.head_dim > 0 ? defaults.head_dim : config->hidden_size / heads;
  if (fields.Find("head_dim") == nullptr && defaults.head_dim == 0 && config->hidden_size % heads != 0) {
    fields.Fail("{}: hidden_size {} is no multiple of num_attention_heads {}, and head_dim is missing", fields.origin(),
                config->hidden_size, heads);
  }
  config->head_dim = fields.Int("head_dim", head_dim, 2, kMaxHeadDim);
  config->max_position_embeddings =
      fields.Int("max_position_embeddings", defaults.max_position_embeddings, 1, kMaxPositions);
  config->rms_norm_eps = fields.Number("rms_norm_eps", 1e-6, 0.0, 1.0);
}

void ParseOptions(Fields& fields, ModelConfig* config) {
  const Family family = config->family;
  config->tie_word_embeddings = fields.Bool("tie_word_embeddings", false);
  const bool has_attention_bias = family == Family::kLlama || family == Family::kQwen3;
  const bool attention_bias = has_attention_bias && fields.Bool("attention_bias", false);
  config->qkv_bias = attention_bias || family == Family::kQwen2;
  config->o_bias = attention_bias;
  config->mlp_bias = family == Family::kLlama && fields.Bool("mlp_bias", false);
  config->qk_norm = family == Family::kQwen3;
  if (const std::string activation = fields.String("hidden_act", "silu"); activation != "silu") {
    fields.Fail("{}: hidden_act \"{}\" is not supported; supported is silu", fields.origin(), Printable(activation));
  }
  // transformers 5 writes dtype, transformers 4 torch_dtype.
  const std::string dtype = fields.String("dtype", fields.String("torch_dtype", "float32").c_str());
  if (dtype == "float32") {
    config->dtype = DType::kF32;
  } else if (dtype == "float16") {
    config->dtype = DType::kF16;
  } else if (dtype == "bfloat16") {
    config->dtype = DType::kBF16;
  } else {
    fields.Fail("{}: dtype \"{}\" is not supported; supported are float32, float16 and bfloat16", fields.origin(),
                Printable(dtype));
  }
}

// Which layers see only a window. Mistral: all of them, if sliding_window is a number. Qwen: those that layer_types
// names, or the layers from max_window_layers on, and only with use_sliding_window.
void ParseSlidingWindow(Fields& fields, ModelConfig* config) {
  config->sliding_window.assign(config->num_hidden_layers, 0);
  if (config->family == Family::kLlama) return;
  const std::optional<int64_t> missing = fields.Contains("sliding_window") ? 0 : 4096;
  const int64_t window = fields.Int("sliding_window", missing, 0, kMaxPositions);
  if (config->family == Family::kMistral) {
    config->sliding_window.assign(config->num_hidden_layers, window);
    return;
  }
  const bool use_window = fields.Bool("use_sliding_window", false) && window > 0;
  const int64_t first = fields.Int("max_window_layers", 28, 0, kMaxPositions);
  const Json* types = fields.Find("layer_types");
  if (types == nullptr) {
    for (int64_t layer = first; use_window && layer < config->num_hidden_layers; ++layer) {
      config->sliding_window[layer] = window;
    }
    return;
  }
  if (!types->is_array() || std::ssize(*types) != config->num_hidden_layers) {
    return fields.Fail("{}: layer_types must be a list of num_hidden_layers ({}) names", fields.origin(),
                       config->num_hidden_layers);
  }
  for (int64_t layer = 0; layer < config->num_hidden_layers; ++layer) {
    const Json& type = (*types)[layer];
    if (type == "full_attention") continue;
    if (type != "sliding_attention") {
      return fields.Fail("{}: layer_types[{}] must be full_attention or sliding_attention", fields.origin(), layer);
    }
    if (!use_window) {
      return fields.Fail(
          "{}: layer_types[{}] is sliding_attention, but use_sliding_window or sliding_window is not set",
          fields.origin(), layer);
    }
    config->sliding_window[layer] = window;
  }
}

void ParseYarn(Fields& rope, int64_t max_position_embeddings, RopeConfig* config) {
  const double ratio = static_cast<double>(max_position_embeddings) / config->original_max_position_embeddings;
  config->factor = rope.Number("factor", ratio, 0.0, 1e6);
  config->attention_factor = rope.OptionalNumber("attention_factor", 0.0, 1e3);
  config->mscale = rope.OptionalNumber("mscale", -1e-9, 1e3);
  config->mscale_all_dim = rope.OptionalNumber("mscale_all_dim", -1e-9, 1e3);
  config->beta_fast = rope.Number("beta_fast", 32.0, -1e-9, 1e6);
  config->beta_slow = rope.Number("beta_slow", 1.0, -1e-9, 1e6);
  // transformers: zero means the default.
  if (config->beta_fast == 0.0) config->beta_fast = 32.0;
  if (config->beta_slow == 0.0) config->beta_slow = 1.0;
  config->truncate = rope.Bool("truncate", true);
}

void ParseLlama3(Fields& rope, RopeConfig* config) {
  config->factor = rope.Number("factor", std::nullopt, 0.0, 1e6);
  config->low_freq_factor = rope.Number("low_freq_factor", std::nullopt, 0.0, 1e6);
  config->high_freq_factor = rope.Number("high_freq_factor", std::nullopt, 0.0, 1e6);
  if (config->high_freq_factor <= config->low_freq_factor) {
    rope.Fail("{}: high_freq_factor must be above low_freq_factor", rope.origin());
  }
}

// transformers 4: rope_theta beside rope_scaling; transformers 5: both in rope_parameters.
Status ParseRope(Fields& fields, ModelConfig* config) {
  const Json empty = Json::object();
  const Json* parameters = fields.Find("rope_scaling");
  if (parameters == nullptr || parameters->empty()) parameters = fields.Find("rope_parameters");
  Fields rope(parameters == nullptr ? empty : *parameters,
              fmt::format("{}: {}", fields.origin(), fields.Find("rope_scaling") ? "rope_scaling" : "rope_parameters"));
  if (parameters != nullptr && !parameters->is_object()) return InvalidInput("{} must be an object", rope.origin());

  const double theta = fields.Number("rope_theta", 10000.0, 1.0, 1e15);
  config->rope.rope_theta = rope.Number("rope_theta", theta, 1.0, 1e15);
  const double rotary = fields.Number("partial_rotary_factor", 1.0, 0.0, 1.0);
  if (rope.Number("partial_rotary_factor", rotary, 0.0, 1.0) != 1.0) {
    rope.Fail("{}: partial_rotary_factor other than 1 is not supported", rope.origin());
  }
  const int64_t positions = config->max_position_embeddings;
  // A value outside the rope parameters has priority in transformers.
  config->rope.original_max_position_embeddings =
      fields.Int("original_max_position_embeddings",
                 rope.Int("original_max_position_embeddings", positions, 1, kMaxPositions), 1, kMaxPositions);

  const std::string type = rope.String("rope_type", rope.String("type", "default").c_str());
  if (type == "default") {
    config->rope.rope_type = RopeType::kDefault;
  } else if (type == "linear") {
    config->rope.rope_type = RopeType::kLinear;
    config->rope.factor = rope.Number("factor", std::nullopt, 0.0, 1e6);
  } else if (type == "llama3") {
    config->rope.rope_type = RopeType::kLlama3;
    ParseLlama3(rope, &config->rope);
  } else if (type == "yarn") {
    config->rope.rope_type = RopeType::kYarn;
    ParseYarn(rope, positions, &config->rope);
  } else {
    rope.Fail("{}: rope_type \"{}\" is not supported; supported are default, linear, llama3 and yarn", rope.origin(),
              Printable(type));
  }
  SWIFTKV_RETURN_IF_ERROR(fields.status());
  return rope.status();
}

void ParseSwiftKv(Fields& fields, ModelConfig* config) {
  const int64_t layers = config->num_hidden_layers;
  config->num_key_value_layers = fields.Int("num_key_value_layers", layers, 1, layers);
  config->key_value_group_size = fields.Int("key_value_group_size", 1, 1, layers);
  if ((layers - config->num_key_value_layers) % config->key_value_group_size != 0) {
    fields.Fail("{}: key_value_group_size {} does not divide the {} layers after num_key_value_layers {}",
                fields.origin(), config->key_value_group_size, layers - config->num_key_value_layers,
                config->num_key_value_layers);
  }
}

void ParseTokenIds(Fields& fields, ModelConfig* config) {
  const FamilyDefaults defaults = DefaultsOf(config->family);
  config->eos_token_id = fields.TokenIds("eos_token_id", config->vocab_size);
  config->bos_token_id = fields.TokenId("bos_token_id", config->vocab_size);
  config->pad_token_id = fields.TokenId("pad_token_id", config->vocab_size);
  if (!fields.Contains("bos_token_id")) config->bos_token_id = defaults.bos_token_id;
  if (!fields.Contains("eos_token_id") && defaults.eos_token_id) config->eos_token_id = {*defaults.eos_token_id};
}

// Fields that an adapter's config.json may repeat: they must be the base model's.
Status CheckSameSizes(Fields& adapter, const ModelConfig& base) {
  const std::pair<const char*, int64_t> sizes[] = {
      {"vocab_size", base.vocab_size},
      {"hidden_size", base.hidden_size},
      {"intermediate_size", base.intermediate_size},
      {"num_hidden_layers", base.num_hidden_layers},
      {"num_attention_heads", base.num_attention_heads},
      {"num_key_value_heads", base.num_key_value_heads},
      {"head_dim", base.head_dim},
  };
  for (const auto& [name, expected] : sizes) {
    const int64_t value = adapter.Int(name, expected, 0, INT64_MAX);
    SWIFTKV_RETURN_IF_ERROR(adapter.status());
    if (value != expected) {
      return InvalidInput("{}: the adapter was made for {} {}, the base model has {}", adapter.origin(), name, value,
                          expected);
    }
  }
  return Ok();
}

}  // namespace

std::string_view Name(Family family) {
  switch (family) {
    case Family::kLlama:
      return "llama";
    case Family::kMistral:
      return "mistral";
    case Family::kQwen2:
      return "qwen2";
    case Family::kQwen3:
      return "qwen3";
  }
  return "";
}

ModelConfig ModelConfig::Teacher() const {
  ModelConfig teacher = *this;
  teacher.num_key_value_layers = num_hidden_layers;
  teacher.key_value_group_size = 1;
  return teacher;
}

Status CheckConfig(const ModelConfig& config, const std::string& origin) {
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return InvalidInput("{}: num_attention_heads {} is no multiple of num_key_value_heads {}", origin,
                        config.num_attention_heads, config.num_key_value_heads);
  }
  if (config.head_dim % 2 != 0) return InvalidInput("{}: head_dim {} is odd", origin, config.head_dim);
  return Ok();
}

Result<ModelConfig> ParseHfConfig(const Json& json, const std::string& origin) {
  if (!json.is_object()) return InvalidInput("{}: not a JSON object", origin);
  Fields fields(json, origin);
  SWIFTKV_ASSIGN_OR_RETURN(const Architecture architecture, FindArchitecture(fields));
  ModelConfig config;
  config.family = architecture.family;
  CheckClass(fields);
  CheckQuantization(fields);
  ParseSizes(fields, &config);
  ParseOptions(fields, &config);
  SWIFTKV_RETURN_IF_ERROR(fields.status());
  SWIFTKV_RETURN_IF_ERROR(CheckConfig(config, origin));
  ParseSlidingWindow(fields, &config);
  SWIFTKV_RETURN_IF_ERROR(ParseRope(fields, &config));
  config.num_key_value_layers = config.num_hidden_layers;
  if (architecture.swiftkv) ParseSwiftKv(fields, &config);
  ParseTokenIds(fields, &config);
  SWIFTKV_RETURN_IF_ERROR(fields.status());
  return config;
}

Status MergeGenerationConfig(const Json& json, const std::string& origin, ModelConfig* config) {
  Fields fields(json, origin);
  for (const int32_t id : fields.TokenIds("eos_token_id", config->vocab_size)) {
    if (std::find(config->eos_token_id.begin(), config->eos_token_id.end(), id) == config->eos_token_id.end()) {
      config->eos_token_id.push_back(id);
    }
  }
  return fields.status();
}

Status MergeAdapterConfig(const Json& json, const std::string& origin, ModelConfig* config) {
  if (!json.is_object()) return InvalidInput("{}: not a JSON object", origin);
  if (config->is_swiftkv()) return InvalidInput("{}: the base model is a SwiftKV model already", origin);
  Fields fields(json, origin);
  SWIFTKV_ASSIGN_OR_RETURN(const Architecture architecture, FindArchitecture(fields));
  if (!architecture.swiftkv) {
    return InvalidInput("{}: model_type {} is no SwiftKV model, so this folder is no adapter", origin,
                        architecture.model_type);
  }
  // Mistral is Llama with a window, and its GGUF files say llama.
  const auto plain = [](Family family) { return family == Family::kMistral ? Family::kLlama : family; };
  if (plain(architecture.family) != plain(config->family)) {
    return InvalidInput("{}: an adapter for {} does not fit a base model of family {}", origin,
                        Name(architecture.family), Name(config->family));
  }
  SWIFTKV_RETURN_IF_ERROR(CheckSameSizes(fields, *config));
  CheckQuantization(fields);
  if (fields.Find("num_key_value_layers") == nullptr) {
    return InvalidInput("{}: the field num_key_value_layers is missing", origin);
  }
  ParseSwiftKv(fields, config);
  return fields.status();
}

}  // namespace swiftkv
