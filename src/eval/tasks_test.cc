// Prompts, filters and metrics against lm-eval's own (tools/make_eval_goldens.py), and what wrong files are told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "eval/evaluation.h"
#include "eval/filters.h"
#include "eval/task.h"

namespace swiftkv {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

const std::string kGoldens = SWIFTKV_SOURCE_DIR "/tests/golden/eval/";
const std::string kSets = kGoldens + "sets";

Json ReadJson(const std::string& name) {
  std::ifstream file(kGoldens + name);
  return Json::parse(file);
}

std::unique_ptr<Task> Load(const std::string& name, Protocol protocol) {
  auto task = LoadTask(name, {.protocol = protocol}, kSets);
  EXPECT_TRUE(task.has_value()) << (task ? "" : task.error().message);
  return task ? std::move(*task) : nullptr;
}

struct Case {
  const char* task;
  Protocol protocol;
};

// The card's prompts, those of the harness that its runs used.
class CardPromptTest : public testing::TestWithParam<const char*> {};

TEST_P(CardPromptTest, EqualsTheHarness) {
  const auto task = Load(GetParam(), Protocol::kCard);
  const Json cases = ReadJson("prompts/" + task->info().name + ".json");
  ASSERT_EQ(task->size(), static_cast<int64_t>(cases.size()));
  for (int64_t i = 0; i < task->size(); ++i) {
    const Json& golden = cases[static_cast<size_t>(i)];
    const Prompt prompt = task->MakePrompt(i);
    if (golden.contains("messages")) {
      ASSERT_EQ(prompt.turns.size(), golden["messages"].size());
      for (size_t t = 0; t < prompt.turns.size(); ++t) {
        EXPECT_EQ(prompt.turns[t].role, golden["messages"][t]["role"]);
        EXPECT_EQ(prompt.turns[t].content, golden["messages"][t]["content"]);
      }
      EXPECT_EQ(task->Target(i), golden["gold"]);
    } else {
      ASSERT_EQ(prompt.choices.size(), golden["requests"].size());
      for (size_t c = 0; c < prompt.choices.size(); ++c) {
        EXPECT_EQ(prompt.choices[c].context, golden["requests"][c]["context"]);
        EXPECT_EQ(prompt.choices[c].continuation, golden["requests"][c]["continuation"]);
        if (golden.contains("norm_len_chars")) {
          EXPECT_EQ(Characters(prompt.choices[c].continuation) - 1, golden["norm_len_chars"][c]);
        }
      }
      if (golden.contains("gold")) {
        EXPECT_EQ(task->Target(i), golden["gold"].dump());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tasks, CardPromptTest,
                         testing::ValuesIn({"arc_challenge", "winogrande", "hellaswag", "truthfulqa_mc2", "mmlu",
                                            "mmlu_cot", "gsm8k"}));

TEST(LeaderboardPromptTest, EqualsLmEval) {
  for (const char* name : {"arc_challenge", "mmlu", "gsm8k"}) {
    const auto task = Load(name, Protocol::kLeaderboard);
    for (const Json& golden : ReadJson(std::string("prompts/leaderboard_") + name + ".json")) {
      // lm-eval's tasks of MMLU are by subject, in another order than the set's rows.
      bool found = false;
      for (int64_t i = 0; i < task->size() && !found; ++i) {
        const Prompt prompt = task->MakePrompt(i);
        Json continuations = Json::array();
        for (const ScoredText& choice : prompt.choices) continuations.push_back(choice.continuation);
        const std::string& context = prompt.choices.empty() ? prompt.text : prompt.choices.front().context;
        found = context == golden["context"] && continuations == golden["continuations"];
      }
      EXPECT_TRUE(found) << name << ": " << golden["context"];
    }
  }
}

// Filters and metrics of 1,000 made-up responses a task.
class ScoreTest : public testing::TestWithParam<Case> {};

TEST_P(ScoreTest, EqualsLmEval) {
  const auto task = Load(GetParam().task, GetParam().protocol);
  std::ifstream file(kGoldens + "scores/" + task->info().name + ".jsonl");
  int64_t cases = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    const Json golden = Json::parse(line);
    Response response;
    if (golden[1].is_string()) {
      response.text = golden[1];
    } else {
      for (const Json& value : golden[1]) response.choices.push_back({.loglikelihood = value});
    }
    const Outcome outcome = task->Score(golden[0], response);
    if (golden[1].is_string()) {
      EXPECT_EQ(Json(outcome.filtered), golden[2]) << line;
    }
    const Json& scores = golden.back();
    ASSERT_EQ(outcome.scores.size(), scores.size());
    for (size_t m = 0; m < scores.size(); ++m) EXPECT_NEAR(outcome.scores[m], scores[m], 1e-12) << line;
  }
  EXPECT_EQ(cases, 1000);
}

INSTANTIATE_TEST_SUITE_P(Tasks, ScoreTest,
                         testing::ValuesIn(std::vector<Case>{{"arc_challenge", Protocol::kCard},
                                                             {"winogrande", Protocol::kCard},
                                                             {"hellaswag", Protocol::kCard},
                                                             {"truthfulqa_mc2", Protocol::kCard},
                                                             {"mmlu", Protocol::kCard},
                                                             {"mmlu_cot", Protocol::kCard},
                                                             {"gsm8k", Protocol::kCard},
                                                             {"arc_challenge", Protocol::kLeaderboard},
                                                             {"mmlu", Protocol::kLeaderboard},
                                                             {"gsm8k", Protocol::kLeaderboard}}),
                         [](const auto& param) {
                           return std::string(param.param.task) + "_" + std::string(Name(param.param.protocol));
                         });

TEST(TaskTest, HasTheCardsShots) {
  const std::vector<int> shots = {0, 5, 10, 0, 5, 0, 8};
  for (size_t i = 0; i < TaskNames().size(); ++i) {
    EXPECT_EQ(Load(TaskNames()[i], Protocol::kCard)->info().num_fewshot, shots[i]) << TaskNames()[i];
  }
  EXPECT_EQ(Load("mmlu", Protocol::kCard)->Category(0), "stem");
}

// As the commit of lm-eval that the leaderboard used, not as lm-eval today.
TEST(TaskTest, HasTheLeaderboardsStopsAndMeans) {
  EXPECT_EQ(Load("gsm8k", Protocol::kLeaderboard)->info().until,
            (std::vector<std::string>{":", "Question:", "Question"}));
  EXPECT_TRUE(Load("mmlu", Protocol::kLeaderboard)->info().groups_count_alike);
  EXPECT_FALSE(Load("mmlu", Protocol::kCard)->info().groups_count_alike);
}

// The task with a file of `content` in the place of its set.
Result<std::unique_ptr<Task>> LoadWith(const std::string& task, const std::string& file, const std::string& content,
                                       const TaskOptions& options = {}) {
  const std::filesystem::path folder = testing::TempDir() + "swiftkv_eval_sets_" + std::to_string(getpid());
  std::filesystem::remove_all(folder);
  std::filesystem::copy(kSets, folder, std::filesystem::copy_options::recursive);
  std::filesystem::permissions(folder / file, std::filesystem::perms::owner_write, std::filesystem::perm_options::add);
  std::ofstream(folder / file) << content;
  return LoadTask(task, options, folder);
}

// The authors' own file has integers, the Hub's copy of it text.
TEST(TaskTest, HellaswagTakesBothSpellingsOfItsLabels) {
  const std::string scene = R"({"activity_label": "", "ctx_a": "", "ctx_b": "", "endings": ["a", "b", "c", "d"], )";
  const auto task =
      LoadWith("hellaswag", "hellaswag/hellaswag_val.jsonl", scene + "\"label\": 3}\n" + scene + "\"label\": \"2\"}");
  ASSERT_TRUE(task.has_value()) << task.error().message;
  EXPECT_EQ((*task)->Target(0), "3");
  EXPECT_EQ((*task)->Target(1), "2");
}

// The rules differ where a true choice comes after a false one.
TEST(TaskTest, TruthfulqaHasTwoRulesForWhatIsTrue) {
  const std::string row = R"({"question": "q", "mc2_targets": {"choices": ["a", "b", "c", "d", "e"], )"
                          R"("labels": [1, 1, 0, 1, 0]}})";
  const Response equally_likely{.choices = std::vector<ScoredChoice>(5)};
  const auto expect_true = [&](TruthfulqaLabels labels, const std::string& target, double score) {
    const auto task =
        LoadWith("truthfulqa_mc2", "truthfulqa/truthfulqa_mc_validation.jsonl", row, {.truthfulqa_labels = labels});
    ASSERT_TRUE(task.has_value()) << task.error().message;
    EXPECT_EQ((*task)->Target(0), target);
    EXPECT_DOUBLE_EQ((*task)->Score(0, equally_likely).scores[0], score);
  };
  expect_true(TruthfulqaLabels::kAll, "0,1,3", 0.6);
  expect_true(TruthfulqaLabels::kLeading, "0,1", 0.4);
}

// What a file with `content` in the place of the task's set is told.
std::string ErrorOf(const std::string& task, const std::string& file, const std::string& content) {
  const auto loaded = LoadWith(task, file, content);
  EXPECT_FALSE(loaded.has_value());
  return loaded ? "" : loaded.error().message;
}

TEST(TaskTest, SaysWhatIsWrongWithAFile) {
  const std::string winogrande = "winogrande/dev.jsonl";
  EXPECT_THAT(ErrorOf("winogrande", winogrande, ""), HasSubstr("winogrande/dev.jsonl: the file has no rows"));
  EXPECT_THAT(ErrorOf("winogrande", winogrande, "{\"sentence\": "), HasSubstr("dev.jsonl: line 1"));
  EXPECT_THAT(ErrorOf("winogrande", winogrande, "\n[1]"), HasSubstr("row 1 must be an object"));
  EXPECT_THAT(ErrorOf("winogrande", winogrande, "{}"), HasSubstr("line 1.sentence is missing"));
  EXPECT_THAT(
      ErrorOf("winogrande", winogrande, R"({"sentence": "a b", "option1": "x", "option2": "y", "answer": "1"})"),
      HasSubstr("sentence has no _"));
  EXPECT_THAT(ErrorOf("winogrande", winogrande, R"({"sentence": "a _", "option1": "x", "option2": "y", "answer": ""})"),
              HasSubstr("answer must be 1 or 2"));
  EXPECT_THAT(ErrorOf("winogrande", winogrande, " []\n"), HasSubstr("winogrande/dev.jsonl: the file has no rows"));
  const std::string scene = R"({"activity_label": "", "ctx_a": "", "ctx_b": "", "endings": ["a", "b", "c", "d"], )";
  EXPECT_THAT(ErrorOf("hellaswag", "hellaswag/hellaswag_val.jsonl", scene + R"("label": "4"})"),
              HasSubstr("label must be 0 to 3"));
  EXPECT_THAT(ErrorOf("hellaswag", "hellaswag/hellaswag_val.jsonl", scene + R"("label": 4})"),
              HasSubstr("label is 4, which is not between 0 and 3"));
  EXPECT_THAT(ErrorOf("hellaswag", "hellaswag/hellaswag_val.jsonl",
                      R"({"activity_label": "", "ctx_a": "", "ctx_b": "", "endings": ["a"], "label": "0"})"),
              HasSubstr("endings has 1 entries"));
  EXPECT_THAT(ErrorOf("mmlu", "mmlu/mmlu_test.jsonl",
                      R"({"subject": "s", "question": "q", "choices": ["a", "b", "c", "d"], "answer": 4})"),
              HasSubstr("answer"));
  EXPECT_THAT(ErrorOf("mmlu", "mmlu/mmlu_test.jsonl",
                      R"({"subject": "s", "question": "q", "choices": ["a", "b", "c", "d"], "answer": 3})"),
              HasSubstr("0 rows of subject s; the 5 shots need more"));
  EXPECT_THAT(ErrorOf("arc_challenge", "arc_challenge/ARC-Challenge-Test.jsonl",
                      R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"})"),
              HasSubstr("the answerKey C is none of the labels"));
  EXPECT_THAT(ErrorOf("truthfulqa_mc2", "truthfulqa/truthfulqa_mc_validation.jsonl",
                      R"({"question": "q", "mc2_targets": {"choices": ["a"], "labels": [2]}})"),
              HasSubstr("labels must hold 0 and 1"));
  EXPECT_THAT(LoadTask("mmlu", {}, "/nowhere").error().message, HasSubstr("/nowhere/mmlu"));
  EXPECT_EQ(LoadTask("boolq", {}, kSets).error().code, ErrorCode::kNotFound);
}

TEST(FilterTest, TextFunctionsArePythons) {
  EXPECT_EQ(Strip(" \t\u00a0a b\u2003\x1c\n"), "a b");
  EXPECT_EQ(Strip(" \n"), "");
  EXPECT_EQ(Capitalize("tHE Man"), "The man");
  EXPECT_EQ(ReplaceAll("a    b", "  ", " "), "a  b");
  EXPECT_EQ(Characters("aé…"), 3);
}

TEST(DrawTest, IsASeededSubset) {
  EXPECT_EQ(DrawDocuments(5, 0, 1), (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(DrawDocuments(5, 9, 1).size(), 5u);
  const auto drawn = DrawDocuments(1000, 10, 1234);
  EXPECT_EQ(drawn, DrawDocuments(1000, 10, 1234));
  EXPECT_NE(drawn, DrawDocuments(1000, 10, 1235));
  EXPECT_TRUE(std::is_sorted(drawn.begin(), drawn.end()));
  EXPECT_GT(drawn.back(), 500) << "not the head";
}

}  // namespace
}  // namespace swiftkv
