#include "model/gguf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Golden(const std::string& name) { return SWIFTKV_SOURCE_DIR "/tests/golden/checkpoint/" + name; }

TEST(GgufConfigTest, ReadsTheConfigOfAFile) {
  auto gguf = GgufFile::Open(Golden("tiny.gguf"));
  ASSERT_TRUE(gguf) << gguf.error().message;
  const auto config = ParseGgufConfig(**gguf);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->family, Family::kLlama);
  EXPECT_EQ(config->vocab_size, 6);
  EXPECT_EQ(config->hidden_size, 32);
  EXPECT_EQ(config->intermediate_size, 64);
  EXPECT_EQ(config->num_hidden_layers, 1);
  EXPECT_EQ(config->num_attention_heads, 4);
  EXPECT_EQ(config->num_key_value_heads, 2);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->max_position_embeddings, 131072);
  EXPECT_FLOAT_EQ(config->rms_norm_eps, 1e-5);
  EXPECT_TRUE(config->tie_word_embeddings);  // there is no output.weight
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_FALSE(config->o_bias);
  EXPECT_EQ(config->rope.rope_type, RopeType::kLlama3);
  EXPECT_EQ(config->rope.rope_theta, 500000.0);
  EXPECT_EQ(config->rope.factor, 32.0);
  EXPECT_EQ(config->rope.original_max_position_embeddings, 8192);
  EXPECT_THAT(config->eos_token_id, ElementsAre(5));
  EXPECT_EQ(config->bos_token_id, 4);
}

TEST(GgufConfigTest, ReadsYarnAndNamesOfControlTokens) {
  auto gguf = GgufFile::Open(SWIFTKV_SOURCE_DIR "/tests/fuzz/corpus/gguf/qwen3");  // tools/make_fuzz_corpus.py
  ASSERT_TRUE(gguf) << gguf.error().message;
  const auto config = ParseGgufConfig(**gguf);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->family, Family::kQwen3);
  EXPECT_TRUE(config->qk_norm);
  EXPECT_EQ(config->rope.rope_type, RopeType::kYarn);
  EXPECT_EQ(config->rope.factor, 4.0);
  EXPECT_EQ(config->rope.original_max_position_embeddings, 32768);
  EXPECT_EQ(config->rope.beta_fast, 16.0);
  EXPECT_EQ(config->rope.beta_slow, 1.0);
  EXPECT_FALSE(config->rope.attention_factor);
  EXPECT_THAT(config->eos_token_id, ElementsAre(0, 1));  // the file's own, then <|im_end|>
  EXPECT_EQ(config->bos_token_id, std::nullopt);
  EXPECT_EQ(config->dtype, DType::kF16);
}

TEST(GgufConfigTest, FindsLlama3ParametersFromTheirFactors) {
  std::ifstream file(Golden("configs.json"));
  const Json golden = Json::parse(file);
  ASSERT_GE(golden["rope_freqs"].size(), 4u);
  for (const Json& expected : golden["rope_freqs"]) {
    const auto factors = expected["factors"].get<std::vector<float>>();
    const auto rope = FitLlama3Rope(factors, expected["rope_theta"]);
    ASSERT_TRUE(rope) << expected;
    EXPECT_EQ(rope->rope_type, RopeType::kLlama3);
    EXPECT_EQ(rope->factor, expected["factor"]);
    EXPECT_EQ(rope->low_freq_factor, expected["low_freq_factor"]);
    EXPECT_EQ(rope->high_freq_factor, expected["high_freq_factor"]);
    EXPECT_EQ(rope->original_max_position_embeddings, expected["original_max_position_embeddings"]);
  }
}

TEST(GgufConfigTest, RefusesFactorsOfOtherFormulas) {
  const std::vector<std::vector<float>> others = {{},           {1, 2, 3, 4},   {1, 8, 1, 8},
                                                  {0, 0, 0, 8}, {1, 1, 1, NAN}, {NAN, 1, 1, 8},
                                                  {1, 1, 1, 0}, {1, 1, 1, -8},  {1, INFINITY}};
  for (const std::vector<float>& factors : others) {
    EXPECT_FALSE(FitLlama3Rope(factors, 10000.0)) << testing::PrintToString(factors);
  }
  const std::vector<float> ones(32, 1.0f);
  EXPECT_EQ(FitLlama3Rope(ones, 10000.0)->rope_type, RopeType::kDefault);
}

}  // namespace
}  // namespace swiftkv
