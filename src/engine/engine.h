// Runs requests to their end: plans steps, computes them with Forward, samples, turns tokens into text.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto engine, Engine::Create(weights, Mode::kStudent, tokenizer, {}));
//   SWIFTKV_ASSIGN_OR_RETURN(int64_t id, engine->Add(std::move(request)));
//   while (engine->HasWork()) {
//     SWIFTKV_ASSIGN_OR_RETURN(std::vector<RequestOutput> news, engine->Step());
//     for (const RequestOutput& output : news) std::cout << output.text;
//   }
//
// Not thread-safe: one owner. README.md in this folder is the contract.
#ifndef SWIFTKV_ENGINE_ENGINE_H_
#define SWIFTKV_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "model/forward.h"
#include "text/tokenizer.h"

namespace swiftkv {

struct EngineOptions {
  int64_t max_model_len = 0;    // tokens of one sequence; 0: the model's max_position_embeddings
  int64_t kv_cache_tokens = 0;  // tokens that the cache holds over all sequences; 0: max_model_len
  SchedulerOptions scheduler = {};
};

// What one step brought for one choice of one request.
struct RequestOutput {
  int64_t request_id = 0;
  int32_t index = 0;               // the choice, 0 .. n - 1
  std::vector<int32_t> token_ids;  // new tokens, the end token included
  std::string text;                // new text that is certain; without the end token or stop string
  std::vector<PositionLogprobs> logprobs;
  // Choice 0, once, with the step that finishes the prompt: tokens prompt_logprobs_begin .. of the prompt.
  std::vector<PositionLogprobs> prompt_logprobs;
  int64_t cached_tokens = 0;                  // of the prompt, found in the cache
  std::optional<FinishReason> finish_reason;  // set: the choice has ended
  std::string stop_reason;                    // the stop string that ended it
};

// Adds one step's news to what a choice has so far.
void Append(RequestOutput output, Completion* completion);

struct GenerateResult {
  std::vector<Completion> completions = {};  // by choice
  std::vector<PositionLogprobs> prompt_logprobs = {};
};

class Engine {
 public:
  // `weights` and `tokenizer` must outlive the engine; `tokenizer` may be null: no text, no stop strings.
  // Errors: kInvalidInput (max_model_len beyond the model's), kResourceExhausted (cache memory).
  static Result<std::unique_ptr<Engine>> Create(const Weights& weights, Mode mode, const Tokenizer* tokenizer,
                                                const EngineOptions& options);
  ~Engine();

  // Queues a request and returns its id. Errors, all kInvalidInput: a parameter, an empty prompt, a token id out of
  // range, a prompt that leaves no room in the context, a request that the whole cache could not hold.
  Result<int64_t> Add(Request request);
  // Ends a request at once, without another output. Unknown ids are ignored.
  void Abort(int64_t request_id);
  bool HasWork() const { return !scheduler_.idle(); }
  // One step of the model. After an error the requests that were in the step are gone; the engine goes on.
  Result<std::vector<RequestOutput>> Step();

  // All of it in one call, results in the order of `requests`. `cancelled` is asked before every step; then
  // error kCancelled.
  Result<std::vector<GenerateResult>> Generate(std::vector<Request> requests,
                                               const std::function<bool()>& cancelled = nullptr);

  int64_t max_model_len() const { return max_model_len_; }
  const KvCache& cache() const { return cache_; }

 private:
  struct Choice;
  struct LogitRow;
  struct RowResult;

  Engine(const Weights& weights, Forward forward, const Tokenizer* tokenizer, const EngineOptions& options,
         int64_t max_model_len, KvCache cache);

  std::unique_ptr<Choice> MakeChoice(int64_t id, std::shared_ptr<const Request> request, int32_t index) const;
  void ForkChoices(Choice* parent);
  std::vector<LogitRow> PlanStep(const std::vector<Scheduler::Chunk>& chunks, swiftkv::Step* step) const;
  void ReadTile(const std::vector<LogitRow>& rows, int64_t begin, int64_t count);
  RequestOutput Advance(Choice* choice);
  void AppendText(Choice* choice, int32_t token_id, RequestOutput* output);
  void Retire(Choice* choice);
  void Drop(int64_t request_id, bool keep);

  const Weights* weights_;
  const Tokenizer* tokenizer_;
  int64_t max_model_len_;
  std::vector<int32_t> eos_token_ids_;
  KvCache cache_;
  Forward forward_;
  Scheduler scheduler_;
  std::map<int64_t, std::vector<std::unique_ptr<Choice>>> requests_;  // by id; the choices that still run or wait
  int64_t next_id_ = 1;

  // Work space of ReadTile.
  std::vector<float> logits_;               // [tile rows, vocab]
  std::vector<kernels::LogitStats> stats_;  // [tile rows]
  std::vector<RowResult> results_;          // [tile rows]
  std::vector<SamplerScratch> scratch_;     // [threads]
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_ENGINE_H_
