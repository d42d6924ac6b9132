// Offline throughput: all requests at once, base and SwiftKV one after the other, each in an engine of its own.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto results, MeasureThroughput(model, workload.requests, {}));
//   results[1].report.total_token_throughput() / results[0].report.total_token_throughput();   // SwiftKV over base
#ifndef SWIFTKV_BENCH_THROUGHPUT_H_
#define SWIFTKV_BENCH_THROUGHPUT_H_

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
  ServeReport report;
};

// Errors: those of RunEngineLoad.
Result<std::vector<ThroughputResult>> MeasureThroughput(const MeasuredModel& model,
                                                        const std::vector<LoadRequest>& requests,
                                                        const EngineLoadOptions& options);

std::string ThroughputText(const MachineInfo& machine, const ModelInfo& model,
                           const std::vector<ThroughputResult>& results);
// One object for each mode, with the fields of `vllm bench throughput` and of its serving benchmark.
nlohmann::ordered_json ThroughputJson(const MachineInfo& machine, const ModelInfo& model,
                                      const std::vector<ThroughputResult>& results);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_THROUGHPUT_H_
