// The same load on an Engine in this process: no server, no text, the scheduler and the model alone.
//
//   SWIFTKV_ASSIGN_OR_RETURN(const LoadRun run, RunEngineLoad(model.weights, Mode::kStudent, requests, {}));
#ifndef SWIFTKV_BENCH_ENGINE_LOAD_H_
#define SWIFTKV_BENCH_ENGINE_LOAD_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/status.h"
#include "bench/load_run.h"
#include "engine/engine.h"

namespace swiftkv {

struct EngineLoadOptions {
  SchedulerOptions scheduler = {};
  int64_t kv_cache_tokens = 0;  // 0: for as many requests as may run at once, within half the memory available
  std::optional<DType> kv_cache_dtype = {};         // absent: the weights' own; kI8: half of that
  std::function<bool()> cancelled = {};             // asked before every step
  std::function<void(int64_t done)> progress = {};  // after each request
};

// Requests in the order of their arrival, with prompt_token_ids; greedy, each to its output_tokens. What fails
// within the engine is its outcome's failure. Errors: those of Engine::Create and Add; kCancelled.
Result<LoadRun> RunEngineLoad(const Weights& weights, Mode mode, const std::vector<LoadRequest>& requests,
                              const EngineLoadOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_ENGINE_LOAD_H_
