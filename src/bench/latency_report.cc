// What `bench latency` prints: Markdown with the modes side by side; CSV and JSON with a line for each mode.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "bench/latency.h"
#include "bench/statistics.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

double MeanSeconds(const ModeLatency& mode) { return Mean(mode.seconds); }

// Share of what the machine can do at best, in percent; nullopt where that was not measured.
std::optional<double> RooflineShare(const LatencyReport& report, size_t index, const ModeLatency& mode) {
  if (report.rooflines.empty()) return std::nullopt;
  return 100 * BestSeconds(mode.work, report.product_dtype, report.rooflines[index]) / MeanSeconds(mode);
}

std::string SpeedCell(const ModeLatency& mode) {
  return fmt::format("{:.2f} ± {:.2f}", mode.tokens_per_second(), SampleStandardDeviation(mode.speeds()));
}

std::string RooflinesText(const LatencyReport& report) {
  std::string text;
  for (size_t i = 0; i < report.rooflines.size(); ++i) {
    // Rooflines differ by the number of threads; tests of equal numbers follow one another.
    const int threads = report.results[i].test.threads;
    if (i > 0 && report.results[i - 1].test.threads == threads) continue;
    const Roofline& roofline = report.rooflines[i];
    text += fmt::format("at best with {} threads: {:.1f} GFLOP/s, {:.1f} GB/s (reading {} MiB)\n", threads,
                        roofline.gemm.front().flops / 1e9, roofline.read_bandwidth / 1e9, roofline.read_bytes >> 20);
  }
  return text;
}

std::string MarkdownReport(const LatencyReport& report) {
  std::string text =
      fmt::format("{}\n{}\n{}\n", MachineText(report.machine), ModelText(report.model), RooflinesText(report));
  const bool both = !report.results.empty() && report.results.front().modes.size() == 2;
  text += "| threads | sequences | batch | test |";
  std::string rule = "| ---: | ---: | ---: | --- |";
  if (!report.results.empty()) {
    for (const ModeLatency& mode : report.results.front().modes) {
      text += fmt::format(" {} t/s | GFLOP/s |", ModeLabel(mode.mode));
      rule += " ---: | ---: |";
      if (!report.rooflines.empty()) {
        text += " of roofline |";
        rule += " ---: |";
      }
    }
  }
  text += both ? " ratio |\n" + rule + " ---: |\n" : "\n" + rule + "\n";
  for (size_t i = 0; i < report.results.size(); ++i) {
    const LatencyResult& result = report.results[i];
    text += fmt::format("| {} | {} | {} | {} |", result.test.threads, result.test.sequences, result.test.batch_tokens,
                        TestName(result.test));
    for (const ModeLatency& mode : result.modes) {
      text += fmt::format(" {} | {:.1f} |", SpeedCell(mode), mode.work.flops / MeanSeconds(mode) / 1e9);
      if (const auto share = RooflineShare(report, i, mode)) text += fmt::format(" {:.0f} % |", *share);
    }
    if (both)
      text += fmt::format(" {:.2f} |", result.modes[1].tokens_per_second() / result.modes[0].tokens_per_second());
    text += "\n";
  }
  return text;
}

Json RowJson(const LatencyReport& report, size_t index, const ModeLatency& mode) {
  const LatencyTest& test = report.results[index].test;
  Json row = MachineJson(report.machine);
  row["model_filename"] = Printable(report.model.origin);
  row.update(ModelJson(report.model));
  row["mode"] = ModeLabel(mode.mode);
  row["test"] = TestName(test);
  row["n_threads"] = test.threads;
  row["n_batch"] = test.batch_tokens;
  row["n_parallel"] = test.sequences;
  row["n_prompt"] = test.prompt;
  row["n_gen"] = test.generate;
  row["n_depth"] = test.depth;
  const std::vector<double> speeds = mode.speeds();
  row["avg_ns"] = static_cast<int64_t>(1e9 * MeanSeconds(mode));
  row["stddev_ns"] = static_cast<int64_t>(1e9 * SampleStandardDeviation(mode.seconds));
  row["avg_ts"] = mode.tokens_per_second();
  row["stddev_ts"] = SampleStandardDeviation(speeds);
  row["flops_per_s"] = mode.work.flops / MeanSeconds(mode);
  row["bytes_per_s"] = mode.work.bytes / MeanSeconds(mode);
  if (const auto share = RooflineShare(report, index, mode)) {
    row["peak_flops_per_s"] = report.rooflines[index].gemm.front().flops;
    row["peak_bytes_per_s"] = report.rooflines[index].read_bandwidth;
    row["roofline_share"] = *share / 100;
  }
  row["samples_ns"] = Json::array();
  for (const double seconds : mode.seconds) row["samples_ns"].push_back(static_cast<int64_t>(1e9 * seconds));
  row["samples_ts"] = speeds;
  return row;
}

// Quoted as RFC 4180 asks; lists stay out.
std::string CsvCell(const Json& value) {
  if (!value.is_string()) return value.dump();
  std::string cell = "\"";
  for (const char c : value.get<std::string>()) cell += c == '"' ? std::string("\"\"") : std::string(1, c);
  return cell + "\"";
}

std::string CsvReport(const std::vector<Json>& rows) {
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<std::string> names, cells;
    for (const auto& [name, value] : rows[i].items()) {
      if (value.is_array()) continue;
      names.push_back(name);
      cells.push_back(CsvCell(value));
    }
    if (i == 0) text += fmt::format("{}\n", fmt::join(names, ","));
    text += fmt::format("{}\n", fmt::join(cells, ","));
  }
  return text;
}

}  // namespace

Result<ReportFormat> ParseReportFormat(const std::string& name) {
  if (name == "md") return ReportFormat::kMarkdown;
  if (name == "csv") return ReportFormat::kCsv;
  if (name == "json") return ReportFormat::kJson;
  if (name == "jsonl") return ReportFormat::kJsonLines;
  return InvalidInput("the format {} is unknown; there are md, csv, json and jsonl", Printable(name));
}

std::string LatencyReportText(const LatencyReport& report, ReportFormat format) {
  if (format == ReportFormat::kMarkdown) return MarkdownReport(report);
  std::vector<Json> rows;
  for (size_t i = 0; i < report.results.size(); ++i) {
    for (const ModeLatency& mode : report.results[i].modes) rows.push_back(RowJson(report, i, mode));
  }
  if (format == ReportFormat::kCsv) return CsvReport(rows);
  if (format == ReportFormat::kJson) return Json(rows).dump(2) + "\n";
  std::string text;
  for (const Json& row : rows) text += row.dump() + "\n";
  return text;
}

}  // namespace swiftkv
