#include "bench/serve_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kLabelWidth = 40;

double TpotOf(const RequestOutcome& outcome) {
  return outcome.output_tokens > 1 ? (outcome.latency - outcome.ttft) / static_cast<double>(outcome.output_tokens - 1)
                                   : 0;
}

bool IsGood(const RequestOutcome& outcome, const Goodput& limits) {
  const auto within = [](const std::optional<double>& limit, double seconds) {
    return !limit || 1000 * seconds <= *limit;
  };
  return within(limits.ttft, outcome.ttft) && within(limits.tpot, TpotOf(outcome)) &&
         within(limits.e2el, outcome.latency);
}

// Most outputs in one of the seconds 0-1, 1-2, ... of the run.
double MaxOutputsPerSecond(const LoadRun& run) {
  std::vector<int64_t> counts(static_cast<size_t>(run.duration) + 1, 0);
  const auto count = [&](double time) {
    ++counts[std::min(static_cast<size_t>(std::max(time, 0.0)), counts.size() - 1)];
  };
  for (const RequestOutcome& outcome : run.outcomes) {
    if (outcome.failure) continue;
    double time = outcome.start + outcome.ttft;
    count(time);
    for (const double gap : outcome.inter_token) count(time += gap);
  }
  return static_cast<double>(*std::max_element(counts.begin(), counts.end()));
}

struct Metric {
  const char* name;   // in JSON
  const char* label;  // in text
  const char* title;
  const Summary* summary;
};

std::vector<Metric> MetricsOf(const ServeReport& report) {
  std::vector<Metric> metrics = {{"ttft", "TTFT", "Time to First Token", &report.ttft},
                                 {"tpot", "TPOT", "Time per Output Token (excl. 1st token)", &report.tpot},
                                 {"itl", "ITL", "Inter-token Latency", &report.itl},
                                 {"e2el", "E2EL", "End-to-end Latency", &report.e2el}};
  const std::vector<std::string>& wanted = report.options.metrics;
  std::erase_if(metrics, [&](const Metric& metric) {
    return std::find(wanted.begin(), wanted.end(), metric.name) == wanted.end();
  });
  return metrics;
}

std::string Line(const std::string& label, const std::string& value) {
  return fmt::format("{:<{}} {}\n", label + ":", kLabelWidth, value);
}

std::string MetricText(const Metric& metric, const std::vector<double>& percents) {
  const auto line = [&](const std::string& what, double value) {
    return Line(fmt::format("{} {} (ms)", what, metric.label), fmt::format("{:.2f}", value));
  };
  std::string text = fmt::format("{:-^50}\n", metric.title);
  text += line("Mean", metric.summary->mean) + line("Median", metric.summary->median) +
          line("Std", metric.summary->standard_deviation);
  for (size_t i = 0; i < percents.size(); ++i) {
    text += line(fmt::format("P{:g}", percents[i]), metric.summary->percentiles[i]);
  }
  return text;
}

}  // namespace

Result<Goodput> ParseGoodput(const std::vector<std::string>& limits) {
  Goodput goodput;
  for (const std::string& limit : limits) {
    const size_t colon = std::min(limit.find(':'), limit.size());
    const std::string name = limit.substr(0, colon);
    std::optional<double>* target = name == "ttft"   ? &goodput.ttft
                                    : name == "tpot" ? &goodput.tpot
                                    : name == "e2el" ? &goodput.e2el
                                                     : nullptr;
    double value = 0;
    const char* const end = limit.data() + limit.size();
    const auto parsed = std::from_chars(limit.data() + std::min(colon + 1, limit.size()), end, value);
    if (target == nullptr || parsed.ec != std::errc() || parsed.ptr != end || !(value > 0)) {
      return InvalidInput("--goodput {}: it must be ttft:MS, tpot:MS or e2el:MS, with a number above 0",
                          Printable(limit));
    }
    *target = value;
  }
  return goodput;
}

int64_t ServeReport::failed() const {
  int64_t count = 0;
  for (const auto& [kind, number] : failures) count += number;
  return count;
}

ServeReport MakeServeReport(const std::vector<LoadRequest>& requests, const LoadRun& run,
                            const ServeReportOptions& options) {
  ServeReport report;
  report.options = options;
  report.duration = run.duration;
  report.max_concurrent = run.max_concurrent;
  std::vector<double> ttfts, tpots, itls, e2els, delays;
  for (size_t i = 0; i < run.outcomes.size(); ++i) {
    const RequestOutcome& outcome = run.outcomes[i];
    delays.push_back(1000 * (outcome.start - requests[i].arrival));
    if (outcome.failure) {
      ++report.failures[outcome.failure->kind];
      report.failure_example.emplace(outcome.failure->kind, outcome.failure->detail);
      continue;
    }
    ++report.completed;
    report.prompt_tokens += outcome.prompt_tokens;
    report.output_tokens += outcome.output_tokens;
    if (options.goodput && IsGood(outcome, *options.goodput)) ++report.good_requests;
    ttfts.push_back(1000 * outcome.ttft);
    e2els.push_back(1000 * outcome.latency);
    if (outcome.output_tokens > 1) tpots.push_back(1000 * TpotOf(outcome));
    for (const double gap : outcome.inter_token) itls.push_back(1000 * gap);
  }
  report.mean_start_delay = Mean(delays);
  if (!delays.empty()) report.max_start_delay = *std::max_element(delays.begin(), delays.end());
  report.max_output_tokens_per_second = MaxOutputsPerSecond(run);
  report.ttft = Summarize(std::move(ttfts), options.percents);
  report.tpot = Summarize(std::move(tpots), options.percents);
  report.itl = Summarize(std::move(itls), options.percents);
  report.e2el = Summarize(std::move(e2els), options.percents);
  return report;
}

std::string ServeReportText(const ServeReport& report) {
  std::string text = fmt::format("{:=^50}\n", " Serving Benchmark Result ");
  text += Line("Successful requests", std::to_string(report.completed));
  text += Line("Failed requests", std::to_string(report.failed()));
  for (const auto& [kind, count] : report.failures) {
    text += Line("  " + kind, fmt::format("{} ({})", count, report.failure_example.at(kind)));
  }
  const ServeReportOptions& options = report.options;
  if (options.max_concurrency > 0) text += Line("Maximum request concurrency", std::to_string(options.max_concurrency));
  text += Line("Request rate configured (RPS)", fmt::format("{:g}", options.request_rate));
  const auto number = [&](const std::string& label, double value) {
    text += Line(label, fmt::format("{:.2f}", value));
  };
  number("Benchmark duration (s)", report.duration);
  text += Line("Total input tokens", std::to_string(report.prompt_tokens));
  text += Line("Total generated tokens", std::to_string(report.output_tokens));
  number("Request throughput (req/s)", report.request_throughput());
  if (options.goodput) number("Request goodput (req/s)", report.request_goodput());
  number("Output token throughput (tok/s)", report.output_throughput());
  number("Peak output token throughput (tok/s)", report.max_output_tokens_per_second);
  text += Line("Peak concurrent requests", std::to_string(report.max_concurrent));
  number("Total token throughput (tok/s)", report.total_token_throughput());
  text += Line("Mean / max delay of sending (ms)",
               fmt::format("{:.2f} / {:.2f}", report.mean_start_delay, report.max_start_delay));
  for (const Metric& metric : MetricsOf(report)) text += MetricText(metric, options.percents);
  return text + fmt::format("{:=^50}\n{}", "", kServeFormulas);
}

Json ServeReportJson(const ServeReport& report) {
  const ServeReportOptions& options = report.options;
  Json json;
  // Infinity is no JSON number; vllm writes it as a string too.
  json["request_rate"] = std::isinf(options.request_rate) ? Json("inf") : Json(options.request_rate);
  json["burstiness"] = options.burstiness;
  json["max_concurrency"] = options.max_concurrency > 0 ? Json(options.max_concurrency) : Json(nullptr);
  json["duration"] = report.duration;
  json["completed"] = report.completed;
  json["failed"] = report.failed();
  json["failures"] = report.failures;
  json["total_input_tokens"] = report.prompt_tokens;
  json["total_output_tokens"] = report.output_tokens;
  json["request_throughput"] = report.request_throughput();
  json["request_goodput"] = options.goodput ? Json(report.request_goodput()) : Json(nullptr);
  json["output_throughput"] = report.output_throughput();
  json["total_token_throughput"] = report.total_token_throughput();
  json["max_output_tokens_per_s"] = report.max_output_tokens_per_second;
  json["max_concurrent_requests"] = report.max_concurrent;
  json["mean_start_delay_ms"] = report.mean_start_delay;
  json["max_start_delay_ms"] = report.max_start_delay;
  for (const Metric& metric : MetricsOf(report)) {
    const std::string suffix = fmt::format("_{}_ms", metric.name);
    json["mean" + suffix] = metric.summary->mean;
    json["median" + suffix] = metric.summary->median;
    json["std" + suffix] = metric.summary->standard_deviation;
    for (size_t i = 0; i < options.percents.size(); ++i) {
      json[fmt::format("p{:g}{}", options.percents[i], suffix)] = metric.summary->percentiles[i];
    }
  }
  return json;
}

Result<ServeReport> ParseServeReport(const Json& json) {
  std::string missing;
  const auto number = [&](const std::string& name) {
    const auto field = json.find(name);
    if (field != json.end() && field->is_number()) return field->get<double>();
    missing = name;
    return 0.0;
  };
  const auto whole = [&](const char* name) { return static_cast<int64_t>(number(name)); };
  ServeReport report;
  const auto rate = json.find("request_rate");
  if (rate == json.end() || *rate != "inf") report.options.request_rate = number("request_rate");
  report.options.burstiness = number("burstiness");
  report.completed = whole("completed");
  report.duration = number("duration");
  report.prompt_tokens = whole("total_input_tokens");
  report.output_tokens = whole("total_output_tokens");
  report.max_concurrent = whole("max_concurrent_requests");
  report.max_output_tokens_per_second = number("max_output_tokens_per_s");
  report.mean_start_delay = number("mean_start_delay_ms");
  report.max_start_delay = number("max_start_delay_ms");
  if (const int64_t failed = whole("failed"); failed > 0) {
    const Json failures = json.value("failures", Json::object());
    for (const auto& [kind, count] : failures.items()) {
      if (count.is_number_integer()) report.failures[kind] = count.get<int64_t>();
    }
    if (report.failed() != failed) missing = "failures";
  }
  const auto summary = [&](const std::string& name) {
    const std::string suffix = "_" + name + "_ms";
    Summary values{.mean = number("mean" + suffix),
                   .median = number("median" + suffix),
                   .standard_deviation = number("std" + suffix),
                   .percentiles = {}};
    for (const double percent : report.options.percents) {
      values.percentiles.push_back(number(fmt::format("p{:g}{}", percent, suffix)));
    }
    return values;
  };
  report.ttft = summary("ttft");
  report.tpot = summary("tpot");
  report.itl = summary("itl");
  report.e2el = summary("e2el");
  if (!missing.empty()) return InvalidInput("the field {} of a result is missing", missing);
  return report;
}

Json DetailsJson(const LoadRun& run) {
  Json json = {{"input_lens", Json::array()}, {"output_lens", Json::array()},    {"start_times", Json::array()},
               {"ttfts", Json::array()},      {"itls", Json::array()},           {"latencies", Json::array()},
               {"errors", Json::array()},     {"generated_texts", Json::array()}};
  for (const RequestOutcome& outcome : run.outcomes) {
    json["input_lens"].push_back(outcome.prompt_tokens);
    json["output_lens"].push_back(outcome.output_tokens);
    json["start_times"].push_back(outcome.start);
    json["ttfts"].push_back(outcome.ttft);
    json["itls"].push_back(outcome.inter_token);
    json["latencies"].push_back(outcome.latency);
    json["errors"].push_back(outcome.failure ? outcome.failure->kind + ": " + outcome.failure->detail : "");
    json["generated_texts"].push_back(outcome.text);
  }
  return json;
}

}  // namespace swiftkv
