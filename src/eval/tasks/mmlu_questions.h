// What the MMLU tasks share (Hendrycks et al. 2020): questions of 57 subjects with four choices each.
#ifndef SWIFTKV_EVAL_TASKS_MMLU_QUESTIONS_H_
#define SWIFTKV_EVAL_TASKS_MMLU_QUESTIONS_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "eval/task.h"

namespace swiftkv {

struct MmluQuestion {
  std::string subject;               // "abstract_algebra"
  std::string text;                  // without space at its ends
  std::vector<std::string> choices;  // [4]
  int64_t gold = 0;                  // 0 .. 3

  std::string letter() const { return std::string(1, static_cast<char>('A' + gold)); }
};

Result<std::vector<MmluQuestion>> ReadMmluQuestions(const std::string& path);

// "humanities", "social_sciences", "stem" or "other".
std::string_view MmluCategory(std::string_view subject);

// "{question}\nA. {choice}\nB. ...\n"
std::string QuestionAndChoices(const MmluQuestion& question);
// The card's user turn, up to and with "... is one of A, B, C or D."
std::string MmluCardText(const MmluQuestion& question);

class MmluTask : public Task {
 public:
  MmluTask(TaskInfo info, std::vector<MmluQuestion> questions)
      : Task(std::move(info)), questions_(std::move(questions)) {}
  int64_t size() const override { return static_cast<int64_t>(questions_.size()); }
  std::string Group(int64_t document) const override { return at(document).subject; }
  std::string Category(int64_t document) const override { return std::string(MmluCategory(at(document).subject)); }
  std::string Target(int64_t document) const override { return at(document).letter(); }

 protected:
  const MmluQuestion& at(int64_t document) const { return questions_[static_cast<size_t>(document)]; }

 private:
  std::vector<MmluQuestion> questions_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_TASKS_MMLU_QUESTIONS_H_
