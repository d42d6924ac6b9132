// The engine keeps to what a constraint allows, in every way of sampling and whatever else runs.
#include "engine/token_constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "engine/engine.h"
#include "engine/stub_model.h"

namespace swiftkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int32_t kEnd = 31;

// Tokens 2 k and 2 k + 1 after k tokens, `length` of them; from `may_end` tokens on the output may end.
class Steps final : public TokenConstraint {
 public:
  Steps(int length, int may_end, bool has_memory) : length_(length), may_end_(may_end), has_memory_(has_memory) {}
  bool FillMask(std::span<uint64_t> mask) override {
    if (taken_ < length_) mask[0] |= uint64_t{3} << (2 * taken_);
    return has_memory_ || taken_ < 2;
  }
  void Accept(int32_t token_id) override {
    if (token_id == kEnd) return;
    EXPECT_EQ(token_id / 2, taken_);
    ++taken_;
  }
  bool MayEnd() const override { return taken_ >= may_end_; }

 private:
  int length_;
  int may_end_;
  bool has_memory_;
  int taken_ = 0;
};

struct StepsFactory final : TokenConstraintFactory {
  int length = 6;
  int may_end = 6;
  bool has_memory = true;
  int64_t vocab = StubModel::kVocab;
  std::unique_ptr<TokenConstraint> New() const override { return std::make_unique<Steps>(length, may_end, has_memory); }
  int64_t vocab_size() const override { return vocab; }
};

Request Constrained(const StepsFactory& factory, SamplingParams sampling = {.temperature = 0}, int prompt = 5) {
  sampling.stop_token_ids = {kEnd};
  if (!sampling.max_tokens) sampling.max_tokens = 20;
  if (!sampling.seed) sampling.seed = 3;
  return {.prompt_token_ids = std::vector<int32_t>(static_cast<size_t>(prompt), 1),
          .sampling = sampling,
          .constraint = std::make_shared<StepsFactory>(factory)};
}

std::unique_ptr<Engine> MakeEngine(EngineOptions options = {.max_model_len = 256, .kv_cache_tokens = 4096}) {
  return *Engine::Create(std::make_unique<StubModel>(), nullptr, options);
}

std::vector<Completion> Answers(const Request& request) { return (*MakeEngine()->Generate({request}))[0].completions; }

// k-th token from the k-th pair, then the end token.
void ExpectSteps(const Completion& completion, size_t length) {
  ASSERT_EQ(completion.token_ids.size(), length + 1);
  for (size_t k = 0; k < length; ++k) EXPECT_EQ(completion.token_ids[k] / 2, static_cast<int32_t>(k));
  EXPECT_EQ(completion.token_ids.back(), kEnd);
  EXPECT_EQ(completion.finish_reason, FinishReason::kStop);
}

TEST(TokenConstraintTest, HoldsInEveryWayOfSampling) {
  ExpectSteps(Answers(Constrained({}))[0], 6);
  ExpectSteps(Answers(Constrained({}, {.temperature = 2}))[0], 6);
  ExpectSteps(Answers(Constrained({}, {.temperature = 1, .top_k = 1, .top_p = 0.1}))[0], 6);
  ExpectSteps(Answers(Constrained({}, {.temperature = 0, .logit_bias = {{9, 100.0F}, {kEnd, 100.0F}}}))[0], 6);
  ExpectSteps(Answers(Constrained({}, {.temperature = 0, .repetition_penalty = 2, .presence_penalty = 2}))[0], 6);
}

TEST(TokenConstraintTest, EndTokensComeWhereTheConstraintMayEnd) {
  const SamplingParams eager = {.temperature = 0, .logit_bias = {{kEnd, 100.0F}}};
  StepsFactory factory;
  factory.may_end = 2;
  ExpectSteps(Answers(Constrained(factory, eager))[0], 2);
  SamplingParams later = eager;
  later.min_tokens = 4;
  ExpectSteps(Answers(Constrained(factory, later))[0], 4);
  later.min_tokens = 15;  // more than the constraint has: its end comes first
  ExpectSteps(Answers(Constrained(factory, later))[0], 6);
  SamplingParams reluctant = {.temperature = 0, .logit_bias = {{kEnd, -100.0F}}};
  ExpectSteps(Answers(Constrained(factory, reluctant))[0], 6);
}

TEST(TokenConstraintTest, AStopTokenThatIsTextWaitsForMinTokens) {
  Request request = Constrained({}, {.temperature = 0, .min_tokens = 4, .logit_bias = {{2, 100.0F}, {8, 100.0F}}});
  request.sampling.stop_token_ids = {kEnd, 2, 8};
  const Completion completion = Answers(request)[0];
  ASSERT_EQ(completion.token_ids.size(), 5u);
  EXPECT_EQ(completion.token_ids[1], 3) << "2 would have ended it";
  EXPECT_EQ(completion.token_ids[4], 8);
}

TEST(TokenConstraintTest, MaxTokensCutsIt) {
  const Completion cut = Answers(Constrained({}, {.temperature = 0, .max_tokens = 3}))[0];
  EXPECT_EQ(cut.token_ids.size(), 3u);
  EXPECT_EQ(cut.finish_reason, FinishReason::kLength);
}

TEST(TokenConstraintTest, EachChoiceHasItsOwn) {
  const std::vector<Completion> choices = Answers(Constrained({}, {.n = 5, .temperature = 50}));
  ASSERT_EQ(choices.size(), 5u);
  for (const Completion& choice : choices) ExpectSteps(choice, 6);
}

// The same tokens alone as beside others in a cache that is too small for all, so that some are preempted.
TEST(TokenConstraintTest, FollowsFromTheRequestAlone) {
  StepsFactory factory;
  factory.length = 15;
  factory.may_end = 15;
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    requests.push_back(Constrained(factory, {.temperature = 1.5, .seed = static_cast<uint64_t>(i)}, 20 + 3 * i));
  }
  const auto engine = MakeEngine({.max_model_len = 96, .kv_cache_tokens = 160});
  const auto together = engine->Generate(requests);
  ASSERT_TRUE(together.has_value());
  EXPECT_GT(engine->stats().num_preemptions, 0);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ((*together)[i].completions[0].token_ids, Answers(requests[i])[0].token_ids);
    ExpectSteps((*together)[i].completions[0], 15);
  }
}

TEST(TokenConstraintTest, ABrokenModelDoesNotBreakIt) {
  const Sampler sampler({.temperature = 0}, 1, 0, {}, {kEnd});
  SamplerScratch scratch;
  std::vector<uint64_t> mask(2);
  Steps constraint(6, 6, true);
  ASSERT_TRUE(sampler.FillMask(&constraint, mask));
  EXPECT_EQ(sampler.Sample(std::vector<float>(70, NAN), &scratch, mask), 0);
  mask = {0, 1 << 5};
  EXPECT_EQ(sampler.Sample(std::vector<float>(70, -INFINITY), &scratch, mask), 69);
}

TEST(TokenConstraintTest, WithoutMemoryTheRequestFailsAndOthersGoOn) {
  StepsFactory poor;
  poor.has_memory = false;
  const auto engine = MakeEngine();
  const int64_t failing = *engine->Add(Constrained(poor, {.n = 3, .temperature = 0}));
  const int64_t other = *engine->Add(Constrained({}));
  std::map<int64_t, int> ends;
  while (engine->HasWork()) {
    for (const RequestOutput& output : engine->Step()) {
      if (!output.finished) continue;
      ++ends[output.request_id];
      EXPECT_EQ(output.error.has_value(), output.request_id == other);
      if (!output.error) {
        EXPECT_EQ(output.error.error().code, ErrorCode::kResourceExhausted);
      }
    }
  }
  EXPECT_THAT(ends, ElementsAre(std::pair(failing, 1), std::pair(other, 1)));
  EXPECT_EQ(engine->cache().free_blocks(), engine->cache().blocks());
}

TEST(TokenConstraintTest, RefusesWhatCannotEnd) {
  StepsFactory other_vocabulary;
  other_vocabulary.vocab = 64;
  EXPECT_THAT(MakeEngine()->Check(Constrained(other_vocabulary)).error().message, HasSubstr("for 64 tokens"));
  Request endless = Constrained({});
  endless.sampling.stop_token_ids = {};
  EXPECT_THAT(MakeEngine()->Check(endless).error().message, HasSubstr("needs an end-of-sequence token"));
  EXPECT_THAT(MakeEngine()->Check(Constrained({}, {.ignore_eos = true})).error().message, HasSubstr("ignore_eos"));
}

}  // namespace
}  // namespace swiftkv
