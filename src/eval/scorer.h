// Responses of a model to the prompts of a task: log-likelihoods of choices, greedy answers.
//
//   Scorer scorer(engine.get(), &model.text, {.max_gen_toks = 256});
//   SWIFTKV_RETURN_IF_ERROR(scorer.Run(*task, documents, [&](int64_t document, Response response) { ... }));
//
// A client of the engine, whose batches it keeps full. Documents whose prompts begin alike (the shots of a task, or of
// a subject) go together: what they share is computed once, before them, and stays in the engine's cache. Choices are
// scored with prompt_logprobs from the continuation on, so that SwiftKV's later layers run for the scored rows alone.
#ifndef SWIFTKV_EVAL_SCORER_H_
#define SWIFTKV_EVAL_SCORER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/load.h"
#include "eval/task.h"

namespace swiftkv {

struct ScorerOptions {
  bool add_bos_token = false;   // the tokenizer's own special tokens before every prompt, as lm-eval's add_bos_token
  int64_t max_gen_toks = 1024;  // of an answer; a longer prompt than the context less these is cut on its left
  int64_t max_num_seqs = 64;    // the engine's
};

struct ScorerStats {
  int64_t prompt_tokens = 0;     // of all prompts, shared or not
  int64_t cached_tokens = 0;     // of them, found in the cache
  int64_t scored_tokens = 0;     // of continuations
  int64_t generated_tokens = 0;  // of answers
};

class Scorer {
 public:
  // `engine` and `text` must outlive it.
  Scorer(Engine* engine, const TextModel* text, const ScorerOptions& options)
      : engine_(engine), text_(text), options_(options) {}

  // Calls `on_response` once for each of `documents`, in the order in which they are done; its error ends the run.
  // `cancelled` is asked before every step; then error kCancelled. Other errors: those of the engine and of the chat
  // template; kInvalidInput (max_gen_toks leaves no room for a prompt).
  using OnResponse = std::function<Status(int64_t document, Response response)>;
  Status Run(const Task& task, std::span<const int64_t> documents, const OnResponse& on_response,
             const std::function<bool()>& cancelled = nullptr);

  // Of all runs so far.
  const ScorerStats& stats() const { return stats_; }

 private:
  // A prompt of a document on its way through the engine.
  struct Item {
    int64_t document = 0;
    size_t choice = 0;
    bool truncated = false;
    Request request;
  };
  // Items that begin alike.
  struct Window {
    std::vector<Item> items;
    int64_t shared_tokens = 0;
  };
  struct Pending {
    Response response;
    size_t missing = 0;  // items without a result
  };
  struct Running {
    int64_t document = 0;
    size_t choice = 0;
    Completion completion;
  };

  Result<Window> MakeWindow(const Task& task, std::span<const int64_t> documents);
  Item ScoringItem(const ScoredText& text);
  Result<Item> AnsweringItem(const Task& task, const Prompt& prompt);
  Status Submit(Window window);
  Status Take(RequestOutput output, const OnResponse& on_response);
  Status Start(Window window);
  Status Drive(const Task& task, std::span<const std::span<const int64_t>> windows, const OnResponse& on_response,
               const std::function<bool()>& cancelled);
  void AbortAll();

  Engine* engine_;
  const TextModel* text_;
  ScorerOptions options_;
  ScorerStats stats_;
  std::optional<Window> waiting_;  // for its shared beginning, which request shared_id_ computes
  int64_t shared_id_ = 0;
  std::map<int64_t, Running> running_;  // by request
  std::map<int64_t, Pending> pending_;  // by document
};

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_SCORER_H_
