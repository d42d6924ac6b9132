// The files that a sweep leaves: figures, pictures, and one HTML page with both.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/file_calls.h"
#include "base/printable.h"
#include "base/process.h"
#include "bench/measured_model.h"
#include "bench/sweep.h"

namespace swiftkv {
namespace {

constexpr char kData[] = "sweep.tsv";
constexpr char kScript[] = "sweep.gp";
constexpr char kJson[] = "sweep.json";
constexpr std::array<const char*, 3> kPictures = {"throughput.svg", "ttft.svg", "tpot.svg"};
constexpr int64_t kMaxPictureBytes = 16 << 20;

bool AllAtOnce(const SweepPoint& point) { return std::isinf(point.request_rate); }

// One curve of the rate pictures.
using Curve = std::pair<Mode, int64_t>;  // mode, input length

std::vector<Mode> Modes(const std::vector<SweepPoint>& points) {
  std::vector<Mode> modes;
  for (const SweepPoint& point : points) {
    if (std::find(modes.begin(), modes.end(), point.mode) == modes.end()) modes.push_back(point.mode);
  }
  return modes;
}

std::vector<Curve> RateCurves(const std::vector<SweepPoint>& points) {
  std::vector<Curve> curves;
  for (const SweepPoint& point : points) {
    const Curve curve(point.mode, point.input_len);
    if (!AllAtOnce(point) && std::find(curves.begin(), curves.end(), curve) == curves.end()) curves.push_back(curve);
  }
  return curves;
}

// Base grey, SwiftKV blue; darker for longer inputs.
std::string Colour(Mode mode, size_t index, size_t count) {
  const double shade = count < 2 ? 1 : static_cast<double>(index) / static_cast<double>(count - 1);
  const auto mix = [&](int light, int dark) { return static_cast<int>(light + shade * (dark - light)); };
  return mode == Mode::kTeacher ? fmt::format("#{0:02x}{0:02x}{0:02x}", mix(0xbb, 0x44))
                                : fmt::format("#{:02x}{:02x}{:02x}", mix(0x90, 0x08), mix(0xc4, 0x45), mix(0xf0, 0x94));
}

std::string PlotCommand(const char* picture, const char* x, const char* y, const std::vector<std::string>& curves) {
  return fmt::format("set output '{}'\nset xlabel '{}'\nset ylabel '{}'\nplot {}\nunset output\n", picture, x, y,
                     fmt::join(curves, ", \\\n     "));
}

std::string RateCell(double rate) { return std::isinf(rate) ? "all at once" : fmt::format("{:.3g}", rate); }

// The point of another mode in the same setting.
const SweepPoint* Partner(const std::vector<SweepPoint>& points, const SweepPoint& base) {
  for (const SweepPoint& point : points) {
    if (point.mode != base.mode && point.input_len == base.input_len && point.request_rate == base.request_rate) {
      return &point;
    }
  }
  return nullptr;
}

using Row = std::vector<std::string>;  // a cell for each of kColumns

const Row kColumns = {"input",        "rate, req/s",   "mode",         "combined tok/s", "ratio", "mean TTFT, ms",
                      "p99 TTFT, ms", "mean TPOT, ms", "p99 TPOT, ms", "completed",      "failed"};

std::vector<Row> Rows(const std::vector<SweepPoint>& points) {
  std::vector<Row> rows;
  for (const SweepPoint& point : points) {
    const ServeReport& report = point.report;
    const SweepPoint* const base = point.mode == Mode::kStudent ? Partner(points, point) : nullptr;
    const double base_throughput = base != nullptr ? base->report.total_token_throughput() : 0;
    const auto milliseconds = [](double value) { return fmt::format("{:.1f}", value); };
    rows.push_back({std::to_string(point.input_len), RateCell(point.request_rate), std::string(ModeLabel(point.mode)),
                    fmt::format("{:.1f}", report.total_token_throughput()),
                    base_throughput > 0 ? fmt::format("{:.2f}", report.total_token_throughput() / base_throughput) : "",
                    milliseconds(report.ttft.mean), milliseconds(report.ttft.percentiles.back()),
                    milliseconds(report.tpot.mean), milliseconds(report.tpot.percentiles.back()),
                    std::to_string(report.completed), std::to_string(report.failed())});
  }
  return rows;
}

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string HtmlRow(const Row& cells, const char* element) {
  std::string row = "<tr>";
  for (const std::string& cell : cells) row += fmt::format("<{0}>{1}</{0}>", element, EscapeHtml(cell));
  return row + "</tr>\n";
}

nlohmann::ordered_json SweepJson(const Sweep& sweep) {
  nlohmann::ordered_json json = MachineJson(sweep.machine);
  json["model"] = Printable(sweep.origin);
  json["command"] = Printable(sweep.command);
  json["num_hidden_layers"] = sweep.config.num_hidden_layers;
  json["num_key_value_layers"] = sweep.config.num_key_value_layers;
  json["key_value_group_size"] = sweep.config.key_value_group_size;
  json["points"] = nlohmann::ordered_json::array();
  for (const SweepPoint& point : sweep.points) json["points"].push_back(SweepPointJson(point));
  return json;
}

// A sentence if there are no pictures.
Result<std::string> Draw(const std::string& folder) {
  const Result<ProcessEnd> end = RunProgram({"gnuplot", "--default-settings", kScript}, {.folder = folder});
  const std::string left = fmt::format("{}/{} draws the pictures when gnuplot can", folder, kScript);
  if (!end && end.error().code == ErrorCode::kNotFound) {
    return fmt::format("gnuplot is not installed (Debian's gnuplot-nox): {}", left);
  }
  if (!end) return fmt::format("{}: {}", end.error().message, left);
  if (end->exit_code == 0) return std::string();
  return fmt::format("gnuplot failed ({}: {}): {}", end->exit_code, Printable(end->error_output), left);
}

}  // namespace

std::string SweepData(const std::vector<SweepPoint>& points) {
  // gnuplot calls what two empty lines separate an index: first the modes' throughputs, then the rate curves.
  std::vector<std::string> blocks;
  for (const Mode mode : Modes(points)) {
    std::string block = fmt::format("# {}: input length\tcombined tok/s\n", ModeLabel(mode));
    for (const SweepPoint& point : points) {
      if (point.mode != mode || !AllAtOnce(point)) continue;
      block += fmt::format("{}\t{:.6g}\n", point.input_len, point.report.total_token_throughput());
    }
    blocks.push_back(std::move(block));
  }
  for (const auto& [mode, input_len] : RateCurves(points)) {
    std::string block = fmt::format("# {}, input {}: req/s\tmean TTFT ms\tmean TPOT ms\n", ModeLabel(mode), input_len);
    for (const SweepPoint& point : points) {
      if (point.mode != mode || point.input_len != input_len || AllAtOnce(point)) continue;
      block +=
          fmt::format("{:.6g}\t{:.6g}\t{:.6g}\n", point.request_rate, point.report.ttft.mean, point.report.tpot.mean);
    }
    blocks.push_back(std::move(block));
  }
  return fmt::format("{}", fmt::join(blocks, "\n\n"));
}

std::string SweepScript(const std::vector<SweepPoint>& points) {
  const std::vector<Mode> modes = Modes(points);
  const std::vector<Curve> curves = RateCurves(points);
  std::vector<std::string> throughput, ttft, tpot;
  for (size_t i = 0; i < modes.size(); ++i) {
    throughput.push_back(fmt::format("data index {} using 1:2 with linespoints lw 2 pt 7 lc rgb '{}' title '{}'", i,
                                     Colour(modes[i], 1, 2), ModeLabel(modes[i])));
  }
  for (size_t i = 0; i < curves.size(); ++i) {
    const auto& [mode, input_len] = curves[i];
    const size_t of_mode = curves.size() / modes.size();
    const auto curve = [&, mode = mode, input_len = input_len](int column) {
      return fmt::format("data index {} using 1:{} with linespoints lw 2 pt 7 ps 0.6 lc rgb '{}' title '{}, input {}'",
                         modes.size() + i, column, Colour(mode, i / modes.size(), of_mode), ModeLabel(mode), input_len);
    };
    ttft.push_back(curve(2));
    tpot.push_back(curve(3));
  }
  std::string script = fmt::format(
      "# Draws {}: gnuplot {}\n"
      "data = '{}'\n"
      "set datafile separator tab\n"
      "set terminal svg size 900,480 background rgb 'white' font 'sans,14'\n"
      "set grid\n"
      "set key outside right top noenhanced\n"
      "set yrange [0:]\n",
      fmt::join(kPictures, ", "), kScript, kData);
  script += PlotCommand(kPictures[0], "input length, tokens", "input + output tokens per second", throughput);
  if (curves.empty()) return script;
  // A queue that grows without end would hide the rates at which there is none.
  script += "set yrange [*:*]\nset logscale y\nset logscale x 2\n";
  script += PlotCommand(kPictures[1], "request rate, 1/s", "mean TTFT, ms", ttft);
  return script + PlotCommand(kPictures[2], "request rate, 1/s", "mean TPOT, ms", tpot);
}

nlohmann::ordered_json SweepPointJson(const SweepPoint& point) {
  nlohmann::ordered_json json = {
      {"mode", ModeLabel(point.mode)}, {"random_input_len", point.input_len}, {"random_output_len", point.output_len}};
  json.update(ServeReportJson(point.report));
  return json;
}

std::string SweepText(const std::vector<SweepPoint>& points) {
  std::string text = fmt::format("| {} |\n|", fmt::join(kColumns, " | "));
  for (const std::string& column : kColumns) text += column == "mode" ? " --- |" : " ---: |";
  text += "\n";
  for (const Row& row : Rows(points)) text += fmt::format("| {} |\n", fmt::join(row, " | "));
  return text;
}

std::string SweepHtml(const Sweep& sweep, const std::vector<std::string>& pictures) {
  const std::array<const char*, 3> titles = {"Combined throughput over input length", "TTFT over request rate",
                                             "TPOT over request rate"};
  const ModelConfig& config = sweep.config;
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>SwiftKV sweep</title>\n<style>\n"
      "body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}\n"
      "table {{ border-collapse: collapse; font-size: 14px; }}\n"
      "th, td {{ border-bottom: 1px solid #ddd; padding: 0.2rem 0.6rem; text-align: right; }}\n"
      "svg {{ max-width: 100%; height: auto; }}\n"
      "pre {{ white-space: pre-wrap; background: #f5f5f5; padding: 0.6rem; }}\n"
      "</style>\n<h1>Base against SwiftKV</h1>\n<p>{}: L = {}, n = {}, g = {}</p>\n<p>{}</p>\n<pre>{}</pre>\n",
      EscapeHtml(sweep.origin), config.num_hidden_layers, config.num_key_value_layers, config.key_value_group_size,
      EscapeHtml(MachineText(sweep.machine)), EscapeHtml(sweep.command));
  for (size_t i = 0; i < pictures.size() && i < titles.size(); ++i) {
    // An XML declaration must not stand within HTML.
    const size_t begin = std::min(pictures[i].find("<svg"), pictures[i].size());
    html += fmt::format("<h2>{}</h2>\n{}\n", titles[i], std::string_view(pictures[i]).substr(begin));
  }
  html += "<h2>Figures</h2>\n<table>\n";
  html += HtmlRow(kColumns, "th");
  for (const Row& row : Rows(sweep.points)) html += HtmlRow(row, "td");
  return html + fmt::format("</table>\n<pre>combined tok/s = (input + output tokens) / duration\n{}</pre>\n</html>\n",
                            EscapeHtml(kServeFormulas));
}

Result<std::string> WriteSweepReport(const std::string& folder, const Sweep& sweep) {
  // Pictures of an earlier run must not pass for this one's.
  for (const char* picture : kPictures) file_calls::Unlink((folder + "/" + picture).c_str());
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder + "/" + kJson, SweepJson(sweep).dump(2) + "\n"));
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder + "/" + kData, SweepData(sweep.points)));
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder + "/" + kScript, SweepScript(sweep.points)));
  SWIFTKV_ASSIGN_OR_RETURN(const std::string warning, Draw(folder));
  std::vector<std::string> pictures;
  for (const char* picture : kPictures) {
    Result<std::string> svg = ReadFile(folder + "/" + picture, kMaxPictureBytes);
    if (svg) pictures.push_back(std::move(*svg));
  }
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder + "/" + kSweepReport, SweepHtml(sweep, pictures)));
  return warning;
}

}  // namespace swiftkv
