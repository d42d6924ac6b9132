#include "bench/throughput.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"

namespace swiftkv {

Result<std::vector<ThroughputResult>> MeasureThroughput(const MeasuredModel& model,
                                                        const std::vector<LoadRequest>& requests,
                                                        const EngineLoadOptions& options) {
  std::vector<ThroughputResult> results;
  for (const Mode mode : model.modes) {
    SWIFTKV_ASSIGN_OR_RETURN(const LoadRun run, RunEngineLoad(model.weights, mode, requests, options));
    results.push_back({mode, MakeServeReport(requests, run, {})});
  }
  return results;
}

std::string ThroughputText(const MachineInfo& machine, const ModelInfo& model,
                           const std::vector<ThroughputResult>& results) {
  std::string text = fmt::format(
      "{}\n{}\n\n"
      "| mode | requests | seconds | requests/s | combined tok/s | output tok/s | mean TTFT, ms | mean TPOT, ms |\n"
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
      MachineText(machine), ModelText(model));
  for (const auto& [mode, report] : results) {
    text += fmt::format("| {} | {} | {:.2f} | {:.3f} | {:.1f} | {:.1f} | {:.1f} | {:.1f} |\n", ModeLabel(mode),
                        report.completed, report.duration, report.request_throughput(), report.total_token_throughput(),
                        report.output_throughput(), report.ttft.mean, report.tpot.mean);
  }
  if (results.size() < 2) return text;
  return text + fmt::format("\nSwiftKV over base, combined tok/s: {:.2f}\n",
                            results[1].report.total_token_throughput() / results[0].report.total_token_throughput());
}

nlohmann::ordered_json ThroughputJson(const MachineInfo& machine, const ModelInfo& model,
                                      const std::vector<ThroughputResult>& results) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const auto& [mode, report] : results) {
    nlohmann::ordered_json object = MachineJson(machine);
    object["model"] = Printable(model.origin);
    object.update(ModelJson(model));
    object["mode"] = ModeLabel(mode);
    object["elapsed_time"] = report.duration;
    object["num_requests"] = report.completed;
    object["total_num_tokens"] = report.prompt_tokens + report.output_tokens;
    object["requests_per_second"] = report.request_throughput();
    object["tokens_per_second"] = report.total_token_throughput();
    object.update(ServeReportJson(report));
    json.push_back(std::move(object));
  }
  return json;
}

}  // namespace swiftkv
