#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

Json LlamaJson() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "max_position_embeddings": 131072, "hidden_act": "silu",
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "torch_dtype": "bfloat16"})");
}

Json SwiftKvJson() {
  Json json = LlamaJson();
  json.update({{"model_type", "llama_swiftkv"},
               {"architectures", {"LlamaSwiftKVForCausalLM"}},
               {"swiftkv", true},
               {"num_key_value_layers", 16},
               {"key_value_group_size", 4}});
  return json;
}

ModelConfig Parse(const Json& json) {
  Result<ModelConfig> config = ParseHfConfig(json, "config.json");
  EXPECT_TRUE(config) << config.error().message;
  return config.value_or(ModelConfig());
}

std::string ErrorOf(const Json& json) {
  Result<ModelConfig> config = ParseHfConfig(json, "config.json");
  EXPECT_FALSE(config);
  return config ? "" : config.error().message;
}

TEST(ConfigTest, ReadsLlama31AsTransformers4Writes) {
  const ModelConfig config = Parse(LlamaJson());
  EXPECT_EQ(config.family, Family::kLlama);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.dtype, DType::kBF16);
  EXPECT_EQ(config.rope.rope_type, RopeType::kLlama3);
  EXPECT_EQ(config.rope.rope_theta, 500000.0);
  EXPECT_EQ(config.rope.factor, 8.0);
  EXPECT_EQ(config.rope.original_max_position_embeddings, 8192);
  EXPECT_THAT(config.eos_token_id, ElementsAre(128001, 128008, 128009));
  EXPECT_EQ(config.num_key_value_layers, 32);
  EXPECT_FALSE(config.is_swiftkv());
}

TEST(ConfigTest, ReadsTheOfficialSwiftKvFields) {
  const ModelConfig config = Parse(SwiftKvJson());
  EXPECT_EQ(config.num_key_value_layers, 16);
  EXPECT_EQ(config.key_value_group_size, 4);
  EXPECT_EQ(config.kv_groups(), 20);
  EXPECT_EQ(config.kv_owner(23), 20);
  EXPECT_EQ(config.Teacher().kv_groups(), 32);

  Json plain = SwiftKvJson();
  plain["num_key_value_layers"] = nullptr;
  plain.erase("key_value_group_size");
  EXPECT_EQ(Parse(plain).num_key_value_layers, 32);
}

RopeType RopeTypeOf(const std::string& name) {
  if (name == "linear") return RopeType::kLinear;
  if (name == "llama3") return RopeType::kLlama3;
  return name == "yarn" ? RopeType::kYarn : RopeType::kDefault;
}

void ExpectRope(const RopeConfig& rope, const Json& expected) {
  EXPECT_EQ(rope.rope_type, RopeTypeOf(expected["rope_type"]));
  EXPECT_EQ(rope.rope_theta, expected["rope_theta"]);
  EXPECT_EQ(rope.factor, expected.value("factor", 1.0));
  if (expected.contains("original_max_position_embeddings")) {
    EXPECT_EQ(rope.original_max_position_embeddings, expected["original_max_position_embeddings"]);
  }
  EXPECT_EQ(rope.low_freq_factor, expected.value("low_freq_factor", 1.0));
  EXPECT_EQ(rope.high_freq_factor, expected.value("high_freq_factor", 4.0));
  EXPECT_EQ(rope.beta_fast, expected.value("beta_fast", 32.0));
  EXPECT_EQ(rope.beta_slow, expected.value("beta_slow", 1.0));
  EXPECT_EQ(rope.attention_factor.value_or(-1), expected.value("attention_factor", -1.0));
  EXPECT_EQ(rope.mscale.value_or(-1), expected.value("mscale", -1.0));
  EXPECT_EQ(rope.mscale_all_dim.value_or(-1), expected.value("mscale_all_dim", -1.0));
  EXPECT_EQ(rope.truncate, expected.value("truncate", true));
}

// Both spellings, defaults and null fields, against what transformers makes of the same files.
TEST(ConfigTest, ResolvesFieldsAsTransformersDoes) {
  std::ifstream file(SWIFTKV_SOURCE_DIR "/tests/golden/checkpoint/configs.json");
  const Json golden = Json::parse(file);
  ASSERT_GE(golden["cases"].size(), 15u);
  for (const Json& one : golden["cases"]) {
    SCOPED_TRACE(one["name"].get<std::string>());
    const ModelConfig config = Parse(one["config"]);
    const Json& expected = one["resolved"];
    EXPECT_EQ(Name(config.family), one["config"]["model_type"].get<std::string>());
    EXPECT_EQ(config.num_key_value_heads, expected["num_key_value_heads"]);
    EXPECT_EQ(config.head_dim, expected["head_dim"]);
    EXPECT_EQ(config.max_position_embeddings, expected["max_position_embeddings"]);
    EXPECT_EQ(config.rms_norm_eps, expected["rms_norm_eps"]);
    EXPECT_EQ(config.tie_word_embeddings, expected["tie_word_embeddings"]);
    EXPECT_EQ(config.o_bias, expected["attention_bias"]);
    EXPECT_EQ(config.qkv_bias, expected["attention_bias"] || config.family == Family::kQwen2);
    EXPECT_EQ(config.mlp_bias, expected["mlp_bias"]);
    EXPECT_EQ(config.qk_norm, config.family == Family::kQwen3);
    EXPECT_EQ(Json(config.sliding_window), expected["sliding_window"]);
    EXPECT_EQ(Json(config.eos_token_id), expected["eos_token_id"]);
    EXPECT_EQ(config.bos_token_id ? Json(*config.bos_token_id) : Json(), expected["bos_token_id"]);
    EXPECT_EQ(config.dtype, expected["dtype"] == "float16"    ? DType::kF16
                            : expected["dtype"] == "bfloat16" ? DType::kBF16
                                                              : DType::kF32);
    ExpectRope(config.rope, expected["rope_parameters"]);
  }
}

TEST(ConfigTest, MergesStopTokensOfTheGenerationConfig) {
  ModelConfig config = Parse(LlamaJson());
  EXPECT_TRUE(MergeGenerationConfig({{"eos_token_id", {128009, 7}}}, "generation_config.json", &config));
  EXPECT_THAT(config.eos_token_id, ElementsAre(128001, 128008, 128009, 7));
  EXPECT_FALSE(MergeGenerationConfig({{"eos_token_id", "x"}}, "generation_config.json", &config));
}

TEST(ConfigTest, RefusesWhatItDoesNotKnow) {
  const auto changed = [](const char* name, const Json& value) {
    Json json = SwiftKvJson();
    json[name] = value;
    return ErrorOf(json);
  };
  EXPECT_THAT(changed("model_type", "deepseek_v2_swiftkv"), HasSubstr("deepseek_v2_swiftkv\" is not supported"));
  EXPECT_THAT(changed("model_type", 3), HasSubstr("model_type must be a string"));
  EXPECT_THAT(changed("model_type", nullptr), HasSubstr("is not supported"));
  EXPECT_THAT(changed("architectures", {"LlamaModel"}), HasSubstr("ForCausalLM"));
  EXPECT_THAT(changed("hidden_act", "gelu"), HasSubstr("hidden_act"));
  EXPECT_THAT(changed("torch_dtype", "int8"), HasSubstr("dtype"));
  EXPECT_THAT(changed("hidden_size", nullptr), HasSubstr("hidden_size is missing"));
  EXPECT_THAT(changed("hidden_size", -1), HasSubstr("hidden_size is -1"));
  EXPECT_THAT(changed("hidden_size", 18446744073709551615u), HasSubstr("hidden_size"));
  EXPECT_THAT(changed("hidden_size", "4096"), HasSubstr("hidden_size must be a whole number"));
  EXPECT_THAT(changed("vocab_size", 1e300), HasSubstr("vocab_size"));
  EXPECT_THAT(changed("hidden_size", 4097), HasSubstr("no multiple of num_attention_heads"));
  EXPECT_THAT(changed("num_key_value_heads", 5), HasSubstr("num_key_value_heads 5"));
  EXPECT_THAT(changed("head_dim", 127), HasSubstr("odd"));
  EXPECT_THAT(changed("rms_norm_eps", 0), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(changed("rope_theta", 0.0), HasSubstr("rope_theta"));
  EXPECT_THAT(changed("rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}), HasSubstr("\"dynamic\""));
  EXPECT_THAT(changed("rope_scaling", {{"type", "linear"}}), HasSubstr("factor is missing"));
  EXPECT_THAT(changed("rope_scaling", "yarn"), HasSubstr("must be an object"));
  EXPECT_THAT(changed("partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(changed("num_key_value_layers", 0), HasSubstr("num_key_value_layers is 0"));
  EXPECT_THAT(changed("num_key_value_layers", 33), HasSubstr("range is 1 to 32"));
  EXPECT_THAT(changed("key_value_group_size", 3), HasSubstr("does not divide"));
  EXPECT_THAT(changed("quantization_config", {{"quant_method", "gptq"}}), HasSubstr("gptq"));
  EXPECT_FALSE(ParseHfConfig(Json::array(), "config.json"));
}

TEST(ConfigTest, AnAdapterMustFitItsBase) {
  const ModelConfig base = Parse(LlamaJson());
  const auto merged = [&](const char* name, const Json& value) {
    Json json = SwiftKvJson();
    json[name] = value;
    ModelConfig config = base;
    const Status status = MergeAdapterConfig(json, "adapter", &config);
    return status ? fmt::format("n={} g={}", config.num_key_value_layers, config.key_value_group_size)
                  : status.error().message;
  };
  EXPECT_EQ(merged("head_dim", nullptr), "n=16 g=4");
  EXPECT_THAT(merged("hidden_size", 2048), HasSubstr("made for hidden_size 2048, the base model has 4096"));
  EXPECT_THAT(merged("model_type", "qwen2_swiftkv"), HasSubstr("does not fit"));
  EXPECT_THAT(merged("model_type", "llama"), HasSubstr("no adapter"));
  EXPECT_THAT(merged("num_key_value_layers", nullptr), HasSubstr("missing"));
  EXPECT_THAT(merged("key_value_group_size", 5), HasSubstr("does not divide"));
  ModelConfig swiftkv = Parse(SwiftKvJson());
  EXPECT_FALSE(MergeAdapterConfig(SwiftKvJson(), "adapter", &swiftkv));
}

}  // namespace
}  // namespace swiftkv
