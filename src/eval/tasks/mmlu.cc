// MMLU, five shots: answered in the card's protocol, scored by letter in the leaderboard's.
#include <fmt/format.h>

#include <map>
#include <utility>

#include "eval/filters.h"
#include "eval/tasks/mmlu_questions.h"
#include "eval/tasks/tasks.h"

namespace swiftkv {
namespace {

constexpr size_t kShots = 5;

using Shots = std::map<std::string, std::vector<MmluQuestion>>;  // by subject, in the order of the dev file

class CardMmlu final : public MmluTask {
 public:
  CardMmlu(TaskInfo info, std::vector<MmluQuestion> questions, const Shots& shots)
      : MmluTask(std::move(info), std::move(questions)) {
    for (const auto& [subject, rows] : shots) {
      for (const MmluQuestion& shot : rows) {
        shots_[subject].push_back({"user", MmluCardText(shot)});
        shots_[subject].push_back({"assistant", "The best answer is " + shot.letter()});
      }
    }
  }
  Prompt MakePrompt(int64_t document) const override {
    Prompt prompt{.turns = shots_.at(at(document).subject)};
    prompt.turns.push_back({"user", MmluCardText(at(document))});
    return prompt;
  }
  Outcome Score(int64_t document, const Response& response) const override {
    std::string letter = FirstLetter(response.text);
    const double score = letter == at(document).letter() ? 1 : 0;
    return {.scores = {score}, .filtered = {std::move(letter)}};
  }

 private:
  std::map<std::string, std::vector<ChatTurn>> shots_;
};

class LeaderboardMmlu final : public MmluTask {
 public:
  LeaderboardMmlu(TaskInfo info, std::vector<MmluQuestion> questions, const Shots& shots)
      : MmluTask(std::move(info), std::move(questions)) {
    for (const auto& [subject, rows] : shots) {
      std::string& text = shots_[subject];
      text = fmt::format("The following are multiple choice questions (with answers) about {}.\n\n",
                         ReplaceAll(subject, "_", " "));
      for (const MmluQuestion& shot : rows) {
        text += fmt::format("{}Answer: {}\n\n", QuestionAndChoices(shot), shot.letter());
      }
    }
  }
  Prompt MakePrompt(int64_t document) const override {
    const std::string context =
        fmt::format("{}{}Answer:", shots_.at(at(document).subject), QuestionAndChoices(at(document)));
    Prompt prompt;
    for (const char* letter : {" A", " B", " C", " D"}) prompt.choices.push_back({context, letter});
    return prompt;
  }
  Outcome Score(int64_t document, const Response& response) const override {
    return {.scores = ChoiceScores(response.choices, {}, at(document).gold)};
  }

 private:
  std::map<std::string, std::string> shots_;
};

Result<Shots> ReadShots(const std::string& path, const std::vector<MmluQuestion>& questions) {
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<MmluQuestion> rows, ReadMmluQuestions(path));
  Shots shots;
  for (MmluQuestion& row : rows) {
    std::vector<MmluQuestion>& of_subject = shots[row.subject];
    if (of_subject.size() < kShots) of_subject.push_back(std::move(row));
  }
  for (const MmluQuestion& question : questions) {
    if (shots[question.subject].size() == kShots) continue;
    return InvalidInput("{}: {} rows of subject {}; the {} shots need more", path, shots[question.subject].size(),
                        question.subject, kShots);
  }
  return shots;
}

}  // namespace

Result<std::unique_ptr<Task>> LoadMmlu(const TaskOptions& options, const std::string& folder,
                                       const std::string& documents) {
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<MmluQuestion> questions, ReadMmluQuestions(documents));
  SWIFTKV_ASSIGN_OR_RETURN(const Shots shots, ReadShots(folder + "/mmlu/mmlu_dev.jsonl", questions));
  if (options.protocol == Protocol::kCard) {
    return std::make_unique<CardMmlu>(TaskInfo{.name = "mmlu_llama_3.1_instruct",
                                               .title = "MMLU",
                                               .num_fewshot = kShots,
                                               .metrics = {{"exact_match", "multi_choice_regex"}},
                                               .until = CardStops(),
                                               .uses_chat_template = true},
                                      std::move(questions), shots);
  }
  return std::make_unique<LeaderboardMmlu>(TaskInfo{.name = "mmlu",
                                                    .title = "MMLU",
                                                    .num_fewshot = kShots,
                                                    .metrics = {{"acc", "none"}},
                                                    .groups_count_alike = true},
                                           std::move(questions), shots);
}

}  // namespace swiftkv
