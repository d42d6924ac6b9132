// The engine over a small random model: what comes out follows from the request alone.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/stub_model.h"
#include "model/tiny_model.h"
#include "model/weights.h"

namespace swiftkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int32_t kVocab = 64;
constexpr int32_t kEos = 63;

// Every id is one printable character; kEos is special.
std::unique_ptr<Tokenizer> CharacterTokenizer() {
  nlohmann::json vocab;
  vocab["\u0120"] = 0;  // byte-level BPE's spelling of a space
  for (int32_t id = 1; id < kEos; ++id) vocab[std::string(1, static_cast<char>(' ' + id))] = id;
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json json = {{"version", "1.0"},
                               {"added_tokens",
                                {{{"id", kEos},
                                  {"content", "<|end|>"},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"special", true}}}},
                               {"normalizer", nullptr},
                               {"pre_tokenizer", byte_level},
                               {"post_processor", nullptr},
                               {"decoder", byte_level},
                               {"model",
                                {{"type", "BPE"},
                                 {"dropout", nullptr},
                                 {"unk_token", nullptr},
                                 {"vocab", vocab},
                                 {"merges", nlohmann::json::array()}}}};
  auto tokenizer = Tokenizer::FromJson(json.dump(), "test");
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  return std::move(*tokenizer);
}

ModelConfig SmallConfig() {
  ModelConfig config = TinyConfig(Family::kLlama, /*layers=*/4);
  config.vocab_size = kVocab;
  config.max_position_embeddings = 160;
  config.num_key_value_layers = 2;
  config.key_value_group_size = 2;
  config.eos_token_id = {kEos};
  return config;
}

class EngineTest : public testing::Test {
 protected:
  EngineTest() : weights_(*RandomWeights(SmallConfig(), 3, {.dtype = DType::kF32, .teacher = true})) {}

  std::unique_ptr<Engine> MakeEngine(const EngineOptions& options = {}, Mode mode = Mode::kStudent) {
    auto engine = Engine::Create(weights_, mode, tokenizer_.get(), options);
    EXPECT_TRUE(engine.has_value());
    return std::move(*engine);
  }
  GenerateResult Run(const Request& request, const EngineOptions& options = {}) {
    const auto engine = MakeEngine(options);
    auto results = engine->Generate({request});
    EXPECT_TRUE(results.has_value()) << results.error().message;
    EXPECT_EQ(engine->cache().free_blocks(), engine->cache().blocks()) << "no block is lost";
    return results ? std::move((*results)[0]) : GenerateResult{.completions = {{}}};
  }
  std::string Refusal(const Request& request, const EngineOptions& options = {}) {
    const auto id = MakeEngine(options)->Add(request);
    EXPECT_FALSE(id.has_value());
    if (id) return "";
    EXPECT_EQ(id.error().code, ErrorCode::kInvalidInput);
    return id.error().message;
  }
  // Logits of every row of one sequence, by Forward alone.
  std::vector<std::vector<float>> Logits(const std::vector<int32_t>& tokens) {
    Forward forward(weights_, Mode::kStudent);
    KvCache cache = *KvCache::Create(forward.cache_layout(), 10);
    const std::vector<int32_t> table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    Step step;
    step.token_ids = tokens;
    step.chunks = {{.tokens = static_cast<int64_t>(tokens.size()), .block_table = table}};
    for (size_t i = 0; i < tokens.size(); ++i) step.logit_rows.push_back(static_cast<int32_t>(i));
    EXPECT_TRUE(forward.Run(step, &cache).has_value());
    std::vector<std::vector<float>> rows(tokens.size(), std::vector<float>(kVocab));
    for (size_t i = 0; i < tokens.size(); ++i) forward.Logits(static_cast<int64_t>(i), 1, rows[i].data());
    return rows;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = CharacterTokenizer();
  Weights weights_;
};

std::vector<int32_t> Prompt(int length, int seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back((i * 7 + seed * 13 + i * i) % 60);
  return tokens;
}

void ExpectSame(const PositionLogprobs& a, const PositionLogprobs& b) {
  EXPECT_EQ(a.token.token_id, b.token.token_id);
  EXPECT_EQ(a.token.logprob, b.token.logprob);
  EXPECT_EQ(a.token.rank, b.token.rank);
  ASSERT_EQ(a.top.size(), b.top.size());
  for (size_t i = 0; i < a.top.size(); ++i) EXPECT_EQ(a.top[i].logprob, b.top[i].logprob);
}

// To the last bit.
void ExpectSame(const GenerateResult& a, const GenerateResult& b) {
  ASSERT_EQ(a.completions.size(), b.completions.size());
  for (size_t i = 0; i < a.completions.size(); ++i) {
    const Completion& x = a.completions[i];
    const Completion& y = b.completions[i];
    EXPECT_EQ(x.token_ids, y.token_ids);
    EXPECT_EQ(x.text, y.text);
    EXPECT_EQ(x.finish_reason, y.finish_reason);
    EXPECT_EQ(x.stop_reason, y.stop_reason);
    ASSERT_EQ(x.logprobs.size(), y.logprobs.size());
    for (size_t j = 0; j < x.logprobs.size(); ++j) ExpectSame(x.logprobs[j], y.logprobs[j]);
  }
  ASSERT_EQ(a.prompt_logprobs.size(), b.prompt_logprobs.size());
  for (size_t j = 0; j < a.prompt_logprobs.size(); ++j) ExpectSame(a.prompt_logprobs[j], b.prompt_logprobs[j]);
}

TEST_F(EngineTest, GreedyFollowsTheArgmaxOfForward) {
  const GenerateResult result =
      Run({.prompt_token_ids = Prompt(20, 1), .sampling = {.temperature = 0, .max_tokens = 12, .ignore_eos = true}});
  std::vector<int32_t> tokens = Prompt(20, 1);
  for (const int32_t token : result.completions[0].token_ids) {
    const std::vector<float> last = Logits(tokens).back();
    EXPECT_EQ(token, std::max_element(last.begin(), last.end()) - last.begin());
    tokens.push_back(token);
  }
  EXPECT_EQ(tokens.size(), 32u);
  EXPECT_EQ(result.completions[0].finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.completions[0].text, tokenizer_->Decode(result.completions[0].token_ids, {}));
}

TEST_F(EngineTest, ResultsDoNotDependOnTheBatchTheChunksOrTheCache) {
  std::vector<Request> requests;
  for (int i = 0; i < 7; ++i) {
    Request request{.prompt_token_ids = Prompt(5 + 11 * i, i),
                    .sampling = {.temperature = i % 3 * 0.7, .top_p = 0.9, .seed = i, .max_tokens = 20 - i}};
    if (i % 2 == 0) request.sampling.repetition_penalty = 1.2;
    if (i == 3) request.sampling.n = 3;
    if (i == 4) request.sampling.prompt_logprobs = 2;
    request.sampling.logprobs = 3;
    requests.push_back(request);
  }
  std::vector<GenerateResult> alone;
  for (const Request& request : requests) alone.push_back(Run(request, {.kv_cache_tokens = 480}));
  // An INT8 cache quantizes each token by itself, so the promise holds there too, with answers of its own.
  std::vector<GenerateResult> alone_int8;
  for (const Request& request : requests) {
    alone_int8.push_back(Run(request, {.kv_cache_tokens = 480, .kv_cache_dtype = DType::kI8}));
  }
  for (const int64_t budget : {1, 16, 1000}) {
    const auto engine = MakeEngine({.kv_cache_tokens = 480,
                                    .kv_cache_dtype = DType::kI8,
                                    .scheduler = {.max_num_batched_tokens = budget, .max_num_seqs = 5}});
    EXPECT_LT(engine->cache().bytes_per_token(), MakeEngine()->cache().bytes_per_token());
    const auto together = engine->Generate(requests);
    ASSERT_TRUE(together.has_value());
    for (size_t i = 0; i < requests.size(); ++i) ExpectSame((*together)[i], alone_int8[i]);
  }
  for (const int64_t budget : {1, 7, 16, 64, 1000}) {
    for (const int64_t cache_tokens : {480, 4000}) {
      const auto engine = MakeEngine(
          {.kv_cache_tokens = cache_tokens, .scheduler = {.max_num_batched_tokens = budget, .max_num_seqs = 5}});
      const auto together = engine->Generate(requests);
      ASSERT_TRUE(together.has_value());
      for (size_t i = 0; i < requests.size(); ++i) ExpectSame((*together)[i], alone[i]);
      EXPECT_EQ(engine->cache().free_blocks(), engine->cache().blocks());
    }
  }
}

TEST_F(EngineTest, PromptLogprobsAreThoseOfEveryRow) {
  const std::vector<int32_t> prompt = Prompt(40, 2);
  const auto rows = Logits(prompt);
  for (const int64_t begin : {1, 17, 39}) {
    const GenerateResult result =
        Run({.prompt_token_ids = prompt,
             .sampling = {.max_tokens = 0, .prompt_logprobs = 1, .prompt_logprobs_begin = begin}});
    ASSERT_EQ(result.prompt_logprobs.size(), static_cast<size_t>(40 - begin));
    EXPECT_TRUE(result.completions[0].token_ids.empty());
    EXPECT_EQ(result.completions[0].finish_reason, FinishReason::kLength);
    for (size_t i = 0; i < result.prompt_logprobs.size(); ++i) {
      const auto position = static_cast<size_t>(begin) + i;
      const std::vector<float>& logits = rows[position - 1];
      double sum = 0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
      const TokenLogprob& token = result.prompt_logprobs[i].token;
      EXPECT_EQ(token.token_id, prompt[position]);
      EXPECT_NEAR(token.logprob, logits[static_cast<size_t>(prompt[position])] - std::log(sum), 1e-4);
      EXPECT_EQ(result.prompt_logprobs[i].top[0].token_id,
                std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
  }
}

TEST_F(EngineTest, AnInt8CacheStaysNearTheExactOne) {
  const Request request{.prompt_token_ids = Prompt(100, 2), .sampling = {.max_tokens = 0, .prompt_logprobs = 0}};
  const GenerateResult exact = Run(request);
  const GenerateResult int8 = Run(request, {.kv_cache_dtype = DType::kI8});
  ASSERT_EQ(int8.prompt_logprobs.size(), exact.prompt_logprobs.size());
  for (size_t i = 0; i < exact.prompt_logprobs.size(); ++i) {
    EXPECT_NEAR(int8.prompt_logprobs[i].token.logprob, exact.prompt_logprobs[i].token.logprob, 0.05);
  }
}

TEST_F(EngineTest, ChoicesShareThePromptAndDrawApart) {
  const Request one{.prompt_token_ids = Prompt(37, 1), .sampling = {.seed = 5, .max_tokens = 10, .ignore_eos = true}};
  Request three = one;
  three.sampling.n = 3;
  const GenerateResult result = Run(three, {.kv_cache_tokens = 480});
  ASSERT_EQ(result.completions.size(), 3u);
  EXPECT_EQ(result.completions[0].token_ids, Run(one).completions[0].token_ids);
  EXPECT_NE(result.completions[0].token_ids, result.completions[1].token_ids);
  EXPECT_NE(result.completions[1].token_ids, result.completions[2].token_ids);
  for (const Completion& completion : result.completions) EXPECT_EQ(completion.token_ids.size(), 10u);
}

TEST_F(EngineTest, ASeedOfTheEngineMakesRequestsWithoutOneDrawAgain) {
  const Request request{.prompt_token_ids = Prompt(37, 1), .sampling = {.max_tokens = 10, .ignore_eos = true}};
  const auto run_two = [&](const EngineOptions& options) {
    auto results = MakeEngine(options)->Generate({request, request});
    EXPECT_TRUE(results.has_value());
    return std::pair((*results)[0].completions[0].token_ids, (*results)[1].completions[0].token_ids);
  };
  const auto [first, second] = run_two({.seed = 5});
  EXPECT_NE(first, second) << "each request has draws of its own";
  EXPECT_EQ(std::pair(first, second), run_two({.seed = 5}));
  for (const uint64_t neighbour : {4, 6}) {
    const auto others = run_two({.seed = neighbour});
    EXPECT_NE(first, others.first);
    EXPECT_NE(first, others.second) << "of another seed";
    EXPECT_NE(second, others.first) << "of another seed";
  }
  EXPECT_NE(first, run_two({}).first) << "a new seed each time";
}

TEST_F(EngineTest, APrefixIsNotComputedAgain) {
  const auto engine = MakeEngine();
  const Request first{.prompt_token_ids = Prompt(40, 1),
                      .sampling = {.temperature = 0, .max_tokens = 9, .ignore_eos = true}};
  const std::vector<int32_t> answer = (*engine->Generate({first}))[0].completions[0].token_ids;
  Request second = first;
  second.prompt_token_ids.insert(second.prompt_token_ids.end(), answer.begin(), answer.end());
  second.prompt_token_ids.push_back(5);
  ASSERT_TRUE(engine->Add(second).has_value());
  const auto outputs = engine->Step();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].cached_tokens, 48) << "40 + 9 - 1 computed tokens are three whole blocks";
  EXPECT_EQ(outputs[0].token_ids[0], Run(second).completions[0].token_ids[0]);
  EXPECT_EQ(engine->stats().prefix_cache_hits, 48);
  EXPECT_EQ(engine->stats().prefix_cache_queries, 40 + 50);

  Request scored = second;
  scored.sampling.prompt_logprobs = 0;
  engine->Abort(2);
  const auto result = engine->Generate({scored});
  ASSERT_TRUE(result.has_value());
  ExpectSame((*result)[0], Run(scored));
}

TEST_F(EngineTest, ResultsDoNotDependOnPreemption) {
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    Request request{.prompt_token_ids = Prompt(20 + 13 * i, i),
                    .sampling = {.temperature = 0.8, .seed = i, .max_tokens = 40, .ignore_eos = true}};
    if (i == 2) request.sampling.n = 3;
    if (i == 4) request.sampling.prompt_logprobs = 1;
    requests.push_back(request);
  }
  std::vector<GenerateResult> alone;
  for (const Request& request : requests) alone.push_back(Run(request));
  for (const bool caching : {true, false}) {
    const auto engine = MakeEngine(
        {.kv_cache_tokens = 160, .scheduler = {.max_num_batched_tokens = 24, .enable_prefix_caching = caching}});
    const auto together = engine->Generate(requests);
    ASSERT_TRUE(together.has_value()) << together.error().message;
    EXPECT_GT(engine->stats().num_preemptions, 0);
    for (size_t i = 0; i < requests.size(); ++i) ExpectSame((*together)[i], alone[i]);
    EXPECT_EQ(engine->cache().free_blocks(), engine->cache().blocks());
  }
}

TEST_F(EngineTest, APreemptedAnswersPromptIsNotScoredAgain) {
  const auto engine = MakeEngine({.scheduler = {.max_num_seqs = 1}});
  Request scored{.prompt_token_ids = Prompt(40, 1), .sampling = {.max_tokens = 6, .ignore_eos = true}, .priority = 1};
  scored.sampling.prompt_logprobs = 0;
  const Request urgent{.prompt_token_ids = Prompt(4, 2), .sampling = {.max_tokens = 1, .ignore_eos = true}};
  ASSERT_TRUE(engine->Add(scored).has_value());
  engine->Step();
  for (int preemption = 1; preemption <= 2; ++preemption) {
    ASSERT_TRUE(engine->Add(urgent).has_value());
    engine->Step();  // the urgent request
    const int64_t before = engine->stats().computed_tokens;
    engine->Step();  // the scored one and its answer so far again, but for two whole blocks
    EXPECT_EQ(engine->stats().num_preemptions, preemption);
    EXPECT_EQ(engine->stats().computed_tokens - before, 40 + preemption - 32);
  }
}

// Of the stub's arithmetic a skipping token has half; a sixteenth of the other half is counted, too.
TEST(EngineBudgetTest, ATokenThatSkipsLayersCostsMoreThanItsArithmetic) {
  const auto engine = *Engine::Create(std::make_unique<StubModel>(), nullptr,
                                      {.kv_cache_tokens = 2048, .scheduler = {.max_num_batched_tokens = 272}});
  ASSERT_TRUE(
      engine->Add({.prompt_token_ids = std::vector<int32_t>(1000, 1), .sampling = {.max_tokens = 1}}).has_value());
  engine->Step();
  EXPECT_EQ(engine->stats().computed_tokens, 512);
}

TEST_F(EngineTest, ABetterPriorityGoesFirst) {
  const auto engine = MakeEngine({.scheduler = {.max_num_seqs = 1}});
  Request request{.prompt_token_ids = Prompt(40, 1), .sampling = {.max_tokens = 4, .ignore_eos = true}};
  std::vector<int64_t> ids;
  for (const int32_t priority : {1, 2, 0}) {
    request.priority = priority;
    ids.push_back(*engine->Add(request));
    engine->Step();
  }
  std::vector<int64_t> ended;
  while (engine->HasWork()) {
    for (const RequestOutput& output : engine->Step()) {
      if (output.finished) ended.push_back(output.request_id);
    }
  }
  EXPECT_THAT(ended, ElementsAre(ids[2], ids[0], ids[1]));
}

TEST_F(EngineTest, ADeadlineEndsARequestWithASentence) {
  RequestTimes::Time now{};
  EngineOptions options;
  options.now = [&now] { return now; };
  const auto engine = MakeEngine(options);
  const Request request{.prompt_token_ids = Prompt(20, 1), .sampling = {.ignore_eos = true}, .timeout_s = 2};
  const int64_t id = *engine->Add(request);
  EXPECT_FALSE(engine->Step().at(0).finished);
  now += std::chrono::seconds(2);
  const auto outputs = engine->Step();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].request_id, id);
  EXPECT_TRUE(outputs[0].finished);
  ASSERT_FALSE(outputs[0].error.has_value());
  EXPECT_THAT(outputs[0].error.error().message, HasSubstr("time limit"));
  EXPECT_FALSE(engine->HasWork());
  EXPECT_EQ(engine->cache().free_blocks(), engine->cache().blocks());
}

TEST_F(EngineTest, EndsAtStopStringsAndTokens) {
  const Request plain{
      .prompt_token_ids = Prompt(20, 4),
      .sampling = {
          .temperature = 0.9, .seed = 11, .max_tokens = 40, .ignore_eos = true, .logit_bias = {{kEos, -100.0f}}}};
  const Completion whole = Run(plain).completions[0];
  ASSERT_EQ(whole.text.size(), 40u) << "one character a token";

  Request request = plain;
  request.sampling.stop = {whole.text.substr(10, 3), "not in there"};
  Completion stopped = Run(request).completions[0];
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(request.sampling.stop[0])));
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.stop_reason, request.sampling.stop[0]);
  EXPECT_LE(stopped.token_ids.size(), 13u);

  request.sampling.min_tokens = 14;
  stopped = Run(request).completions[0];
  EXPECT_GE(stopped.token_ids.size(), 14u);

  request.sampling.stop = {whole.text.substr(10, 6)};  // begins before the 14th token and ends after it
  ASSERT_EQ(whole.text.find(request.sampling.stop[0]), 10u);
  stopped = Run(request).completions[0];
  EXPECT_EQ(stopped.text, whole.text.substr(0, 10));
  EXPECT_EQ(stopped.token_ids.size(), 16u);

  request = plain;
  request.sampling.stop_token_ids = {whole.token_ids[6]};
  stopped = Run(request).completions[0];
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.token_ids.back(), whole.token_ids[6]);
  EXPECT_EQ(stopped.text.size() + 1, stopped.token_ids.size()) << "the end token is no text";
}

TEST_F(EngineTest, EndOfSequenceEndsUnlessIgnored) {
  Request request{.prompt_token_ids = Prompt(20, 4), .sampling = {.temperature = 0, .max_tokens = 8}};
  request.sampling.logit_bias = {{kEos, 100.0f}};
  Completion completion = Run(request).completions[0];
  EXPECT_THAT(completion.token_ids, ElementsAre(kEos));
  EXPECT_EQ(completion.text, "");
  EXPECT_EQ(completion.finish_reason, FinishReason::kStop);

  request.sampling.min_tokens = 3;
  completion = Run(request).completions[0];
  EXPECT_EQ(completion.token_ids.size(), 4u);
  EXPECT_EQ(completion.token_ids.back(), kEos);

  request.sampling.min_tokens = 0;
  request.sampling.ignore_eos = true;
  completion = Run(request).completions[0];
  EXPECT_EQ(completion.token_ids, std::vector<int32_t>(8, kEos));
  EXPECT_EQ(completion.finish_reason, FinishReason::kLength);
}

TEST_F(EngineTest, TheContextEndsTheOutput) {
  const Request request{.prompt_token_ids = Prompt(150, 1), .sampling = {.temperature = 0, .ignore_eos = true}};
  EXPECT_EQ(Run(request).completions[0].token_ids.size(), 10u);
  EXPECT_EQ(Run(request, {.max_model_len = 151}).completions[0].token_ids.size(), 1u);
}

TEST_F(EngineTest, AnyMaxTokensIsCutToTheContext) {
  const auto whole = Run({.prompt_token_ids = Prompt(20, 4), .sampling = {.temperature = 0, .ignore_eos = true}});
  const auto most =
      Run({.prompt_token_ids = Prompt(20, 4),
           .sampling = {.temperature = 0, .max_tokens = std::numeric_limits<int64_t>::max(), .ignore_eos = true}});
  EXPECT_FALSE(most.completions[0].token_ids.empty());
  EXPECT_EQ(most.completions[0].token_ids, whole.completions[0].token_ids);
}

TEST_F(EngineTest, RefusesWhatItCannotServe) {
  EXPECT_THAT(Refusal({}), HasSubstr("prompt is empty"));
  EXPECT_THAT(Refusal({.prompt_token_ids = {64}}), HasSubstr("token 64; the vocabulary has 0 to 63"));
  EXPECT_THAT(Refusal({.prompt_token_ids = {-1}}), HasSubstr("token -1"));
  EXPECT_THAT(Refusal({.prompt_token_ids = Prompt(160, 1)}), HasSubstr("160 tokens; the context holds 160"));
  EXPECT_THAT(Refusal({.prompt_token_ids = Prompt(40, 1), .sampling = {.max_tokens = 60}}, {.kv_cache_tokens = 64}),
              HasSubstr("the cache holds 64"));
  EXPECT_THAT(Refusal({.prompt_token_ids = {1}, .sampling = {.top_p = 0}}), HasSubstr("top_p"));
  EXPECT_FALSE(Engine::Create(weights_, Mode::kStudent, tokenizer_.get(), {.max_model_len = 161}).has_value());
  EXPECT_FALSE(Engine::Create(weights_, Mode::kStudent, tokenizer_.get(), {.max_model_len = -1}).has_value());
}

TEST_F(EngineTest, AbortFreesItsBlocks) {
  const auto engine = MakeEngine();
  const auto first = engine->Add({.prompt_token_ids = Prompt(40, 1), .sampling = {.ignore_eos = true}});
  ASSERT_TRUE(first.has_value());
  ASSERT_EQ(engine->Step().size(), 1u);
  EXPECT_LT(engine->cache().free_blocks(), engine->cache().blocks());
  const auto second = engine->Add({.prompt_token_ids = Prompt(40, 2)});
  engine->Abort(*second);
  engine->Abort(*first);
  engine->Abort(12345);
  EXPECT_FALSE(engine->HasWork());
  EXPECT_EQ(engine->cache().free_blocks(), engine->cache().blocks());
}

TEST_F(EngineTest, GenerateCanBeCancelled) {
  const auto engine = MakeEngine();
  int asked = 0;
  const auto results = engine->Generate({{.prompt_token_ids = Prompt(40, 1), .sampling = {.ignore_eos = true}}},
                                        [&] { return ++asked > 3; });
  ASSERT_FALSE(results.has_value());
  EXPECT_EQ(results.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(engine->HasWork());
}

}  // namespace
}  // namespace swiftkv
