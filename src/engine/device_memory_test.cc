// What an engine takes of a device's memory: the work memory of its largest step first, then the cache.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/engine.h"
#include "model/fake_device.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

class DeviceMemoryTest : public testing::Test {
 protected:
  DeviceMemoryTest() {
    config_.num_key_value_layers = 3;
    weights_ = *RandomWeights(config_, 1, {.dtype = DType::kF32, .backend = &device_});
  }
  // What the weights leave free.
  void Leave(int64_t bytes) { device_.memory().SetLimit(device_.memory().allocated() + bytes); }
  Result<std::unique_ptr<Engine>> Create(const EngineOptions& options) const {
    return Engine::Create(weights_, Mode::kStudent, nullptr, options);
  }

  FakeDevice device_{kernels::DefaultBackend()};
  ModelConfig config_ = TinyConfig();
  Weights weights_;
};

TEST_F(DeviceMemoryTest, TheCacheLeavesRoomForTheLargestStep) {
  constexpr int64_t kFree = 2 << 20;
  Leave(kFree);
  const auto engine = Create({.kv_cache_memory = 0.85, .scheduler = {.max_num_batched_tokens = 256}});
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  // It takes its share all the same.
  EXPECT_GT((*engine)->cache().blocks() * kKvBlockTokens * (*engine)->cache().bytes_per_token(), kFree / 3);
  // Prompts that fill a step with tokens that skip layers, and one all of whose logits are wanted.
  std::vector<Request> requests;
  for (const TokenSequence& prompt : TinySequences(config_, 6, 200, 1)) {
    requests.push_back({.prompt_token_ids = prompt, .sampling = {.seed = 1, .max_tokens = 3}});
  }
  requests.push_back({.prompt_token_ids = requests[0].prompt_token_ids,
                      .sampling = {.seed = 1, .max_tokens = 1, .prompt_logprobs = 1}});
  const auto results = (*engine)->Generate(requests);
  ASSERT_TRUE(results.has_value()) << results.error().message;
  EXPECT_TRUE(device_.memory().intact());
}

TEST_F(DeviceMemoryTest, TooLittleForAStepIsToldBeforeItComes) {
  Leave(256 << 10);
  const auto engine = Create({.kv_cache_memory = 0.85, .scheduler = {.max_num_batched_tokens = 1024}});
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(engine.error().message.find("max_num_batched_tokens"), std::string::npos);
  // Where the cache holds few tokens, so does a step.
  const auto small = Create({.max_model_len = 32, .scheduler = {.max_num_batched_tokens = 1024}});
  EXPECT_TRUE(small.has_value()) << small.error().message;
}

}  // namespace
}  // namespace swiftkv
