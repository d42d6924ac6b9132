// What forward refuses and what it shows to an observer. Its numbers are tested in tests/parity.
#include "model/forward.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "model/rope.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

using testing::HasSubstr;

// Four layers, n = 2, g = 2.
ModelConfig SmallConfig() {
  ModelConfig config = TinyConfig(Family::kLlama, /*layers=*/4);
  config.vocab_size = 50;
  config.max_position_embeddings = 40;
  config.num_key_value_layers = 2;
  config.key_value_group_size = 2;
  return config;
}

class ForwardTest : public testing::Test {
 protected:
  ForwardTest()
      : weights_(*RandomWeights(SmallConfig(), 1,
                                {.dtype = DType::kF32, .teacher = true, .backend = &kernels::RefBackend()})),
        forward_(weights_, Mode::kStudent),
        cache_(*KvCache::Create(forward_.cache_layout(), 4)) {}

  // Twelve tokens of one sequence in blocks 0 to 2.
  Step GoodStep() const {
    Step step;
    step.token_ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    step.chunks = {{.token_begin = 0, .tokens = 12, .position = 0, .block_table = table_}};
    step.logit_rows = {3, 11};
    return step;
  }
  void ExpectRefused(const Step& step, const std::string& message) {
    const Status status = forward_.Run(step, &cache_);
    ASSERT_FALSE(status.has_value()) << message;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidInput);
    EXPECT_THAT(status.error().message, HasSubstr(message));
  }

  const std::vector<int32_t> table_ = {0, 1, 2};
  Weights weights_;
  Forward forward_;
  KvCache cache_;
};

TEST_F(ForwardTest, RefusesTokensOutsideOfTheVocabulary) {
  Step step = GoodStep();
  ASSERT_TRUE(forward_.Run(step, &cache_).has_value());
  for (const int32_t id : {-1, 50}) {
    step.token_ids[5] = id;
    ExpectRefused(step, "outside of the vocabulary of 50");
  }
  ExpectRefused({}, "0 tokens");
}

TEST_F(ForwardTest, RefusesACacheTypeThatTheBackendHasNot) {
  Forward forward(weights_, Mode::kStudent, DType::kF8E4M3);
  KvCache cache = *KvCache::Create(forward.cache_layout(), 4);
  const Status status = forward.Run(GoodStep(), &cache);
  ASSERT_FALSE(status.has_value());
  EXPECT_THAT(status.error().message, HasSubstr("F8_E4M3"));
}

TEST_F(ForwardTest, RefusesPositionsAndBlocksOutOfRange) {
  Step step = GoodStep();
  step.chunks[0].position = 28;
  ASSERT_TRUE(forward_.Run(step, &cache_).has_value());
  step.chunks[0].position = 29;
  ExpectRefused(step, "positions 29 to 40");
  step.chunks[0].position = -1;
  ExpectRefused(step, "positions -1");
  step.chunks[0].position = 2147483647;
  ExpectRefused(step, "the model has 40");

  const std::vector<int32_t> short_table = {0};
  step.chunks[0] = {.token_begin = 0, .tokens = 12, .position = 5, .block_table = short_table};
  ExpectRefused(step, "a block table of 1 blocks for 17 tokens");
  for (const std::vector<int32_t>& table : {std::vector<int32_t>{4}, {-1}}) {
    step.chunks[0] = {.token_begin = 0, .tokens = 12, .position = 0, .block_table = table};
    ExpectRefused(step, "in a block table, the cache has 4");
  }
}

TEST_F(ForwardTest, RefusesChunksThatDoNotCoverTheTokens) {
  Step step = GoodStep();
  step.chunks[0].tokens = 11;
  ExpectRefused(step, "cover 11 of 12 tokens");
  step.chunks[0].tokens = 13;
  ExpectRefused(step, "a chunk of 13 tokens");
  step.chunks[0] = {.token_begin = 1, .tokens = 11, .position = 0, .block_table = table_};
  ExpectRefused(step, "from token 1");
  step.chunks.clear();
  ExpectRefused(step, "cover 0 of 12");
}

TEST_F(ForwardTest, RefusesLogitRowsThatDoNotAscend) {
  Step step = GoodStep();
  for (const std::vector<int32_t>& rows : {std::vector<int32_t>{-1}, {12}, {3, 3}, {5, 4}}) {
    step.logit_rows = rows;
    ExpectRefused(step, "rows must ascend");
  }
}

TEST_F(ForwardTest, RefusesACacheOfAnotherModeAndAModeNotLoaded) {
  Forward teacher(weights_, Mode::kTeacher);
  EXPECT_EQ(forward_.cache_layout().groups, 3);
  EXPECT_EQ(teacher.cache_layout().groups, 4);
  EXPECT_FALSE(teacher.Run(GoodStep(), &cache_).has_value());
  Weights student = *RandomWeights(SmallConfig(), 1, {.backend = &kernels::RefBackend()});
  Forward unloaded(student, Mode::kTeacher);
  auto cache = KvCache::Create(unloaded.cache_layout(), 4);
  EXPECT_FALSE(unloaded.Run(GoodStep(), &*cache).has_value());
}

class Recorder : public ForwardObserver {
 public:
  void LayerInput(int64_t layer, std::span<const float> hidden) override { hidden_rows[layer] = hidden.size() / 32; }
  void Projections(int64_t layer, std::span<const float> q, std::span<const float> k,
                   std::span<const float> v) override {
    q_rows[layer] += q.size() / 32;
    k_rows[layer] += k.size() / 16;
    v_rows[layer] += v.size() / 16;
    if (layer == 0) first_k.assign(k.begin(), k.end());
  }
  void GemmInput(const kernels::PackedMatrix& matrix, const void* /*x*/, int64_t rows) override {
    products[&matrix].push_back(rows);
  }

  using Rows = std::map<int64_t, size_t>;
  Rows hidden_rows, q_rows, k_rows, v_rows;
  std::vector<float> first_k;
  std::map<const kernels::PackedMatrix*, std::vector<int64_t>> products;  // rows of each
};

TEST_F(ForwardTest, ShowsAnObserverWhatWasComputed) {
  Recorder student;
  ASSERT_TRUE(forward_.Run(GoodStep(), &cache_, &student).has_value());
  EXPECT_EQ(student.hidden_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 12}, {3, 2}, {4, 2}}));
  EXPECT_EQ(student.q_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 2}, {3, 2}}));
  EXPECT_EQ(student.k_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 12}, {3, 0}}));
  EXPECT_EQ(student.v_rows, student.k_rows);

  Forward forward(weights_, Mode::kTeacher);
  auto cache = KvCache::Create(forward.cache_layout(), 4);
  Recorder teacher;
  ASSERT_TRUE(forward.Run(GoodStep(), &*cache, &teacher).has_value());
  EXPECT_EQ(teacher.hidden_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 12}, {3, 12}, {4, 2}}));
  EXPECT_EQ(teacher.q_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 12}, {3, 2}}));
  EXPECT_EQ(teacher.k_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 12}, {3, 12}}));

  // Before RoPE: the same token at two positions has the same K in layer 0.
  Step repeated = GoodStep();
  repeated.token_ids[7] = repeated.token_ids[0];
  ASSERT_TRUE(forward.Run(repeated, &*cache, &teacher).has_value());
  const auto k = [&](int row) {
    return std::vector<float>(&teacher.first_k[row * 16], &teacher.first_k[row * 16] + 16);
  };
  EXPECT_EQ(k(0), k(7));
  EXPECT_NE(k(0), k(1));
}

TEST_F(ForwardTest, APromptsChunkStopsAfterOneProductForAllLaterKv) {
  ModelConfig config = SmallConfig();
  config.key_value_group_size = 1;  // K/V of two later layers
  const Weights weights = *RandomWeights(config, 1, {.dtype = DType::kF32, .backend = &kernels::RefBackend()});
  Forward forward(weights, Mode::kStudent);
  auto cache = KvCache::Create(forward.cache_layout(), 4);
  Step chunk = GoodStep();
  chunk.logit_rows.clear();
  Recorder seen;
  ASSERT_TRUE(forward.Run(chunk, &*cache, &seen).has_value());
  EXPECT_EQ(seen.hidden_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 12}}));
  EXPECT_EQ(seen.q_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 0}, {3, 0}}));
  EXPECT_EQ(seen.k_rows, (Recorder::Rows{{0, 12}, {1, 12}, {2, 12}, {3, 12}}));
  EXPECT_EQ(seen.v_rows, seen.k_rows);

  decltype(seen.products) expected = {{&weights.later.kv_proj, {12}}};
  for (size_t layer = 0; layer < 2; ++layer) {
    const LayerWeights& w = weights.layers[layer];
    for (const auto* matrix : {&w.qkv_proj, &w.o_proj, &w.gate_up_proj, &w.down_proj}) expected[matrix] = {12};
  }
  EXPECT_EQ(seen.products, expected);
}

TEST(CacheLayoutTest, AcrossKvAndInt8SaveFiveEighths) {
  ModelConfig config = TinyConfig(Family::kLlama, /*layers=*/30);  // SmolLM2-135M's cache
  config.num_key_value_layers = 15;
  config.key_value_group_size = 3;
  const int64_t kv_heads = 3, head_dim = 64;
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    const int64_t base = 30 * backend->KvBlockBytes(kv_heads, head_dim, DType::kBF16);
    const int64_t small = config.kv_groups() * backend->KvBlockBytes(kv_heads, head_dim, DType::kI8);
    EXPECT_LE(8 * small, 3 * base) << backend->name();
  }
}

TEST(RopeTableTest, GrowsAndKeepsWhatItHas) {
  ModelConfig config = SmallConfig();
  config.max_position_embeddings = 5000;
  RopeTable grown(config);
  ASSERT_TRUE(grown.Grow(3).has_value());
  const float before = grown.sin()[2 * 4];
  ASSERT_TRUE(grown.Grow(5000).has_value());
  RopeTable once(config);
  ASSERT_TRUE(once.Grow(5000).has_value());
  EXPECT_EQ(grown.sin()[2 * 4], before);
  for (size_t i = 0; i < 5000 * 4; ++i) ASSERT_EQ(grown.cos()[i], once.cos()[i]);
}

}  // namespace
}  // namespace swiftkv
