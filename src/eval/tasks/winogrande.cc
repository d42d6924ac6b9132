// WinoGrande (Sakaguchi et al. 2019): which of two names a pronoun stands for. Scored by "partial evaluation": the two
// names stand in the context, and what follows them is the same text.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "eval/filters.h"
#include "eval/rows.h"
#include "eval/tasks/tasks.h"
#include "text/json_reader.h"

namespace swiftkv {
namespace {

struct Sentence {
  std::string before;  // what stands before the "_"
  std::string after;   // " " and what stands behind it
  std::array<std::string, 2> options;
  int64_t gold = 0;
};

Result<Sentence> ReadSentence(const JsonObject& row) {
  Sentence sentence;
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, row.String("sentence"));
  SWIFTKV_ASSIGN_OR_RETURN(sentence.options[0], row.String("option1"));
  SWIFTKV_ASSIGN_OR_RETURN(sentence.options[1], row.String("option2"));
  SWIFTKV_ASSIGN_OR_RETURN(const std::string answer, row.String("answer"));
  if (answer.size() != 1 || answer[0] < '1' || answer[0] > '2') {
    return InvalidInput("{} must be 1 or 2", row.Place("answer"));
  }
  sentence.gold = answer[0] - '1';
  const size_t blank = text.find('_');
  if (blank == std::string::npos) return InvalidInput("{} has no _", row.Place("sentence"));
  sentence.before = text.substr(0, blank);
  sentence.after = fmt::format(" {}", Strip(std::string_view(text).substr(blank + 1)));
  return sentence;
}

Result<std::vector<Sentence>> ReadSentences(const std::string& path) {
  std::vector<Sentence> sentences;
  SWIFTKV_RETURN_IF_ERROR(ForEachRow(path, [&](const JsonObject& row) -> Status {
    SWIFTKV_ASSIGN_OR_RETURN(sentences.emplace_back(), ReadSentence(row));
    return Ok();
  }));
  return sentences;
}

class Winogrande final : public Task {
 public:
  Winogrande(TaskInfo info, std::vector<Sentence> sentences, const std::vector<Sentence>& shots)
      : Task(std::move(info)), sentences_(std::move(sentences)) {
    for (const Sentence& shot : shots) {
      shots_ += fmt::format("{}{}{}\n\n", shot.before, shot.options[shot.gold], shot.after);
    }
  }
  int64_t size() const override { return static_cast<int64_t>(sentences_.size()); }
  Prompt MakePrompt(int64_t document) const override {
    const Sentence& sentence = sentences_[static_cast<size_t>(document)];
    Prompt prompt;
    for (const std::string& option : sentence.options) {
      prompt.choices.push_back({shots_ + sentence.before + option, sentence.after});
    }
    return prompt;
  }
  Outcome Score(int64_t document, const Response& response) const override {
    return {.scores = ChoiceScores(response.choices, {}, sentences_[static_cast<size_t>(document)].gold)};
  }
  std::string Target(int64_t document) const override {
    return fmt::format("{}", sentences_[static_cast<size_t>(document)].gold);
  }

 private:
  std::vector<Sentence> sentences_;
  std::string shots_;
};

}  // namespace

// The same in both protocols.
Result<std::unique_ptr<Task>> LoadWinogrande(const TaskOptions& /*options*/, const std::string& folder,
                                             const std::string& documents) {
  constexpr size_t kShots = 5;
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Sentence> sentences, ReadSentences(documents));
  const std::string path = folder + "/winogrande/train_xs.jsonl";
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Sentence> shots, ReadSentences(path));
  SWIFTKV_RETURN_IF_ERROR(KeepShots(kShots, path, &shots));
  return std::make_unique<Winogrande>(
      TaskInfo{.name = "winogrande", .title = "Winogrande", .num_fewshot = kShots, .metrics = {{"acc", "none"}}},
      std::move(sentences), shots);
}

}  // namespace swiftkv
