// What an evaluation is: documents, the prompt of each, and the score of a model's response to it.
//
//   SWIFTKV_ASSIGN_OR_RETURN(std::unique_ptr<Task> task, LoadTask("arc_challenge", {}, "data/eval"));
//   Prompt prompt = task->MakePrompt(0);
//   Outcome outcome = task->Score(0, response);   // outcome.scores: one for each of task->info().metrics
//
// Prompts, filters and metrics are those of the SwiftKV model card's runs, or of the Open LLM Leaderboard v1
// (docs/eval.md). A task holds parsed rows and builds prompts when asked.
#ifndef SWIFTKV_EVAL_TASK_H_
#define SWIFTKV_EVAL_TASK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace swiftkv {

enum class Protocol {
  kCard,         // chat-templated generation where the card's runs have it
  kLeaderboard,  // plain text, for base models
};
std::string_view Name(Protocol protocol);  // "card", "leaderboard"

// Which of TruthfulQA's choices are true. The rules differ in 2 of its 817 rows.
enum class TruthfulqaLabels {
  kAll,      // those labelled 1: lm-eval today
  kLeading,  // those before the first 0: lm-eval's fork of the card's runs, and the leaderboard
};
std::string_view Name(TruthfulqaLabels labels);  // "all", "leading"

struct TaskOptions {
  Protocol protocol = Protocol::kCard;
  TruthfulqaLabels truthfulqa_labels = TruthfulqaLabels::kAll;
};

// A text to score: log P(continuation | context).
struct ScoredText {
  std::string context;
  std::string continuation;
};

struct ChatTurn {
  std::string role;  // "user", "assistant"
  std::string content;
};

// One of the three is set.
struct Prompt {
  std::vector<ScoredText> choices = {};  // scored
  std::vector<ChatTurn> turns = {};      // answered, through the chat template
  std::string text = {};                 // answered, as it stands
};

struct ScoredChoice {
  double loglikelihood = 0;  // natural, summed over the continuation's tokens
  bool is_greedy = false;    // every token of it is the most likely one
};

struct Response {
  std::vector<ScoredChoice> choices = {};  // by Prompt::choices
  std::string text = {};                   // without the stop string
  int64_t truncated = 0;                   // of its prompts, how many were cut on their left
  bool at_length = false;                  // max_gen_toks or the context ended the text
};

struct Outcome {
  std::vector<double> scores;              // by TaskInfo::metrics
  std::vector<std::string> filtered = {};  // by TaskInfo::metrics: what the filter made of a text; empty for choices
};

struct Metric {
  std::string name;       // "exact_match"
  std::string filter;     // "strict-match"; "none" where nothing is filtered
  bool is_binary = true;  // 0 or 1 for each document
};

struct TaskInfo {
  std::string name;   // lm-eval's: "arc_challenge_llama_3.1_instruct"
  std::string title;  // of a table's column: "ARC-Challenge"
  int num_fewshot = 0;
  std::vector<Metric> metrics = {};     // the first is the one reported
  std::vector<std::string> until = {};  // stop strings of an answer, beside the model's end of sequence
  bool uses_chat_template = false;
  bool groups_count_alike = false;  // tables have the mean of the groups' scores, not that of all documents
};

class Task {
 public:
  explicit Task(TaskInfo info) : info_(std::move(info)) {}
  virtual ~Task() = default;
  const TaskInfo& info() const { return info_; }

  // Documents are numbered 0 .. size() - 1 in the order of the set's file.
  virtual int64_t size() const = 0;
  virtual Prompt MakePrompt(int64_t document) const = 0;
  virtual Outcome Score(int64_t document, const Response& response) const = 0;
  // The document as the set's file has it, a JSON object's text; "{}" for a task that has no file.
  std::string_view Row(int64_t document) const {
    return rows_.empty() ? std::string_view("{}") : rows_[static_cast<size_t>(document)];
  }
  void set_rows(std::vector<std::string> rows) { rows_ = std::move(rows); }
  // The right answer, as results show it.
  virtual std::string Target(int64_t document) const = 0;
  // Documents of one group have the beginning of their prompt in common, and a score of their own; empty: no groups.
  virtual std::string Group(int64_t /*document*/) const { return {}; }
  // Of groups, for scores of theirs; empty: none.
  virtual std::string Category(int64_t /*document*/) const { return {}; }

 private:
  TaskInfo info_;
  std::vector<std::string> rows_;
};

// Short names, in the order of the model card's table: arc_challenge, winogrande, hellaswag, truthfulqa_mc2, mmlu,
// mmlu_cot, gsm8k.
const std::vector<std::string>& TaskNames();

// `folder`: the sets in their original files, laid out as docs/eval.md says. Errors: kNotFound (no such task or file),
// kInvalidInput (file, line and field of what is wrong).
Result<std::unique_ptr<Task>> LoadTask(std::string_view name, const TaskOptions& options, const std::string& folder);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_TASK_H_
