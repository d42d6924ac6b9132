// ARC-Challenge (Clark et al. 2018): school science questions, mostly of four choices.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "eval/filters.h"
#include "eval/rows.h"
#include "eval/tasks/tasks.h"
#include "text/json_reader.h"

namespace swiftkv {
namespace {

struct Question {
  std::string text;
  std::vector<std::string> choices;
  std::vector<std::string> labels;
  std::string answer_key;

  int64_t gold() const { return std::find(labels.begin(), labels.end(), answer_key) - labels.begin(); }
};

// The set's own rows ({question: {stem, choices: [{text, label}]}}), or those of its copy on the Hugging Face hub
// ({question, choices: {text: [], label: []}}).
Result<Question> ReadQuestion(const JsonObject& row) {
  Question question;
  SWIFTKV_ASSIGN_OR_RETURN(question.answer_key, row.String("answerKey"));
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* text, row.Get("question"));
  if (text->is_string()) {
    question.text = text->get<std::string>();
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject choices, row.Object("choices"));
    SWIFTKV_ASSIGN_OR_RETURN(question.choices, Strings(choices, "text", 2));
    SWIFTKV_ASSIGN_OR_RETURN(question.labels, Strings(choices, "label", 2));
  } else {
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject inner, row.Object("question"));
    SWIFTKV_ASSIGN_OR_RETURN(question.text, inner.String("stem"));
    SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* choices, inner.Array("choices"));
    for (const nlohmann::json& value : *choices) {
      SWIFTKV_ASSIGN_OR_RETURN(const JsonObject choice, JsonObject::From(value, inner.Place("choices")));
      SWIFTKV_ASSIGN_OR_RETURN(question.choices.emplace_back(), choice.String("text"));
      SWIFTKV_ASSIGN_OR_RETURN(question.labels.emplace_back(), choice.String("label"));
    }
  }
  if (question.choices.size() < 2 || question.choices.size() != question.labels.size()) {
    return InvalidInput("{}: {} choices and {} labels; there must be two or more, as many of each", row.place(),
                        question.choices.size(), question.labels.size());
  }
  if (question.gold() == static_cast<int64_t>(question.labels.size())) {
    return InvalidInput("{}: the answerKey {} is none of the labels", row.place(), question.answer_key);
  }
  return question;
}

Result<std::vector<Question>> ReadQuestions(const std::string& path) {
  std::vector<Question> questions;
  SWIFTKV_RETURN_IF_ERROR(ForEachRow(path, [&](const JsonObject& row) -> Status {
    SWIFTKV_ASSIGN_OR_RETURN(questions.emplace_back(), ReadQuestion(row));
    return Ok();
  }));
  return questions;
}

class ArcQuestions : public Task {
 public:
  ArcQuestions(TaskInfo info, std::vector<Question> questions)
      : Task(std::move(info)), questions_(std::move(questions)) {}
  int64_t size() const override { return static_cast<int64_t>(questions_.size()); }
  std::string Target(int64_t document) const override { return at(document).answer_key; }

 protected:
  const Question& at(int64_t document) const { return questions_[static_cast<size_t>(document)]; }

 private:
  std::vector<Question> questions_;
};

// The number is that of the choices; the letters and lines stop at D. A gold answer of "1" to "4" (22 rows of the test
// set) is compared as it stands and never right, as in the card's runs.
std::string CardText(const Question& question) {
  const size_t count = question.choices.size();
  const std::string letters = fmt::format("A, B{}{}", count > 2 ? ", C" : "", count > 3 ? " and D" : "");
  std::string text =
      fmt::format("Given the following question and {} candidate answers ({}), choose the best answer.\nQuestion: {}\n",
                  count, letters, question.text);
  for (size_t i = 0; i < std::min<size_t>(count, 4); ++i) {
    text += fmt::format("{}. {}\n", static_cast<char>('A' + i), question.choices[i]);
  }
  return text + fmt::format(
                    "Your response should end with \"The best answer is [the_answer_letter]\" where the "
                    "[the_answer_letter] is one of {}",
                    letters);
}

class CardArc final : public ArcQuestions {
 public:
  using ArcQuestions::ArcQuestions;
  Prompt MakePrompt(int64_t document) const override { return {.turns = {{"user", CardText(at(document))}}}; }
  Outcome Score(int64_t document, const Response& response) const override {
    std::string letter = FirstLetter(response.text);
    const double score = letter == at(document).answer_key ? 1 : 0;
    return {.scores = {score}, .filtered = {std::move(letter)}};
  }
};

std::string PlainText(const Question& question) { return fmt::format("Question: {}\nAnswer:", question.text); }

class LeaderboardArc final : public ArcQuestions {
 public:
  LeaderboardArc(TaskInfo info, std::vector<Question> questions, const std::vector<Question>& shots)
      : ArcQuestions(std::move(info), std::move(questions)) {
    for (const Question& shot : shots) {
      shots_ += fmt::format("{} {}\n\n", PlainText(shot), shot.choices[static_cast<size_t>(shot.gold())]);
    }
  }
  Prompt MakePrompt(int64_t document) const override {
    Prompt prompt;
    for (const std::string& choice : at(document).choices) {
      prompt.choices.push_back({shots_ + PlainText(at(document)), " " + choice});
    }
    return prompt;
  }
  Outcome Score(int64_t document, const Response& response) const override {
    std::vector<int64_t> lengths;
    for (const std::string& choice : at(document).choices) lengths.push_back(Characters(choice));
    std::vector<double> scores = ChoiceScores(response.choices, lengths, at(document).gold());
    return {.scores = {scores[1], scores[0]}};
  }

 private:
  std::string shots_;
};

}  // namespace

Result<std::unique_ptr<Task>> LoadArcChallenge(const TaskOptions& options, const std::string& folder,
                                               const std::string& documents) {
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Question> questions, ReadQuestions(documents));
  if (options.protocol == Protocol::kCard) {
    return std::make_unique<CardArc>(TaskInfo{.name = "arc_challenge_llama_3.1_instruct",
                                              .title = "ARC-Challenge",
                                              .metrics = {{"exact_match", "multi_choice_regex"}},
                                              .until = CardStops(),
                                              .uses_chat_template = true},
                                     std::move(questions));
  }
  constexpr size_t kShots = 25;
  const std::string path = folder + "/arc_challenge/train.jsonl";
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<Question> shots, ReadQuestions(path));
  SWIFTKV_RETURN_IF_ERROR(KeepShots(kShots, path, &shots));
  return std::make_unique<LeaderboardArc>(TaskInfo{.name = "arc_challenge",
                                                   .title = "ARC-Challenge",
                                                   .num_fewshot = kShots,
                                                   .metrics = {{"acc_norm", "none"}, {"acc", "none"}}},
                                          std::move(questions), shots);
}

}  // namespace swiftkv
