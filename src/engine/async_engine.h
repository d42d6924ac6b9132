// The engine on a thread of its own: any thread submits requests and cancels them, outputs come back by callback.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto engine, AsyncEngine::Start(weights, mode, &tokenizer, {}));
//   SWIFTKV_ASSIGN_OR_RETURN(int64_t id, engine->Submit(std::move(request), [](RequestOutput output) { ... }));
//   engine->Abort(id);      // the client went away
//   engine->Drain();        // nothing new; what runs may finish
//
// Every method is thread-safe. A callback runs on the engine thread: it hands its output on and returns at once.
#ifndef SWIFTKV_ENGINE_ASYNC_ENGINE_H_
#define SWIFTKV_ENGINE_ASYNC_ENGINE_H_

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

class AsyncEngine {
 public:
  // An output with `finished` is the last of its request; where it has an error, the request ended without a result.
  using OnOutput = std::function<void(RequestOutput)>;
  // Called on the engine thread after every step, with the number of tokens computed (vLLM's iteration_tokens_total).
  using OnStep = std::function<void(int64_t tokens)>;

  // `weights` and `tokenizer` must outlive it. Errors: those of Engine::Create.
  static Result<std::unique_ptr<AsyncEngine>> Start(const Weights& weights, Mode mode, const Tokenizer* tokenizer,
                                                    const AsyncEngineOptions& options, OnStep on_step = nullptr);
  // As above, over an engine that exists.
  AsyncEngine(std::unique_ptr<Engine> engine, int64_t max_waiting, OnStep on_step = nullptr);
  // Ends what still runs (its last output has error kCancelled) and joins the thread.
  ~AsyncEngine();

  // The id for Abort. Errors: those of Engine::Check, found on the caller's thread; kResourceExhausted when max_waiting
  // requests wait, kCancelled after Drain. Outputs may come before Submit returns.
  Result<int64_t> Submit(Request request, OnOutput on_output);
  // Ends a request; it gets no more outputs than those already under way. Unknown ids are ignored.
  void Abort(int64_t request_id);
  // From now on Submit refuses; what runs or waits goes on.
  void Drain();
  bool draining() const;
  // True when nothing runs or waits.
  bool idle() const;

  EngineStats stats() const;  // as of the last step
  int64_t max_model_len() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_ASYNC_ENGINE_H_
