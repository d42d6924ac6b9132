// MMLU-CoT: MMLU without shots, the answer after a chain of thought.
#include <utility>

#include "eval/filters.h"
#include "eval/tasks/mmlu_questions.h"
#include "eval/tasks/tasks.h"

namespace swiftkv {
namespace {

constexpr char kInstructions[] =
    "\n\n- For simple problems:\nDirectly provide the answer with minimal explanation.\n\n"
    "- For complex problems:\nUse this step-by-step format:\n"
    "## Step 1: [Concise description]\n[Brief explanation]\n"
    "## Step 2: [Concise description]\n[Brief explanation]\n\n"
    "Regardless of the approach, always conclude with:\nThe best answer is [the_answer_letter].\n"
    "where the [the_answer_letter] is one of A, B, C or D.\n\n"
    "Let's think step by step.";

class MmluCot final : public MmluTask {
 public:
  using MmluTask::MmluTask;
  Prompt MakePrompt(int64_t document) const override {
    return {.turns = {{"user", MmluCardText(at(document)) + kInstructions}}};
  }
  Outcome Score(int64_t document, const Response& response) const override {
    std::string letter = BestAnswer(response.text);
    const double score = letter == at(document).letter() ? 1 : 0;
    return {.scores = {score}, .filtered = {std::move(letter)}};
  }
};

}  // namespace

Result<std::unique_ptr<Task>> LoadMmluCot(const TaskOptions& options, const std::string& /*folder*/,
                                          const std::string& documents) {
  if (options.protocol != Protocol::kCard) {
    return NotFound("mmlu_cot is no task of the leaderboard's; name others in --tasks");
  }
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<MmluQuestion> questions, ReadMmluQuestions(documents));
  return std::make_unique<MmluCot>(TaskInfo{.name = "mmlu_cot_0shot_llama_3.1_instruct",
                                            .title = "MMLU-CoT",
                                            .metrics = {{"exact_match", "strict-match"}},
                                            .until = {"</s>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>"},
                                            .uses_chat_template = true},
                                   std::move(questions));
}

}  // namespace swiftkv
