// What /metrics tells: vLLM's names behind our prefix, so that dashboards need one change, and what SwiftKV saved.
//
//   ServerMetrics metrics("smollm2-135m");
//   metrics.ObserveFinished({.times = event.times, .prompt_tokens = 512, .finished_reason = "stop"});
//   std::string text = metrics.Text(engine->stats());
#ifndef SWIFTKV_SERVER_METRICS_H_
#define SWIFTKV_SERVER_METRICS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/async_engine.h"

namespace swiftkv {

// One request to the engine that has come to its end.
struct FinishedRequest {
  RequestTimes times = {};
  int64_t prompt_tokens = 0;
  int64_t generation_tokens = 0;  // of all choices
  int32_t n = 1;
  std::string_view finished_reason;  // "stop", "length", "abort", "error"
};

// Thread-safe.
class ServerMetrics {
 public:
  explicit ServerMetrics(const std::string& model_name);
  ~ServerMetrics();

  void ObserveStep(int64_t tokens);
  void ObserveFirstToken(double seconds);
  // The time since the choice's token before.
  void ObserveNextToken(double seconds);
  void ObserveFinished(const FinishedRequest& request);
  // In Prometheus' text format 0.0.4.
  std::string Text(const EngineStats& stats) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_METRICS_H_
