// Scores of groups and categories of unequal size, in results and tables.
#include "eval/results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "eval/hash.h"
#include "eval/report.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// Groups of one, two and five documents; the first two are a category.
class GroupedTask : public Task {
 public:
  explicit GroupedTask(bool groups_count_alike)
      : Task({.name = "grouped",
              .title = "Grouped",
              .metrics = {{"acc", "none"}},
              .groups_count_alike = groups_count_alike}) {}
  int64_t size() const override { return 8; }
  Prompt MakePrompt(int64_t /*document*/) const override { return {}; }
  Outcome Score(int64_t /*document*/, const Response& /*response*/) const override { return {}; }
  std::string Target(int64_t /*document*/) const override { return {}; }
  std::string Group(int64_t document) const override {
    if (document == 0) return "one";
    return document < 3 ? "two" : "five";
  }
  std::string Category(int64_t document) const override { return document < 3 ? "few" : "many"; }
};

// Base is right in all of the group of one, half of that of two and a fifth of that of five; SwiftKV has the one wrong.
RunResults RunOf(const Task& task) {
  RunResults run;
  run.variants = {{.name = "base", .mode = Mode::kTeacher}, {.name = "swiftkv", .mode = Mode::kStudent}};
  TaskResult& result = run.tasks.emplace_back();
  result.task = &task;
  result.documents = {0, 1, 2, 3, 4, 5, 6, 7};
  for (const std::vector<double>& scores : {std::vector<double>{1, 1, 0, 1, 0, 0, 0, 0}, {0, 1, 0, 1, 0, 0, 0, 0}}) {
    VariantResult& variant = result.variants.emplace_back();
    for (const double score : scores) variant.outcomes.push_back({.scores = {score}});
  }
  return run;
}

TEST(ResultsTest, HoldMeansOfDocumentsAndOfGroups) {
  const GroupedTask task(/*groups_count_alike=*/false);
  const RunResults run = RunOf(task);
  const auto json = ResultsJson(run, 0);
  const auto expect = [&](const nlohmann::ordered_json& entry, const char* metric, double mean, int documents) {
    EXPECT_NEAR(entry[metric].get<double>(), mean, 1e-12) << entry;
    EXPECT_EQ(entry["sample_len"], documents) << entry;
  };
  expect(json["results"]["grouped"], "acc,none", 3.0 / 8, 8);
  expect(json["results"]["grouped"], "acc_macro,none", (1 + 0.5 + 0.2) / 3, 8);
  expect(json["results"]["grouped_one"], "acc,none", 1, 1);
  expect(json["results"]["grouped_two"], "acc,none", 0.5, 2);
  expect(json["results"]["grouped_five"], "acc,none", 0.2, 5);
  expect(json["groups"]["grouped_few"], "acc,none", 2.0 / 3, 3);
  expect(json["groups"]["grouped_many"], "acc,none", 0.2, 5);
  const auto comparison = ComparisonJson(run)["swiftkv"]["grouped"];
  EXPECT_NEAR(comparison["acc,none"]["difference"]["mean"].get<double>(), -1.0 / 8, 1e-12);
  EXPECT_NEAR(comparison["acc_macro,none"]["difference"]["mean"].get<double>(), -1.0 / 3, 1e-12);
}

TEST(ResultsTest, TablesHaveTheMeanThatTheTaskReports) {
  const GroupedTask by_document(/*groups_count_alike=*/false);
  const Table documents = ScoreTable(RunOf(by_document));
  EXPECT_EQ(documents.rows[0], (std::vector<std::string>{"base", "37.50", "37.50"}));
  EXPECT_EQ(documents.rows[2], (std::vector<std::string>{"difference", "-12.50", "-12.50"}));
  EXPECT_EQ(DetailTable(RunOf(by_document)).rows[0][1], "acc");

  const GroupedTask by_group(/*groups_count_alike=*/true);
  const Table groups = ScoreTable(RunOf(by_group));
  EXPECT_EQ(groups.rows[0], (std::vector<std::string>{"base", "56.67", "56.67"}));
  EXPECT_EQ(groups.rows[2], (std::vector<std::string>{"difference", "-33.33", "-33.33"}));
  const Table detail = DetailTable(RunOf(by_group));
  EXPECT_EQ(detail.rows[0][1], "acc_macro");
  EXPECT_THAT(detail.rows[0][5], StartsWith("56.67 ± "));
  EXPECT_THAT(detail.rows[1][6], StartsWith("-33.33 ± "));
}

// The samples of a task's first document.
std::vector<nlohmann::ordered_json> Samples(const char* name, const Response& response) {
  const auto task = LoadTask(name, {}, SWIFTKV_SOURCE_DIR "/tests/golden/eval/sets");
  EXPECT_TRUE(task.has_value()) << task.error().message;
  TaskResult result{.task = task->get(), .documents = {0}, .variants = {}};
  result.variants.push_back({.responses = {response}, .outcomes = {(*task)->Score(0, response)}, .stats = {}});
  std::vector<nlohmann::ordered_json> samples;
  std::istringstream lines(SampleLines(result, 0, {}));
  for (std::string line; std::getline(lines, line);) samples.push_back(nlohmann::ordered_json::parse(line));
  return samples;
}

// doc_hash is Python's sha256(json.dumps(doc, indent=2, ensure_ascii=False)) of the golden set's row, as lm-eval has
// it.
TEST(ResultsTest, SamplesHaveLmEvalsForm) {
  const auto scored = Samples("hellaswag", {.choices = {{-12, false}, {-3.5, true}, {-20.25, false}, {-30, false}}});
  ASSERT_EQ(scored.size(), 1u) << "one filter";
  const auto& choices = scored[0]["arguments"];
  EXPECT_EQ(choices.size(), 4u);
  EXPECT_THAT(choices["gen_args_0"]["arg_0"].get<std::string>(), HasSubstr("Roof shingle removal: A man"));
  EXPECT_EQ(choices["gen_args_3"]["arg_1"], " starts pulling up roofing on a roof.");
  EXPECT_EQ(scored[0]["resps"][1].dump(), R"([["-3.5","True"]])");
  EXPECT_EQ(scored[0]["filtered_resps"][0].dump(), R"(["-12.0","False"])");
  EXPECT_EQ(scored[0]["metrics"].dump(), R"(["acc_norm","acc"])");
  EXPECT_TRUE(scored[0].contains("acc") && scored[0].contains("acc_norm"));
  EXPECT_EQ(scored[0]["target_hash"], Sha256("3"));
  EXPECT_EQ(scored[0]["prompt_hash"], Sha256(choices["gen_args_0"]["arg_0"].get<std::string>()));

  const auto answered = Samples("gsm8k", {.text = "The final answer is 18."});
  ASSERT_EQ(answered.size(), 2u) << "two filters";
  EXPECT_EQ(answered[0]["resps"].dump(), R"([["The final answer is 18."]])");
  EXPECT_EQ(answered[0]["doc"].begin().key(), "question");
  EXPECT_EQ(answered[0]["doc_hash"], "986c19252f3c7f6eaeff2229e9a5777f96a85c0ceea931a92d2289084dfd518c");
  const auto& request = answered[0]["arguments"]["gen_args_0"];
  EXPECT_EQ(nlohmann::json::parse(request["arg_0"].get<std::string>()).size(), 17u) << "eight shots and the question";
  EXPECT_EQ(request["arg_1"]["max_gen_toks"], 1024);
}

}  // namespace
}  // namespace swiftkv
