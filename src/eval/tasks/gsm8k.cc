// GSM8K (Cobbe et al. 2021): word problems whose answer is a number.
#include <fmt/format.h>

#include <utility>

#include "eval/filters.h"
#include "eval/rows.h"
#include "eval/tasks/tasks.h"
#include "text/json_reader.h"

namespace swiftkv {
namespace {

struct Problem {
  std::string question;
  std::string answer;  // worked, ending "#### N" in the set's own rows
};

Result<std::vector<Problem>> ReadProblems(const std::string& path, const char* answer) {
  std::vector<Problem> problems;
  SWIFTKV_RETURN_IF_ERROR(ForEachRow(path, [&](const JsonObject& row) -> Status {
    Problem problem;
    SWIFTKV_ASSIGN_OR_RETURN(problem.question, row.String("question"));
    SWIFTKV_ASSIGN_OR_RETURN(problem.answer, row.String(answer));
    problems.push_back(std::move(problem));
    return Ok();
  }));
  return problems;
}

std::string CardText(const std::string& question) {
  return fmt::format(
      "Given the following problem, reason and give a final answer to the problem. \nProblem: {}\nYour response "
      "should end with \"The final answer is [answer]\" where [answer] is the response to the problem.",
      question);
}

std::string PlainText(const std::string& question) { return fmt::format("Question: {}\nAnswer:", question); }

class Gsm8k final : public Task {
 public:
  Gsm8k(TaskInfo info, std::vector<Problem> problems, const std::vector<Problem>& shots)
      : Task(std::move(info)), problems_(std::move(problems)) {
    for (const Problem& shot : shots) {
      shot_turns_.push_back({"user", CardText(shot.question)});
      shot_turns_.push_back({"assistant", " " + shot.answer});
      shot_text_ += fmt::format("{} {}\n\n", PlainText(shot.question), shot.answer);
    }
  }
  int64_t size() const override { return static_cast<int64_t>(problems_.size()); }
  Prompt MakePrompt(int64_t document) const override {
    const std::string& question = problems_[static_cast<size_t>(document)].question;
    if (!info().uses_chat_template) return {.text = shot_text_ + PlainText(question)};
    Prompt prompt{.turns = shot_turns_};
    prompt.turns.push_back({"user", CardText(question)});
    return prompt;
  }
  Outcome Score(int64_t document, const Response& response) const override {
    const std::string gold = NormalizeNumber(Target(document));
    Outcome outcome;
    outcome.filtered = {info().uses_chat_template ? NumberAfter(response.text, "The final answer is ", /*closed=*/true)
                                                  : NumberAfter(response.text, "#### ", /*closed=*/false),
                        LastNumber(response.text)};
    for (const std::string& answer : outcome.filtered) {
      outcome.scores.push_back(NormalizeNumber(answer) == gold ? 1 : 0);
    }
    return outcome;
  }
  std::string Target(int64_t document) const override {
    const std::string& answer = problems_[static_cast<size_t>(document)].answer;
    if (!info().uses_chat_template) return answer;
    const size_t mark = answer.rfind("####");
    return std::string(Strip(std::string_view(answer).substr(mark == std::string::npos ? 0 : mark + 4)));
  }

 private:
  std::vector<Problem> problems_;
  std::vector<ChatTurn> shot_turns_;
  std::string shot_text_;
};

}  // namespace

Result<std::unique_ptr<Task>> LoadGsm8k(const TaskOptions& options, const std::string& folder,
                                        const std::string& documents) {
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Problem> problems, ReadProblems(documents, "answer"));
  const std::vector<Metric> metrics = {{"exact_match", "strict-match"}, {"exact_match", "flexible-extract"}};
  if (options.protocol == Protocol::kCard) {
    constexpr size_t kShots = 8;
    const std::string path = folder + "/gsm8k/fewshot8_llama31.json";
    SWIFTKV_ASSIGN_OR_RETURN(std::vector<Problem> shots, ReadProblems(path, "target"));
    SWIFTKV_RETURN_IF_ERROR(KeepShots(kShots, path, &shots));
    return std::make_unique<Gsm8k>(TaskInfo{.name = "gsm8k_cot_llama_3.1_instruct",
                                            .title = "GSM8K",
                                            .num_fewshot = kShots,
                                            .metrics = metrics,
                                            .until = CardStops(),
                                            .uses_chat_template = true},
                                   std::move(problems), shots);
  }
  constexpr size_t kShots = 5;
  const std::string path = folder + "/gsm8k/train.jsonl";
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Problem> shots, ReadProblems(path, "answer"));
  SWIFTKV_RETURN_IF_ERROR(KeepShots(kShots, path, &shots));
  return std::make_unique<Gsm8k>(TaskInfo{.name = "gsm8k",
                                          .title = "GSM8K",
                                          .num_fewshot = kShots,
                                          .metrics = metrics,
                                          .until = {":", "Question:", "Question"}},
                                 std::move(problems), shots);
}

}  // namespace swiftkv
