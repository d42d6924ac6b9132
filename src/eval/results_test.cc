// Scores of groups and categories of unequal size, in results and tables.
#include "eval/results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/report.h"

namespace swiftkv {
namespace {

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

}  // namespace
}  // namespace swiftkv
