// Runs requests to their end: plans steps, computes them with Forward, samples, turns tokens into text.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto engine, Engine::Create(weights, Mode::kStudent, tokenizer, {}));
//   SWIFTKV_ASSIGN_OR_RETURN(int64_t id, engine->Add(std::move(request)));
//   while (engine->HasWork()) {
//     for (const RequestOutput& output : engine->Step()) std::cout << output.text;
//   }
//
// Not thread-safe: one owner. README.md in this folder is the contract.
#ifndef SWIFTKV_ENGINE_ENGINE_H_
#define SWIFTKV_ENGINE_ENGINE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/model_runner.h"
#include "engine/pace.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "text/tokenizer.h"

namespace swiftkv {

struct EngineOptions {
  int64_t max_model_len = 0;    // tokens of one sequence; 0: the model's max_position_embeddings
  int64_t kv_cache_tokens = 0;  // tokens that the cache holds over all sequences; 0: as kv_cache_memory says
  // Up to 1 a share of the memory that is free once the weights and a step's work memory are there, above it bytes; but
  // at least max_model_len tokens.
  double kv_cache_memory = 0;
  std::optional<DType> kv_cache_dtype = {};  // absent: the weights' type; kI8: half the memory of kBF16
  SchedulerOptions scheduler = {};
  // Of requests that bring none: they draw from it and their place among all requests. Absent: anew each time.
  std::optional<uint64_t> seed = {};
  double tpot_target_s = 0;  // what a step may take while answers run, kept by smaller prompt chunks; 0: see pace.h
  // The time of day for deadlines, pace and RequestTimes; a simulation brings its own.
  std::function<std::chrono::steady_clock::time_point()> now = std::chrono::steady_clock::now;
};

// When what happened to a request; a default-constructed time: not yet.
struct RequestTimes {
  using Time = std::chrono::steady_clock::time_point;
  Time arrival = {};      // Request::arrival, or Add
  Time scheduled = {};    // the first step that computed a token of it began
  Time first_token = {};  // the first output token of any choice
  Time last_output = {};  // this output
};

// Counters since the start, and what holds now. Names follow vLLM's metrics.
struct EngineStats {
  int64_t num_requests_running = 0;  // choices that have blocks
  int64_t num_requests_waiting = 0;
  int64_t kv_cache_tokens = 0;  // that the cache holds
  int64_t kv_cache_bytes_per_token = 0;
  double kv_cache_usage = 0;         // 0 .. 1: blocks that a running request holds
  int64_t prefix_cache_queries = 0;  // prompt tokens looked up
  int64_t prefix_cache_hits = 0;     // prompt tokens found
  int64_t num_preemptions = 0;
  int64_t steps = 0;
  int64_t computed_tokens = 0;
  int64_t prompt_tokens = 0;  // of requests whose prompt is complete, computed or found
  int64_t generation_tokens = 0;
  // SwiftKV's own: computed tokens that ran the first n layers only, and the floating-point operations of projections
  // and MLPs that were done and that the later layers would have added.
  int64_t skipped_layers_tokens = 0;
  double computed_flops = 0;
  double skipped_flops = 0;
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
  Status error = Ok();                        // set: the whole request has ended without a result
  bool finished = false;                      // the request's last output
  RequestTimes times = {};
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
  // Errors: kInvalidInput (max_model_len beyond the model's), kResourceExhausted (memory of the cache or, on a device,
  // of a step).
  static Result<std::unique_ptr<Engine>> Create(const Weights& weights, Mode mode, const Tokenizer* tokenizer,
                                                const EngineOptions& options);
  static Result<std::unique_ptr<Engine>> Create(std::unique_ptr<ModelRunner> model, const Tokenizer* tokenizer,
                                                const EngineOptions& options);
  ~Engine();

  // Whether Add would take the request; may be called from any thread. Errors, all kInvalidInput: a parameter, an empty
  // prompt, a token id out of range, a prompt that leaves no room in the context, a request that the whole cache could
  // not hold, a constraint that no end token can end.
  Status Check(const Request& request) const;
  // Queues a request and returns its id. Errors: those of Check.
  Result<int64_t> Add(Request request);
  // Ends a request at once, without another output. Unknown ids are ignored.
  void Abort(int64_t request_id);
  bool HasWork() const { return !scheduler_.idle(); }
  // One step of the model. Where it fails, the requests that were in it end with its error and the engine goes on;
  // where memory runs out, all requests end.
  std::vector<RequestOutput> Step();

  // All of it in one call, results in the order of `requests`. `cancelled` is asked before every step; then
  // error kCancelled. The first error of a request ends all.
  Result<std::vector<GenerateResult>> Generate(std::vector<Request> requests,
                                               const std::function<bool()>& cancelled = nullptr);

  RequestTimes::Time now() const { return options_.now(); }  // from any thread
  int64_t max_model_len() const { return max_model_len_; }
  const KvCache& cache() const { return cache_; }
  EngineStats stats() const;
  Status Audit() const { return scheduler_.Audit(); }

 private:
  struct Choice;
  struct Running;
  struct LogitRow;
  struct RowResult;
  using Requests = std::map<int64_t, Running>;  // by id

  Engine(std::unique_ptr<ModelRunner> model, const Tokenizer* tokenizer, const EngineOptions& options,
         int64_t max_model_len, KvCache cache);

  Status CheckConstraint(const Request& request) const;
  int64_t LongestLength(const Request& request) const;
  std::unique_ptr<Choice> MakeChoice(int64_t id, std::shared_ptr<const Request> request, int32_t index) const;
  void ForkChoices(Choice* parent);
  void RunStep(std::vector<RequestOutput>* outputs);
  void EndOverdue(std::vector<RequestOutput>* outputs);
  std::vector<LogitRow> PlanStep(const std::vector<Scheduler::Chunk>& chunks, swiftkv::Step* step) const;
  void CountStep(const std::vector<Scheduler::Chunk>& chunks, int64_t logit_rows, RequestTimes::Time begin);
  LogitReads PlanReads(const std::vector<LogitRow>& rows, int64_t begin, int64_t count);
  Status ReadTile(const std::vector<LogitRow>& rows, int64_t begin, int64_t count);
  int32_t SampleRow(const Choice& choice, std::span<const float> logits, int32_t argmax, SamplerScratch* scratch) const;
  RequestOutput Advance(Choice* choice);
  void AppendText(Choice* choice, int32_t token_id, RequestOutput* output);
  void Retire(Choice* choice);
  void Forget(Requests::iterator request);
  RequestOutput Fail(int64_t request_id, Error error);

  std::unique_ptr<ModelRunner> model_;
  const Tokenizer* tokenizer_;
  EngineOptions options_;
  int64_t max_model_len_;
  std::vector<int32_t> eos_token_ids_;
  KvCache cache_;
  Scheduler scheduler_;
  Pace pace_;
  Requests requests_;
  std::set<std::pair<RequestTimes::Time, int64_t>> deadlines_;  // with the request's id
  int64_t next_id_ = 1;
  EngineStats stats_;  // the counters

  // Work space of ReadTile.
  std::vector<float> logits_;                     // [tile rows, vocab]
  std::vector<uint8_t> wanted_;                   // [tile rows] 1: the row is read
  std::vector<kernels::TokenDraw> draws_;         // [tile rows] temperature above 0: a device draws
  std::vector<int32_t> tokens_;                   // [tile rows], drawn
  std::vector<kernels::LogitStats> logit_stats_;  // [tile rows]
  std::vector<RowResult> results_;                // [tile rows]
  std::vector<SamplerScratch> scratch_;           // [threads]
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_ENGINE_H_
