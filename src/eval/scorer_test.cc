// Responses and scores through the engine, over a small random model: they follow from the prompt alone.
#include "eval/scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "eval/evaluation.h"
#include "eval/fidelity.h"
#include "eval/hash.h"
#include "eval/perplexity.h"
#include "eval/report.h"
#include "model/fake_device.h"
#include "model/quality.h"
#include "model/tiny_model.h"
#include "text/golden_tokenizer.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;

// Scored: documents of three choices that begin alike, in two groups. Answered: plain texts.
class MadeUpTask : public Task {
 public:
  explicit MadeUpTask(bool answered, bool is_plain = false)
      : Task({.name = answered ? "answered" : "scored",
              .title = "Made up",
              .metrics = {{"acc", "none"}},
              .until = answered ? std::vector<std::string>{"e"} : std::vector<std::string>(),
              .uses_chat_template = answered && !is_plain}),
        answered_(answered) {}
  int64_t size() const override { return 7; }
  Prompt MakePrompt(int64_t document) const override {
    std::string context;
    for (int i = 0; i < 30; ++i) context += fmt::format("The {} shot says {}. ", Group(document), i);
    context += fmt::format("Question {}:", document * document);
    if (answered_) return {.text = context};
    Prompt prompt;
    for (const char* choice : {" yes", " no, never", " perhaps tomorrow"}) prompt.choices.push_back({context, choice});
    return prompt;
  }
  Outcome Score(int64_t document, const Response& response) const override {
    if (answered_) return {.scores = {response.text.size() % 2 == 0 ? 1.0 : 0.0}, .filtered = {response.text}};
    return {.scores = {response.choices[0].loglikelihood > response.choices[document % 3].loglikelihood ? 1.0 : 0.0}};
  }
  std::string Target(int64_t /*document*/) const override { return "0"; }
  std::string Group(int64_t document) const override { return document % 2 == 0 ? "even" : "odd"; }

 private:
  bool answered_;
};

class ScorerTest : public testing::Test {
 protected:
  ScorerTest() {
    text_.tokenizer = LoadGoldenTokenizer("smollm", {});
    ModelConfig config = TinyConfig(Family::kLlama, /*layers=*/4);
    config.vocab_size = text_.tokenizer->vocab_size();
    config.max_position_embeddings = 2048;
    config.num_key_value_layers = 2;
    weights_ = *RandomWeights(config, 3, {.dtype = DType::kF32, .teacher = true});
    folder_ = testing::TempDir() + "swiftkv_scorer_" + std::to_string(getpid());  // tests run side by side
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }

  Variant MakeVariant(Mode mode) const {
    return {mode == Mode::kTeacher ? "base" : "swiftkv", &weights_, &text_, mode, "hash", "none"};
  }
  EvaluationOptions Options() const { return {.scorer = {.max_gen_toks = 12, .max_num_seqs = 4}}; }
  std::vector<Response> Responses(const Task& task, const EvaluationOptions& options, Mode mode = Mode::kStudent) {
    const Variant variant = MakeVariant(mode);
    auto result = EvaluateTask(task, {&variant, 1}, options);
    EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
    return result ? result->variants[0].responses : std::vector<Response>();
  }

  TextModel text_;
  Weights weights_;
  std::string folder_;
};

// SwiftKV's later layers run for the scored rows alone; the same log-likelihoods, to the last bit, come from a run in
// which every row survives to the last layer.
TEST_F(ScorerTest, ScoredRowsEqualAllRowsSurviving) {
  const MadeUpTask task(/*answered=*/false);
  const std::vector<Response> responses = Responses(task, Options());
  ASSERT_EQ(responses.size(), 7u);
  const auto engine = *Engine::Create(weights_, Mode::kStudent, text_.tokenizer.get(), {});
  for (int64_t document = 0; document < task.size(); ++document) {
    const Prompt prompt = task.MakePrompt(document);
    for (size_t c = 0; c < prompt.choices.size(); ++c) {
      const auto& [context, continuation] = prompt.choices[c];
      const auto ids = text_.tokenizer->Encode(context + continuation, {.add_special_tokens = false});
      const auto scored = ids.size() - text_.tokenizer->Encode(context, {.add_special_tokens = false}).size();
      const auto all = *engine->Generate(
          {Request{.prompt_token_ids = ids, .sampling = {.temperature = 0, .max_tokens = 0, .prompt_logprobs = 0}}});
      const auto& logprobs = all[0].prompt_logprobs;
      ASSERT_EQ(logprobs.size(), ids.size() - 1);
      double sum = 0;
      for (size_t i = logprobs.size() - scored; i < logprobs.size(); ++i) sum += logprobs[i].token.logprob;
      EXPECT_EQ(responses[static_cast<size_t>(document)].choices[c].loglikelihood, sum);
    }
  }
}

TEST_F(ScorerTest, ResponsesDoNotDependOnWhatRunsBeside) {
  for (const bool answered : {false, true}) {
    const MadeUpTask task(answered);
    const std::vector<Response> together = Responses(task, Options());
    EvaluationOptions alone = Options();
    alone.scorer.max_num_seqs = 1;
    alone.max_num_batched_tokens = 64;
    const std::vector<Response> apart = Responses(task, alone);
    for (size_t i = 0; i < together.size(); ++i) {
      EXPECT_EQ(together[i].text, apart[i].text);
      EXPECT_THAT(together[i].text, testing::Not(HasSubstr("e"))) << "a stop string";
      for (size_t c = 0; c < together[i].choices.size(); ++c) {
        EXPECT_EQ(together[i].choices[c].loglikelihood, apart[i].choices[c].loglikelihood);
      }
    }
  }
}

TEST_F(ScorerTest, SharesWhatPromptsHaveInCommon) {
  const MadeUpTask task(/*answered=*/false);
  const Variant variant = MakeVariant(Mode::kStudent);
  const auto result = *EvaluateTask(task, {&variant, 1}, Options());
  const ScorerStats& stats = result.variants[0].stats;
  EXPECT_GT(stats.cached_tokens, stats.prompt_tokens * 9 / 10);
}

TEST_F(ScorerTest, CutsOnTheLeftWhatTheContextDoesNotHold) {
  EvaluationOptions options = Options();
  options.max_model_len = 64;
  const MadeUpTask scored(/*answered=*/false);
  const Variant variant = MakeVariant(Mode::kStudent);
  const auto result = *EvaluateTask(scored, {&variant, 1}, options);
  EXPECT_EQ(result.variants[0].truncated(), 21);
  const auto engine = *Engine::Create(weights_, Mode::kStudent, text_.tokenizer.get(), {});
  const Prompt prompt = scored.MakePrompt(0);
  auto ids = text_.tokenizer->Encode(prompt.choices[2].context + prompt.choices[2].continuation,
                                     {.add_special_tokens = false});
  ids.erase(ids.begin(), ids.end() - 64);
  const auto direct = *engine->Generate(
      {Request{.prompt_token_ids = ids, .sampling = {.temperature = 0, .max_tokens = 0, .prompt_logprobs = 0}}});
  EXPECT_EQ(direct[0].prompt_logprobs.size(), 63u);
  EXPECT_LT(result.variants[0].responses[0].choices[2].loglikelihood, 0);

  options.scorer.max_gen_toks = 64;
  const auto refused = EvaluateTask(MadeUpTask(/*answered=*/true), {&variant, 1}, options);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, HasSubstr("max_gen_toks 64 leaves no room"));
}

TEST_F(ScorerTest, ResumesFromResponses) {
  const MadeUpTask task(/*answered=*/true);
  EvaluationOptions options = Options();
  options.output_path = folder_;
  options.limit = 4;
  const std::vector<Response> first = Responses(task, options);
  const std::string path = folder_ + "/responses_answered_swiftkv.jsonl";
  std::ofstream(path, std::ios::app) << "{\"doc_id\": 3, \"resps\"";  // as a killed run leaves it

  options.resume = true;
  options.limit = 0;
  const Variant variant = MakeVariant(Mode::kStudent);
  const auto result = *EvaluateTask(task, {&variant, 1}, options);
  const auto fresh_result = *EvaluateTask(task, {&variant, 1}, Options());
  EXPECT_EQ(result.variants[0].resumed, 4);
  EXPECT_EQ(result.variants[0].at_length(), fresh_result.variants[0].at_length());
  EXPECT_GT(result.variants[0].at_length(), 0);
  const std::vector<Response>& fresh = fresh_result.variants[0].responses;
  for (size_t i = 0; i < fresh.size(); ++i) EXPECT_EQ(result.variants[0].responses[i].text, fresh[i].text);

  const auto expect_refused = [&](const Variant& other) {
    const auto refused = EvaluateTask(task, {&other, 1}, options);
    ASSERT_FALSE(refused.has_value());
    EXPECT_THAT(refused.error().message, HasSubstr("its responses are of another run"));
  };
  Variant other = variant;
  other.quantization = "int8";
  expect_refused(other);
  other = variant;
  other.chat_template_hash = "other";
  expect_refused(other);
  FakeDevice device(kernels::DefaultBackend());
  const Weights on_device =
      *RandomWeights(weights_.config, 3, {.dtype = DType::kF32, .teacher = true, .backend = &device});
  other = variant;
  other.weights = &on_device;
  expect_refused(other);
  options.scorer.max_gen_toks = 13;
  expect_refused(variant);
}

// The jobs of files from before devices and chat templates were in them.
TEST_F(ScorerTest, ResumesResponsesOfEarlierPrograms) {
  const MadeUpTask task(/*answered=*/true);
  EvaluationOptions options = Options();
  options.output_path = folder_;
  options.limit = 1;
  Responses(task, options);
  std::ifstream file(folder_ + "/responses_answered_swiftkv.jsonl");
  std::string job;
  std::getline(file, job);
  EXPECT_EQ(job, R"({"job":{"task":"answered","model_sha256":"hash","mode":"swiftkv","dtype":"F32",)"
                 R"("quantization":"none","kv_cache_dtype":"F32","max_model_len":2048,"max_gen_toks":12,)"
                 R"("add_bos_token":false,"version":")" SWIFTKV_VERSION R"("}})");
}

// The leaderboard's, which have changed.
TEST_F(ScorerTest, ResponsesToPlainPromptsKnowTheirStops) {
  EvaluationOptions options = Options();
  options.output_path = folder_;
  Responses(MadeUpTask(/*answered=*/true, /*is_plain=*/true), options);
  std::ifstream file(folder_ + "/responses_answered_swiftkv.jsonl");
  std::string job;
  std::getline(file, job);
  EXPECT_THAT(job, HasSubstr(R"("until":["e"])"));
}

TEST_F(ScorerTest, HashOfAFolderCoversItsChatTemplate) {
  std::ofstream(folder_ + "/config.json") << "{}";
  const std::string plain = *HashModel(folder_);
  std::ofstream(folder_ + "/README.md") << "of no account";
  EXPECT_EQ(*HashModel(folder_), plain);
  std::ofstream(folder_ + "/chat_template.jinja") << "{{ messages }}";
  EXPECT_NE(*HashModel(folder_), plain);
}

TEST_F(ScorerTest, StopsWhenAsked) {
  EvaluationOptions options = Options();
  int asked = 0;
  options.cancelled = [&asked] { return ++asked > 2; };
  const Variant variant = MakeVariant(Mode::kStudent);
  const auto result = EvaluateTask(MadeUpTask(/*answered=*/true), {&variant, 1}, options);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
}

TEST_F(ScorerTest, PerplexityRollsThroughTheText) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += fmt::format("Sentence {} of a text. ", i);
  EvaluationOptions options = Options();
  options.max_model_len = 100;
  const auto result = MeasurePerplexity(MakeVariant(Mode::kStudent), {"text", text}, options);
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_EQ(result->words, 300);
  EXPECT_EQ(result->bytes, static_cast<int64_t>(text.size()));
  EXPECT_EQ(result->window_loglikelihoods.size(), static_cast<size_t>((result->tokens + 99) / 100));
  EXPECT_NEAR(std::log(result->byte_perplexity()), result->bits_per_byte() * std::log(2), 1e-9);
  EXPECT_GT(result->token_perplexity(), 1);
  // The last window, with the context that it borrows from the one before.
  const auto ids = text_.tokenizer->Encode(text, {.add_special_tokens = false});
  const auto engine = *Engine::Create(weights_, Mode::kStudent, text_.tokenizer.get(), {});
  const int64_t scored = (result->tokens - 1) % 100 + 1;
  const auto direct = *engine->Generate({Request{
      .prompt_token_ids = {ids.end() - 101, ids.end()},
      .sampling = {.temperature = 0, .max_tokens = 0, .prompt_logprobs = 0, .prompt_logprobs_begin = 101 - scored}}});
  double sum = 0;
  for (const PositionLogprobs& position : direct[0].prompt_logprobs) sum += position.token.logprob;
  EXPECT_EQ(direct[0].prompt_logprobs.size(), static_cast<size_t>(scored));
  EXPECT_EQ(result->window_loglikelihoods.back(), sum);

  options.max_model_len = 1 << 20;  // more than the model's 2,048
  EXPECT_EQ(MeasurePerplexity(MakeVariant(Mode::kStudent), {"text", text}, options)->window_loglikelihoods.size(), 1u);
}

TEST(RollingWindowsTest, EqualLmEvals) {
  std::ifstream file(SWIFTKV_SOURCE_DIR "/tests/golden/eval/rolling_windows.jsonl");
  int64_t cases = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    const auto golden = nlohmann::json::parse(line);
    std::vector<int32_t> tokens(golden["tokens"].get<size_t>());
    std::iota(tokens.begin(), tokens.end(), 0);
    auto windows = nlohmann::json::array();
    for (const RollingWindow& window : RollingWindows(tokens, 100, golden["length"])) {
      const auto scored = window.token_ids.begin() + window.scored_begin;
      windows.push_back({std::vector<int32_t>(window.token_ids.begin(), scored),
                         std::vector<int32_t>(scored, window.token_ids.end())});
    }
    EXPECT_EQ(windows, golden["windows"]) << line;
  }
  EXPECT_EQ(cases, 40);
}

TEST_F(ScorerTest, FidelityEqualsMeasureQuality) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += fmt::format("Sentence {} of a text. ", i);
  const auto ids = text_.tokenizer->Encode(text, {.add_special_tokens = false});
  const auto result = MeasureFidelity(weights_, weights_, *text_.tokenizer, {"text", text}, {.window_tokens = 200});
  ASSERT_TRUE(result.has_value()) << result.error().message;
  std::vector<TokenSequence> windows;
  for (size_t begin = 0; begin < ids.size(); begin += 200) {
    windows.emplace_back(ids.begin() + static_cast<ptrdiff_t>(begin),
                         ids.begin() + static_cast<ptrdiff_t>(std::min(begin + 200, ids.size())));
  }
  const Quality quality = *MeasureQuality(weights_, windows);
  EXPECT_EQ(result->all.tokens, quality.tokens);
  EXPECT_NEAR(result->all.mean_kl, quality.kl, 1e-5);
  EXPECT_NEAR(result->all.top1_agreement, quality.agreement, 1e-9);
  EXPECT_NEAR(result->all.nll, quality.student_nll, 1e-5);
  ASSERT_EQ(result->by_position.size(), 2u);
  EXPECT_EQ(result->by_position[0].tokens + result->by_position[1].tokens, quality.tokens);
  EXPECT_GE(result->all.p99_kl, result->all.mean_kl);
}

// Base with a smaller cache is near base and not base; SwiftKV's own distance changes a little with the cache.
TEST_F(ScorerTest, FidelityKnowsTheCachesType) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += fmt::format("Sentence {} of a text. ", i);
  const auto measure = [&](Mode mode, std::optional<DType> cache_dtype) {
    const auto result = MeasureFidelity(weights_, weights_, *text_.tokenizer, {"text", text},
                                        {.mode = mode, .kv_cache_dtype = cache_dtype, .window_tokens = 200});
    if (!result) ADD_FAILURE() << result.error().message;
    return result ? result->all : Fidelity();
  };
  EXPECT_EQ(measure(Mode::kTeacher, {}).mean_kl, 0);
  EXPECT_NEAR(measure(Mode::kTeacher, {}).top5_agreement, 1, 1e-9);
  const Fidelity base = measure(Mode::kTeacher, DType::kI8);
  EXPECT_GT(base.mean_kl, 0);
  EXPECT_LT(base.mean_kl, 1e-2);
  EXPECT_EQ(base.base_nll, measure(Mode::kTeacher, {}).nll);
  EXPECT_NE(base.nll, base.base_nll);
  const Fidelity student = measure(Mode::kStudent, DType::kI8);
  EXPECT_EQ(student.base_nll, base.base_nll);
  EXPECT_NE(student.mean_kl, measure(Mode::kStudent, {}).mean_kl);
  EXPECT_NEAR(student.mean_kl, measure(Mode::kStudent, {}).mean_kl, 1e-2);
}

// Weights in int8 are compared with base as it is, and are near it; so is SwiftKV.
TEST_F(ScorerTest, FidelityKnowsThePrecisionOfWeights) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += fmt::format("Sentence {} of a text. ", i);
  const auto make = [&](Quantization quantization) {
    return *RandomWeights(weights_.config, 3, {.dtype = DType::kBF16, .quantization = quantization, .teacher = true});
  };
  const Weights whole = make(Quantization::kNone);
  const Weights small = make(Quantization::kInt8);
  const auto measure = [&](const Weights& weights, Mode mode) {
    const auto result = MeasureFidelity(whole, weights, *text_.tokenizer, {"text", text}, {.mode = mode});
    if (!result) ADD_FAILURE() << result.error().message;
    return result ? result->all : Fidelity();
  };
  const Fidelity itself = measure(whole, Mode::kTeacher);
  EXPECT_EQ(itself.mean_kl, 0);
  const Fidelity base = measure(small, Mode::kTeacher);
  EXPECT_GT(base.mean_kl, 0);
  EXPECT_LT(base.mean_kl, 1e-2);
  EXPECT_EQ(base.base_nll, itself.nll);
  EXPECT_NE(base.nll, base.base_nll);
  const Fidelity student = measure(small, Mode::kStudent);
  EXPECT_EQ(student.base_nll, itself.nll);
  EXPECT_NE(student.mean_kl, measure(whole, Mode::kStudent).mean_kl);
  EXPECT_NEAR(student.mean_kl, measure(whole, Mode::kStudent).mean_kl, 1e-2);
}

TEST_F(ScorerTest, ReportsSayWhatWasMeasured) {
  const MadeUpTask task(/*answered=*/false);
  RunResults run;
  run.model = "tiny<model>";
  run.options = Options();
  const std::vector<Variant> variants = {MakeVariant(Mode::kTeacher), MakeVariant(Mode::kStudent)};
  for (const Variant& variant : variants) run.variants.push_back(Describe(variant, "adapters/mine", run.options));
  run.tasks.push_back(*EvaluateTask(task, variants, run.options));
  const std::string text = TextReport(run);
  for (const char* part : {"base", "SwiftKV", "difference", "± standard error", "McNemar p", "Made up", "Avg"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_THAT(MarkdownReport(run), HasSubstr("| model_sha256 (swiftkv) | hash |"));
  EXPECT_THAT(HtmlReport(run), HasSubstr("<h1>Evaluation of tiny&lt;model></h1>"));
  const auto json = ResultsJson(run, 1);
  EXPECT_EQ(json["results"]["scored"]["sample_len"], 7);
  EXPECT_TRUE(json["results"]["scored"].contains("acc_stderr,none"));
  EXPECT_EQ(json["n-samples"]["scored"]["effective"], 7);
  EXPECT_EQ(json["swiftkv"]["add_bos_token"], false);
  EXPECT_TRUE(ComparisonJson(run)["swiftkv"]["scored"]["acc,none"].contains("mcnemar"));
  EXPECT_EQ(json["swiftkv"]["quantization"], "none");
  EXPECT_EQ(json["swiftkv"]["device"], "cpu");
  EXPECT_TRUE(json["swiftkv"]["chat_template_sha256"].is_null());
  EXPECT_EQ(json["swiftkv"]["num_key_value_layers"]["swiftkv"], 2);
  EXPECT_EQ(json["swiftkv"]["num_key_value_layers"]["base"], 4);
  const std::string samples = SampleLines(run.tasks[0], 1, {});
  EXPECT_EQ(std::count(samples.begin(), samples.end(), '\n'), 7);
}

}  // namespace
}  // namespace swiftkv
