// What a load generator sends and what it saw: plain data, shared by the HTTP client, the engine's driver and the
// report.
#ifndef SWIFTKV_BENCH_LOAD_RUN_H_
#define SWIFTKV_BENCH_LOAD_RUN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace swiftkv {

struct LoadRequest {
  std::string prompt = {};                     // or, where that is empty:
  std::vector<int32_t> prompt_token_ids = {};  // the same as ids
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;  // asked for: max_tokens with ignore_eos
  double arrival = 0;         // seconds after the run's start at which it is to be sent
};

struct RequestFailure {
  std::string kind;    // what failures are counted by: "connect", "timeout", "http 503", ...
  std::string detail;  // one sentence
};

// Times are in seconds.
struct RequestOutcome {
  double start = 0;                            // of sending, after the run's start
  double ttft = 0;                             // from sending to the first streamed output
  double latency = 0;                          // from sending to the last streamed output
  std::vector<double> inter_token = {};        // gaps between streamed outputs
  int64_t prompt_tokens = 0;                   // as the server counts them, where it says so
  int64_t output_tokens = 0;                   // the same
  std::string text = {};                       // where it is to be kept
  std::optional<RequestFailure> failure = {};  // set: the rest is what was seen before
};

struct LoadRun {
  std::vector<RequestOutcome> outcomes;  // by request
  double duration = 0;                   // seconds from the start to the end of the last request
  int64_t max_concurrent = 0;            // requests under way at one time
};

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_LOAD_RUN_H_
