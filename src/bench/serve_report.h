// What a load run amounts to, in the terms and the JSON fields of `vllm bench serve`.
//
//   const ServeReport report = MakeServeReport(run, options);
//   ServeReportText(report);   // for people, with the formulas
#ifndef SWIFTKV_BENCH_SERVE_REPORT_H_
#define SWIFTKV_BENCH_SERVE_REPORT_H_

#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/load_run.h"
#include "bench/statistics.h"

namespace swiftkv {

// Limits in milliseconds that a request must keep to count as goodput.
struct Goodput {
  std::optional<double> ttft = {};
  std::optional<double> tpot = {};
  std::optional<double> e2el = {};
};
// From "ttft:200", "tpot:50", "e2el:5000". Error kInvalidInput.
Result<Goodput> ParseGoodput(const std::vector<std::string>& limits);

struct ServeReportOptions {
  std::vector<double> percents = {50, 90, 99};
  std::vector<std::string> metrics = {"ttft", "tpot", "itl", "e2el"};  // that stand in the report
  std::optional<Goodput> goodput = {};
  // What was asked for, to stand in the report.
  double request_rate = std::numeric_limits<double>::infinity();
  double burstiness = 1;
  int64_t max_concurrency = 0;  // 0: none
};

// Times in milliseconds.
struct ServeReport {
  ServeReportOptions options;
  int64_t completed = 0;
  std::map<std::string, int64_t> failures;             // by kind
  std::map<std::string, std::string> failure_example;  // one detail of each kind
  double duration = 0;                                 // seconds
  int64_t prompt_tokens = 0;                           // of completed requests
  int64_t output_tokens = 0;                           // of completed requests
  int64_t good_requests = 0;                           // within the limits of goodput
  int64_t max_concurrent = 0;
  double max_output_tokens_per_second = 0;  // outputs in the fullest whole second
  double mean_start_delay = 0;              // from due to sent: what max_concurrency held back
  double max_start_delay = 0;
  Summary ttft;
  Summary tpot;
  Summary itl;
  Summary e2el;

  int64_t failed() const;
  double request_throughput() const { return PerSecond(static_cast<double>(completed)); }
  double request_goodput() const { return PerSecond(static_cast<double>(good_requests)); }
  double output_throughput() const { return PerSecond(static_cast<double>(output_tokens)); }
  double total_token_throughput() const { return PerSecond(static_cast<double>(prompt_tokens + output_tokens)); }

 private:
  double PerSecond(double count) const { return duration > 0 ? count / duration : 0; }
};

ServeReport MakeServeReport(const std::vector<LoadRequest>& requests, const LoadRun& run,
                            const ServeReportOptions& options);

std::string ServeReportText(const ServeReport& report);
// Field names of vllm's result file.
nlohmann::ordered_json ServeReportJson(const ServeReport& report);
// What ServeReportJson wrote, with the usual percentiles and without goodput. Error kInvalidInput: a field is missing.
Result<ServeReport> ParseServeReport(const nlohmann::ordered_json& json);
// --save-detailed: input_lens, output_lens, start_times, ttfts, itls, generated_texts, errors; by request, seconds.
nlohmann::ordered_json DetailsJson(const LoadRun& run);

// What the figures mean, one formula a line.
inline constexpr char kServeFormulas[] =
    "TTFT = from sending the request, connecting included, to its first streamed output\n"
    "E2EL = from sending the request to its last streamed output\n"
    "TPOT = (E2EL - TTFT) / (output tokens - 1), of requests with 2 and more output tokens\n"
    "ITL  = gaps between streamed outputs, those of all requests together\n"
    "throughputs = totals of completed requests / benchmark duration; goodput counts requests within all limits\n"
    "percentiles are linear between ranks, std is of the population (numpy's defaults)\n";

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_SERVE_REPORT_H_
