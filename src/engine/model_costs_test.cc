#include "engine/model_costs.h"

#include <gtest/gtest.h>

namespace swiftkv {
namespace {

ModelConfig Llama8b(int64_t n, int64_t g) {
  ModelConfig config;
  config.vocab_size = 128256;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.num_hidden_layers = 32;
  config.num_attention_heads = 32;
  config.num_key_value_heads = 8;
  config.head_dim = 128;
  config.num_key_value_layers = n;
  config.key_value_group_size = g;
  return config;
}

// Published: 8,030,261,248 parameters of Llama-3.1-8B, 8,432,918,528 in the SwiftKV checkpoint with the teacher inside.
TEST(ModelCostsTest, AgreeWithThePublishedLlama31SwiftKv8b) {
  const ModelCosts costs = ComputeModelCosts(Llama8b(16, 1));
  EXPECT_EQ(costs.base_parameters, 8'030'261'248);
  EXPECT_EQ(costs.base_parameters + costs.swiftkv_parameters, 8'432'918'528);
  EXPECT_EQ(costs.base_kv_elements * 2, 128 << 10);
  EXPECT_NEAR(costs.skipped_prefill_share(), 0.481, 0.0005);
}

TEST(ModelCostsTest, GroupsSaveCache) {
  EXPECT_EQ(ComputeModelCosts(Llama8b(16, 4)).swiftkv_kv_elements * 2, 80 << 10);
}

TEST(ModelCostsTest, APlainModelSavesNothing) {
  const ModelCosts costs = ComputeModelCosts(Llama8b(32, 1));
  EXPECT_EQ(costs.swiftkv_parameters, 0);
  EXPECT_EQ(costs.teacher_only_parameters, 0);
  EXPECT_EQ(costs.skipped_prefill_share(), 0);
  EXPECT_EQ(costs.parameters(Mode::kTeacher), costs.parameters(Mode::kStudent));
}

// SmolLM2-135M: 134,515,008 parameters, tied.
TEST(ModelCostsTest, CountsTiedEmbeddingsOnceAndBiases) {
  ModelConfig config;
  config.vocab_size = 49152;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_hidden_layers = 30;
  config.num_attention_heads = 9;
  config.num_key_value_heads = 3;
  config.head_dim = 64;
  config.num_key_value_layers = 30;
  config.tie_word_embeddings = true;
  EXPECT_EQ(ComputeModelCosts(config).base_parameters, 134'515'008);
  config.qkv_bias = true;
  EXPECT_EQ(ComputeModelCosts(config).base_parameters, 134'515'008 + 30 * (576 + 2 * 192));
}

}  // namespace
}  // namespace swiftkv
