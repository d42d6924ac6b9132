// The start of a student, and its tensors and config.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors_writer.h"
#include "model/quality.h"
#include "model/swiftkv_config.h"
#include "model/swiftkv_transform.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

std::vector<float> Values(const TensorSource& source, const std::string& name) {
  const StoredTensor* tensor = source.Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  std::vector<float> values(static_cast<size_t>(tensor->rows() * tensor->columns()));
  EXPECT_TRUE(DecodeRows(*tensor, 0, tensor->rows(), values.data()));
  return values;
}

std::vector<std::string> Names(const ModelConfig& student) {
  std::vector<std::string> names;
  for (const SwiftKvTensor& tensor : SwiftKvTensors(student)) names.push_back(tensor.name);
  return names;
}

TEST(StudentConfig, Limits) {
  const ModelConfig base = TinyConfig();
  EXPECT_TRUE(StudentConfig(base, 2, 4));
  EXPECT_TRUE(StudentConfig(base, 6, 1));
  for (const auto& [n, g] : std::vector<std::pair<int, int>>{{0, 1}, {7, 1}, {2, 3}, {2, 0}, {2, -1}}) {
    const auto student = StudentConfig(base, n, g);
    ASSERT_FALSE(student) << n << " " << g;
    EXPECT_EQ(student.error().code, ErrorCode::kInvalidInput);
  }
}

TEST(SwiftKvTensors, OfficialNamesAndOwners) {
  const ModelConfig student = *StudentConfig(TinyConfig(Family::kQwen2), 4, 2);
  const std::string a = "model.layers.4.self_attn.";
  const std::string b = "model.layers.5.self_attn.";
  EXPECT_THAT(Names(student), testing::ElementsAre(
                                  a + "q_proj_swiftkv.weight", a + "q_proj_swiftkv.bias", a + "k_proj_swiftkv.weight",
                                  a + "k_proj_swiftkv.bias", a + "v_proj_swiftkv.weight", a + "v_proj_swiftkv.bias",
                                  b + "q_proj_swiftkv.weight", b + "q_proj_swiftkv.bias", "model.norm_swiftkv.weight"));
  EXPECT_TRUE(SwiftKvTensors(TinyConfig()).empty());
}

TEST(SwiftKvTensors, QwenNorms) {
  const auto names = Names(*StudentConfig(TinyConfig(Family::kQwen3), 4, 2));
  EXPECT_THAT(names, testing::IsSupersetOf({"model.layers.4.self_attn.q_norm_swiftkv.weight",
                                            "model.layers.4.self_attn.k_norm_swiftkv.weight",
                                            "model.layers.5.self_attn.q_norm_swiftkv.weight"}));
  EXPECT_THAT(names, testing::Not(testing::Contains("model.layers.5.self_attn.k_norm_swiftkv.weight")));
}

// Llama-3.1-SwiftKV-8B-Instruct.
ModelConfig Llama8B() {
  ModelConfig config = TinyConfig(Family::kLlama, 32);
  config.vocab_size = 128256;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.num_attention_heads = 32;
  config.num_key_value_heads = 8;
  config.head_dim = 128;
  config.tie_word_embeddings = false;
  return *StudentConfig(config, 16, 1);
}

// Of each shard, in units of `unit` bytes.
std::vector<int64_t> ShardSizes(const std::vector<TensorToWrite>& plan, const SafetensorsWriterOptions& options,
                                int64_t unit) {
  std::vector<int64_t> sizes;
  const auto shards = PlanShards(plan, options);
  EXPECT_TRUE(shards) << shards.error().message;
  for (const Shard& shard : *shards) sizes.push_back((shard.bytes + unit / 2) / unit);
  return sizes;
}

TEST(CheckpointTensors, ShardsAreThoseOfThePublishedRevisions) {
  std::vector<TensorToWrite> plan;
  for (const BaseTensor& tensor : CheckpointTensors(Llama8B())) plan.push_back({tensor.name, tensor.shape});
  EXPECT_EQ(plan.size(), 340u);
  EXPECT_THAT(ShardSizes(plan, {.dtype = DType::kBF16}, 1'000'000), testing::ElementsAre(3987, 3926, 3892, 3892, 1168));
  EXPECT_THAT(ShardSizes(plan, {.dtype = DType::kF32}, 10'000'000),
              testing::ElementsAre(395, 379, 396, 389, 389, 389, 389, 389, 257));
}

TEST(CheckpointTensors, Fp8ShardsAreThoseOfThePublishedCheckpoint) {
  std::vector<TensorToWrite> plan;
  for (const BaseTensor& tensor : CheckpointTensors(Llama8B())) {
    const bool is_linear = tensor.name.find("_proj") != std::string::npos;
    for (const TensorToWrite& part :
         is_linear ? CompressedTensors(tensor.name, tensor.shape, CompressedFormat::kFp8, DType::kF32)
                   : std::vector<TensorToWrite>{{tensor.name, tensor.shape}}) {
      plan.push_back(part);
    }
  }
  EXPECT_EQ(plan.size(), 612u);
  EXPECT_THAT(ShardSizes(plan, {.dtype = DType::kF32, .max_shard_bytes = 5'000'000'000}, 10'000'000),
              testing::ElementsAre(498, 451, 210));
}

TEST(CheckpointTensors, SwiftKvEndsItsModule) {
  std::vector<std::string> names;
  for (const BaseTensor& tensor : CheckpointTensors(*StudentConfig(TinyConfig(Family::kQwen3), 5, 1))) {
    if (tensor.name.find("layers.") == std::string::npos || tensor.name.find("layers.5.") != std::string::npos) {
      names.push_back(tensor.name.substr(tensor.name.find('.') + 1));
    }
  }
  const std::string attention = "layers.5.self_attn.";
  EXPECT_THAT(
      names, testing::ElementsAre("embed_tokens.weight", attention + "q_proj.weight", attention + "k_proj.weight",
                                  attention + "v_proj.weight", attention + "o_proj.weight", attention + "q_norm.weight",
                                  attention + "k_norm.weight", attention + "q_proj_swiftkv.weight",
                                  attention + "k_proj_swiftkv.weight", attention + "v_proj_swiftkv.weight",
                                  attention + "q_norm_swiftkv.weight", attention + "k_norm_swiftkv.weight",
                                  "layers.5.mlp.gate_proj.weight", "layers.5.mlp.up_proj.weight",
                                  "layers.5.mlp.down_proj.weight", "layers.5.input_layernorm.weight",
                                  "layers.5.post_attention_layernorm.weight", "norm.weight", "norm_swiftkv.weight"));
}

TEST(InitStudent, ReferenceCopiesAndAverages) {
  const ModelConfig base = TinyConfig(Family::kQwen2);
  const MemoryTensors tensors = TinyTensors(base);
  const auto student = InitStudent(*StudentConfig(base, 2, 2), tensors, Init::kReference, DType::kF32);
  ASSERT_TRUE(student) << student.error().message;
  EXPECT_EQ(Values(*student, "model.norm_swiftkv.weight"), Values(tensors, "model.layers.2.input_layernorm.weight"));
  EXPECT_EQ(Values(*student, "model.layers.5.self_attn.q_proj_swiftkv.bias"),
            Values(tensors, "model.layers.5.self_attn.q_proj.bias"));
  for (const std::string part : {"k_proj", "v_proj"}) {
    for (const std::string parameter : {"weight", "bias"}) {
      const auto mean = Values(*student, "model.layers.4.self_attn." + part + "_swiftkv." + parameter);
      const auto first = Values(tensors, "model.layers.4.self_attn." + part + "." + parameter);
      const auto second = Values(tensors, "model.layers.5.self_attn." + part + "." + parameter);
      ASSERT_EQ(mean.size(), first.size());
      for (size_t i = 0; i < mean.size(); ++i) EXPECT_FLOAT_EQ(mean[i], (first[i] + second[i]) / 2);
    }
  }
}

TEST(InitStudent, ScaledMovesColumnsToTheSharedNorm) {
  const ModelConfig base = TinyConfig();
  MemoryTensors tensors = TinyTensors(base);
  std::vector<float> norm = Values(tensors, "model.layers.3.input_layernorm.weight");
  norm[7] = 0;  // nothing to divide by
  tensors.Set("model.layers.3.input_layernorm.weight", {32}, norm);
  const auto student = InitStudent(*StudentConfig(base, 3, 1), tensors, Init::kScaled, DType::kF32);
  ASSERT_TRUE(student);
  const auto shared = Values(*student, "model.norm_swiftkv.weight");
  const auto own = Values(tensors, "model.layers.5.input_layernorm.weight");
  const auto from = Values(tensors, "model.layers.5.self_attn.k_proj.weight");
  const auto to = Values(*student, "model.layers.5.self_attn.k_proj_swiftkv.weight");
  EXPECT_GT(std::abs(shared[7]), 1e-3f);
  for (size_t i = 0; i < to.size(); ++i) {
    // The same function of the normalised hidden state, whatever the norms are.
    EXPECT_NEAR(to[i] * shared[i % 32], from[i] * own[i % 32], 1e-6);
  }
}

TEST(InitStudent, LayerNOfTheReferenceIsExact) {
  // With n = L - 1 only one layer is rewired, and it reads the very state that its norm came from.
  const ModelConfig base = TinyConfig();
  const MemoryTensors tensors = TinyTensors(base);
  const ModelConfig config = *StudentConfig(base, 5, 1);
  const auto student = InitStudent(config, tensors, Init::kReference, DType::kF32);
  const auto weights = LoadWeights(config, tensors, &*student, {.dtype = DType::kF32, .teacher = true});
  ASSERT_TRUE(weights) << weights.error().message;
  const auto quality = MeasureQuality(*weights, TinySequences(base, 3, 20, 5));
  ASSERT_TRUE(quality) << quality.error().message;
  EXPECT_NEAR(quality->kl, 0, 1e-6);
  EXPECT_EQ(quality->agreement, 1);
  EXPECT_NEAR(quality->teacher_nll, quality->student_nll, 1e-5);
  EXPECT_EQ(quality->tokens, 60);
}

TEST(SwiftKvConfig, Families) {
  nlohmann::ordered_json json;
  ASSERT_TRUE(SetSwiftKvFields(*StudentConfig(TinyConfig(Family::kQwen3), 3, 1), DType::kBF16, &json));
  EXPECT_EQ(json["model_type"], "qwen3_swiftkv");
  ModelConfig mistral = *StudentConfig(TinyConfig(Family::kMistral), 3, 1);
  ASSERT_TRUE(SetSwiftKvFields(mistral, DType::kBF16, &json));
  EXPECT_EQ(json["model_type"], "llama_swiftkv");
  mistral.sliding_window[1] = 16;
  EXPECT_FALSE(SetSwiftKvFields(mistral, DType::kBF16, &json));
}

TEST(SwiftKvConfig, RopeOfTransformers5IsReadByTransformers4) {
  ModelConfig student = *StudentConfig(TinyConfig(), 3, 1);
  student.rope.rope_type = RopeType::kLinear;
  student.rope.rope_theta = 500000;
  student.rope.factor = 4;
  nlohmann::ordered_json json = {
      {"rope_parameters", {{"rope_type", "linear"}, {"rope_theta", 500000.0}, {"factor", 4.0}}}};
  const nlohmann::ordered_json parameters = json["rope_parameters"];
  ASSERT_TRUE(SetSwiftKvFields(student, DType::kBF16, &json));
  EXPECT_EQ(json["rope_theta"], 500000.0);
  EXPECT_EQ(json["rope_scaling"], (nlohmann::ordered_json{{"rope_type", "linear"}, {"factor", 4.0}}));
  EXPECT_EQ(json["rope_parameters"], parameters);
  student.rope.rope_type = RopeType::kDefault;
  ASSERT_TRUE(SetSwiftKvFields(student, DType::kBF16, &json));
  EXPECT_TRUE(json["rope_scaling"].is_null());
  // Where transformers 4 wrote the base, its fields stay.
  json = {{"rope_theta", 10000.0}};
  ASSERT_TRUE(SetSwiftKvFields(student, DType::kBF16, &json));
  EXPECT_EQ(json["rope_theta"], 10000.0);
  EXPECT_FALSE(json.contains("rope_scaling"));
}

TEST(SwiftKvConfig, StoredTypes) {
  const ModelConfig student = *StudentConfig(TinyConfig(), 3, 1);
  for (const auto& [dtype, name] :
       {std::pair{DType::kBF16, "bfloat16"}, {DType::kF16, "float16"}, {DType::kF32, "float32"}}) {
    nlohmann::ordered_json json;
    ASSERT_TRUE(SetSwiftKvFields(student, dtype, &json));
    EXPECT_EQ(json["torch_dtype"], name);
  }
}

// As the published FP8 checkpoints say it (llm-compressor's FP8_DYNAMIC).
TEST(SwiftKvConfig, Fp8QuantizesInputsAsTheyCome) {
  const auto json = QuantizationConfigJson(CompressedFormat::kFp8);
  EXPECT_EQ(json["format"], "float-quantized");
  EXPECT_EQ(json["ignore"], nlohmann::ordered_json({"lm_head"}));
  const auto& group = json["config_groups"]["group_0"];
  EXPECT_EQ(group["weights"]["type"], "float");
  EXPECT_EQ(group["weights"]["num_bits"], 8);
  EXPECT_EQ(group["weights"]["strategy"], "channel");
  EXPECT_EQ(group["weights"]["dynamic"], false);
  EXPECT_EQ(group["input_activations"]["type"], "float");
  EXPECT_EQ(group["input_activations"]["num_bits"], 8);
  EXPECT_EQ(group["input_activations"]["strategy"], "token");
  EXPECT_EQ(group["input_activations"]["dynamic"], true);
}

}  // namespace
}  // namespace swiftkv
