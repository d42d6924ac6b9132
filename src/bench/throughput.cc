#include "bench/throughput.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "bench/statistics.h"

namespace swiftkv {
namespace {

constexpr int64_t kWarmUpPromptTokens = 64;
constexpr int64_t kWarmUpOutputTokens = 2;

// Touches weights and threads, whose first use is slower than any other.
Status WarmUp(const MeasuredModel& model, const LoadRequest& request, EngineLoadOptions options) {
  LoadRequest brief = request;
  brief.prompt_tokens = std::min(request.prompt_tokens, kWarmUpPromptTokens);
  brief.prompt_token_ids.resize(static_cast<size_t>(brief.prompt_tokens));
  brief.output_tokens = std::min(request.output_tokens, kWarmUpOutputTokens);
  options.progress = nullptr;
  for (const Mode mode : model.modes) {
    SWIFTKV_RETURN_IF_ERROR(RunEngineLoad(model.weights, mode, {brief}, options));
  }
  return Ok();
}

std::string SpeedCell(const ThroughputResult& result) {
  std::string mean = fmt::format("{:.1f}", result.tokens_per_second());
  if (result.rounds.size() < 2) return mean;
  return fmt::format("{} ± {:.1f}", mean, SampleStandardDeviation(result.speeds()));
}

}  // namespace

std::vector<double> ThroughputResult::speeds() const {
  std::vector<double> speeds;
  for (const ServeReport& report : rounds) speeds.push_back(report.total_token_throughput());
  return speeds;
}

double ThroughputResult::tokens_per_second() const { return Mean(speeds()); }

Result<std::vector<ThroughputResult>> MeasureThroughput(const MeasuredModel& model,
                                                        const std::vector<LoadRequest>& requests,
                                                        const EngineLoadOptions& options, int64_t repetitions) {
  SWIFTKV_RETURN_IF_ERROR(WarmUp(model, requests.front(), options));
  std::vector<ThroughputResult> results;
  for (const Mode mode : model.modes) results.push_back({mode, {}});
  for (int64_t repetition = 0; repetition < repetitions; ++repetition) {
    for (ThroughputResult& result : results) {
      SWIFTKV_ASSIGN_OR_RETURN(const LoadRun run, RunEngineLoad(model.weights, result.mode, requests, options));
      result.rounds.push_back(MakeServeReport(requests, run, {}));
    }
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
  for (const ThroughputResult& result : results) {
    const ServeReport& last = result.rounds.back();
    text += fmt::format("| {} | {} | {:.2f} | {:.3f} | {} | {:.1f} | {:.1f} | {:.1f} |\n", ModeLabel(result.mode),
                        last.completed, last.duration, last.request_throughput(), SpeedCell(result),
                        last.output_throughput(), last.ttft.mean, last.tpot.mean);
  }
  if (const size_t rounds = results.front().rounds.size(); rounds > 1) {
    text += fmt::format("\nCombined tok/s: mean ± standard deviation of {} rounds in turns; the rest: the last round\n",
                        rounds);
  }
  if (results.size() < 2) return text;
  return text + fmt::format("\nSwiftKV over base, combined tok/s: {:.2f}\n",
                            results[1].tokens_per_second() / results[0].tokens_per_second());
}

nlohmann::ordered_json ThroughputJson(const MachineInfo& machine, const ModelInfo& model,
                                      const std::vector<ThroughputResult>& results) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const ThroughputResult& result : results) {
    const ServeReport& report = result.rounds.back();
    nlohmann::ordered_json object = MachineJson(machine);
    object["model"] = Printable(model.origin);
    object.update(ModelJson(model));
    object["mode"] = ModeLabel(result.mode);
    object["elapsed_time"] = report.duration;
    object["num_requests"] = report.completed;
    object["total_num_tokens"] = report.prompt_tokens + report.output_tokens;
    object["requests_per_second"] = report.request_throughput();
    object["tokens_per_second"] = report.total_token_throughput();
    object["avg_ts"] = result.tokens_per_second();
    object["stddev_ts"] = SampleStandardDeviation(result.speeds());
    object["samples_ts"] = result.speeds();
    object.update(ServeReportJson(report));
    json.push_back(std::move(object));
  }
  return json;
}

}  // namespace swiftkv
