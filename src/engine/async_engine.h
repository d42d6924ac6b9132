// The engine on a thread of its own: any thread submits requests and cancels them, outputs come back by callback.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto engine, AsyncEngine::Start(weights, mode, &tokenizer, {}));
//   SWIFTKV_ASSIGN_OR_RETURN(int64_t id, engine->Submit(std::move(request), [](RequestEvent event) { ... }));
//   engine->Abort(id);      // the client went away
//   engine->Drain();        // nothing new; what runs may finish
//
// Every method is thread-safe. A callback runs on the engine thread: it hands its event on and returns at once.
#ifndef SWIFTKV_ENGINE_ASYNC_ENGINE_H_
#define SWIFTKV_ENGINE_ASYNC_ENGINE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/status.h"
#include "engine/engine.h"

namespace swiftkv {

struct AsyncEngineOptions {
  EngineOptions engine = {};
  int64_t max_waiting = 1024;  // requests that wait for their first step; more are refused
};

// When what happened to a request; a default-constructed time: not yet.
struct RequestTimes {
  using Time = std::chrono::steady_clock::time_point;
  Time arrival;       // Submit
  Time scheduled;     // the first step that computed a token of it began
  Time first_token;   // the first output token of any choice
  Time last_output;   // this event
};

struct RequestEvent {
  RequestOutput output;  // one step's news of one choice
  RequestTimes times;
  bool finished = false;  // the whole request has ended: the last event
  // Set: the request ended without a result (a failed step, a deadline that passed); `finished` is true then.
  Status error = Ok();
};

// Counters since the start, and what holds now. Names follow vLLM's metrics.
struct EngineStats {
  int64_t num_requests_running = 0;
  int64_t num_requests_waiting = 0;
  double kv_cache_usage = 0;  // 0 .. 1: blocks that a running request holds
  int64_t kv_cache_tokens = 0;
  int64_t kv_cache_bytes_per_token = 0;
  int64_t prefix_cache_queries = 0;  // prompt tokens looked up
  int64_t prefix_cache_hits = 0;     // prompt tokens found
  int64_t num_preemptions = 0;
  int64_t steps = 0;
  int64_t prompt_tokens = 0;      // computed or found in the cache
  int64_t generation_tokens = 0;
  // SwiftKV's own: prompt tokens that ran the first n layers only, and the multiply-adds that the later layers would
  // have cost them.
  int64_t prompt_tokens_skipped_layers = 0;
  double skipped_flops = 0;
  double computed_flops = 0;
};

class AsyncEngine {
 public:
  using OnEvent = std::function<void(RequestEvent)>;
  // Called on the engine thread after every step, with the tokens that the step computed (iteration_tokens_total).
  using OnStep = std::function<void(int64_t tokens)>;

  // `weights` and `tokenizer` must outlive it. Errors: those of Engine::Create.
  static Result<std::unique_ptr<AsyncEngine>> Start(const Weights& weights, Mode mode, const Tokenizer* tokenizer,
                                                    const AsyncEngineOptions& options, OnStep on_step = nullptr);
  // Ends what still runs (its last event has error kCancelled) and joins the thread.
  ~AsyncEngine();

  // The id for Abort. Errors: those of Engine::Add, at once and on the caller's thread; kResourceExhausted when
  // max_waiting requests wait, or after Drain. Events may come before Submit returns. No event after the one that is
  // `finished`.
  Result<int64_t> Submit(Request request, OnEvent on_event);
  // Ends a request; it gets no more events than those already under way. Unknown ids are ignored.
  void Abort(int64_t request_id);
  // From now on Submit refuses; what runs or waits goes on.
  void Drain();
  bool draining() const;
  // True when nothing runs or waits.
  bool idle() const;

  EngineStats stats() const;
  int64_t max_model_len() const;

 private:
  class Impl;
  explicit AsyncEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_ASYNC_ENGINE_H_
