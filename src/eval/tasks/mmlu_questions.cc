#include "eval/tasks/mmlu_questions.h"

#include <fmt/format.h>

#include <algorithm>

#include "eval/filters.h"
#include "eval/rows.h"
#include "text/json_reader.h"

namespace swiftkv {
namespace {

struct Category {
  std::string_view name;
  std::vector<std::string_view> subjects;
};

// As the benchmark's authors and lm-eval group the subjects; those that are not here are "other".
const std::vector<Category>& Categories() {
  static const auto* const categories = new std::vector<Category>{
      {"humanities",
       {"formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
        "international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
        "prehistory", "professional_law", "world_religions"}},
      {"social_sciences",
       {"econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics",
        "high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology",
        "public_relations", "security_studies", "sociology", "us_foreign_policy"}},
      {"stem",
       {"abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
        "college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
        "elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
        "high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"}},
  };
  return *categories;
}

}  // namespace

std::string_view MmluCategory(std::string_view subject) {
  for (const Category& category : Categories()) {
    const auto& subjects = category.subjects;
    if (std::find(subjects.begin(), subjects.end(), subject) != subjects.end()) return category.name;
  }
  return "other";
}

Result<std::vector<MmluQuestion>> ReadMmluQuestions(const std::string& path) {
  constexpr size_t kChoices = 4;
  std::vector<MmluQuestion> questions;
  SWIFTKV_RETURN_IF_ERROR(ForEachRow(path, [&](const JsonObject& row) -> Status {
    MmluQuestion question;
    SWIFTKV_ASSIGN_OR_RETURN(question.subject, row.String("subject"));
    SWIFTKV_ASSIGN_OR_RETURN(const std::string text, row.String("question"));
    question.text = Strip(text);
    SWIFTKV_ASSIGN_OR_RETURN(question.choices, Strings(row, "choices", kChoices));
    SWIFTKV_ASSIGN_OR_RETURN(question.gold, row.Int("answer", 0, kChoices - 1));
    questions.push_back(std::move(question));
    return Ok();
  }));
  return questions;
}

std::string QuestionAndChoices(const MmluQuestion& question) {
  return fmt::format("{}\nA. {}\nB. {}\nC. {}\nD. {}\n", question.text, question.choices[0], question.choices[1],
                     question.choices[2], question.choices[3]);
}

std::string MmluCardText(const MmluQuestion& question) {
  return fmt::format(
      "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n"
      "Question: {}"
      "Your response should end with \"The best answer is [the_answer_letter]\" where the [the_answer_letter] is one "
      "of A, B, C or D.",
      QuestionAndChoices(question));
}

}  // namespace swiftkv
