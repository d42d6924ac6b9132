// Evaluates models on tasks: which documents, responses from the engine or from an earlier run, scores.
//
//   const Variant base{.name = "base", .weights = &weights, .text = &text, .mode = Mode::kTeacher};
//   SWIFTKV_ASSIGN_OR_RETURN(TaskResult result, EvaluateTask(*task, {base, swiftkv}, options));
//   Estimate score = MeanOf(result.Scores(/*variant=*/0, /*metric=*/0));
#ifndef SWIFTKV_EVAL_EVALUATION_H_
#define SWIFTKV_EVAL_EVALUATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/load.h"
#include "eval/scorer.h"
#include "eval/task.h"

namespace swiftkv {

// A model in one of its modes.
struct Variant {
  std::string name;  // "base", "swiftkv", an adapter's; part of files' names
  const Weights* weights = nullptr;
  const TextModel* text = nullptr;
  Mode mode = Mode::kTeacher;
  std::string hash;                   // of its files
  std::string quantization = "none";  // how its weights are kept, as --quantization spells it
  // Of the file that stands in for the model's own chat template; empty: none does, and `hash` covers the template.
  std::string chat_template_hash = {};
};

struct EvaluationOptions {
  ScorerOptions scorer = {};
  int64_t max_model_len = 4096;  // cut to the model's own
  int64_t max_num_batched_tokens = 2048;
  std::optional<DType> kv_cache_dtype = {};  // absent: the weights' type
  int64_t limit = 0;                         // documents of a task, drawn at random; 0: all
  uint64_t seed = 1234;                      // of that draw
  std::string output_path = {};              // folder of response files; empty: none are kept
  bool resume = false;                       // from the response files there; otherwise they are set aside
  std::function<bool()> cancelled = nullptr;
  // Documents done of one task and variant, out of all.
  std::function<void(const Task& task, const Variant& variant, int64_t done, int64_t total)> on_progress = nullptr;
  // A response file of an earlier run, and what it was renamed to.
  std::function<void(const std::string& path, const std::string& set_aside)> on_set_aside = nullptr;
};

struct VariantResult {
  std::vector<Response> responses;  // by TaskResult::documents
  std::vector<Outcome> outcomes;    // by TaskResult::documents
  ScorerStats stats;                // of this run, without what was resumed
  int64_t resumed = 0;              // documents
  double seconds = 0;               // of this run

  int64_t truncated() const;  // prompts cut on their left
  int64_t at_length() const;  // answers that max_gen_toks or the context ended
};

struct TaskResult {
  const Task* task = nullptr;
  std::vector<int64_t> documents;  // ascending
  std::vector<VariantResult> variants;

  std::vector<double> Scores(size_t variant, size_t metric) const;
  // By document: its weight in the mean of the groups' scores. Empty where the task has no groups.
  std::vector<double> GroupWeights() const;
};

// `limit` of `size` numbers, ascending; the same for the same seed on every machine. 0: all of them.
std::vector<int64_t> DrawDocuments(int64_t size, int64_t limit, uint64_t seed);

// Responses of all variants to the same documents. Errors: those of Engine, Scorer and ResponseFile; kCancelled.
Result<TaskResult> EvaluateTask(const Task& task, std::span<const Variant> variants, const EvaluationOptions& options);

// The context that evaluations of `variant` have.
int64_t MaxModelLen(const Variant& variant, const EvaluationOptions& options);

// An engine whose cache is made for an evaluation's sequences. Errors: those of Engine::Create.
Result<std::unique_ptr<Engine>> MakeEngine(const Variant& variant, const EvaluationOptions& options);

// Type of the K/V cache.
DType KvCacheDType(const Variant& variant, const EvaluationOptions& options);

// "cpu" or "cuda", as --device spells them.
std::string_view Device(const Variant& variant);

// What identifies a prompt, in results.
std::string PromptHash(const Prompt& prompt);
// The prompt's texts, before a chat template: [[context, continuation], ...], [{"role", "content"}, ...] or ["text"].
nlohmann::ordered_json PromptJson(const Prompt& prompt);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_EVALUATION_H_
