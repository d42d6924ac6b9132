// Offline throughput: all requests at once, base and SwiftKV in turns, each time in an engine of its own.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto results, MeasureThroughput(model, workload.requests, {}, /*repetitions=*/3));
//   results[1].tokens_per_second() / results[0].tokens_per_second();   // SwiftKV over base
#ifndef SWIFTKV_BENCH_THROUGHPUT_H_
#define SWIFTKV_BENCH_THROUGHPUT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/engine_load.h"
#include "bench/machine.h"
#include "bench/measured_model.h"
#include "bench/serve_report.h"

namespace swiftkv {

struct ThroughputResult {
  Mode mode = Mode::kTeacher;
  std::vector<ServeReport> rounds;

  std::vector<double> speeds() const;  // input and output tokens a second, by round
  double tokens_per_second() const;    // their mean
};

// Rounds of the modes alternate, so that what else the machine does meets both alike, after a short request of each
// mode that is not measured. Errors: those of RunEngineLoad.
Result<std::vector<ThroughputResult>> MeasureThroughput(const MeasuredModel& model,
                                                        const std::vector<LoadRequest>& requests,
                                                        const EngineLoadOptions& options, int64_t repetitions);

std::string ThroughputText(const MachineInfo& machine, const ModelInfo& model,
                           const std::vector<ThroughputResult>& results);
// One object for each mode, with the fields of `vllm bench throughput` and of its serving benchmark, which are those of
// the last round, and of all rounds avg_ts, stddev_ts and samples_ts, as `bench latency` has them.
nlohmann::ordered_json ThroughputJson(const MachineInfo& machine, const ModelInfo& model,
                                      const std::vector<ThroughputResult>& results);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_THROUGHPUT_H_
