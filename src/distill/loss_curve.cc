#include "distill/loss_curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/file_calls.h"
#include "base/printable.h"
#include "base/process.h"

namespace swiftkv {
namespace {

constexpr char kData[] = "loss_curve.tsv";
constexpr char kScript[] = "loss_curve.gp";
constexpr size_t kMaxTitle = 50;

// The held-out sources, in the order of their first lines.
std::vector<std::string> Sources(const Metrics& metrics) {
  std::vector<std::string> names;
  for (const HeldOutMetrics& line : metrics.held_out) {
    if (std::find(names.begin(), names.end(), line.source) == names.end()) names.push_back(line.source);
  }
  return names;
}

// A single-quoted gnuplot string, in which only the quote itself means anything; short, for the legend's sake.
std::string Quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : Printable(text.substr(0, kMaxTitle))) {
    quoted += c;
    if (c == '\'') quoted += c;
  }
  return quoted + "'";
}

void AppendRow(int64_t step, std::initializer_list<double> values, std::string* text) {
  *text += fmt::format("{}", step);
  for (const double value : values) {
    *text += std::isfinite(value) ? fmt::format("\t{:.6g}", value) : std::string("\tnan");
  }
  *text += "\n";
}

}  // namespace

std::string LossCurveData(const Metrics& metrics) {
  std::string text = "# step\tloss\tKL\tagreement in %\tlearning rate\n";
  const auto steps = std::ssize(metrics.steps);
  const int64_t points = std::min<int64_t>(steps, kMaxCurvePoints);
  for (int64_t point = 0; point < points; ++point) {
    const int64_t begin = steps * point / points, end = steps * (point + 1) / points;
    std::array<double, 4> sums = {};
    for (int64_t i = begin; i < end; ++i) {
      const StepMetrics& m = metrics.steps[static_cast<size_t>(i)];
      sums[0] += m.loss;
      sums[1] += m.kl;
      sums[2] += 100 * m.agreement;
      sums[3] += m.learning_rate;
    }
    const auto count = static_cast<double>(end - begin);
    AppendRow(metrics.steps[static_cast<size_t>(end - 1)].step,
              {sums[0] / count, sums[1] / count, sums[2] / count, sums[3] / count}, &text);
  }
  // gnuplot calls what two empty lines separate an index.
  for (const std::string& source : Sources(metrics)) {
    text += fmt::format("\n\n# held-out {}: step\tKL\tagreement in %\n", Printable(source));
    for (const HeldOutMetrics& m : metrics.held_out) {
      if (m.source == source) AppendRow(m.step, {m.quality.kl, 100 * m.quality.agreement}, &text);
    }
  }
  return text;
}

std::string LossCurveScript(const Metrics& metrics) {
  const std::vector<std::string> sources = Sources(metrics);
  // Index 0 is training where there are steps, the sources follow; columns are LossCurveData's. The upper plot's titles
  // serve both.
  const auto plot = [&](bool upper) {
    std::vector<std::string> curves;
    if (!metrics.steps.empty() && upper) {
      curves.emplace_back("data index 0 using 1:2 with lines lc rgb '#bbbbbb' title 'training loss'");
      curves.emplace_back("data index 0 using 1:3 with lines lc rgb '#555555' title 'training T^2 KL'");
    } else if (!metrics.steps.empty()) {
      curves.emplace_back("data index 0 using 1:4 with lines lc rgb '#555555' notitle");
    }
    for (size_t i = 0; i < sources.size(); ++i) {
      curves.push_back(fmt::format("data index {} using 1:{} with linespoints lt {} pt 7 ps 0.5 {}",
                                   i + (metrics.steps.empty() ? 0 : 1), upper ? 2 : 3, i + 1,
                                   upper ? "title " + Quoted("KL, held-out " + sources[i]) : "notitle"));
    }
    return fmt::format("  plot {}\n", fmt::join(curves, ", \\\n       "));
  };
  return fmt::format(
      "# Draws {svg} and {png}: gnuplot {script}\n"
      "data = '{data}'\n"
      "set datafile separator tab\n"
      "set datafile missing 'nan'\n"
      "set grid\n"
      "set lmargin 9\n"
      "set autoscale yfix\n"
      "do for [format in 'svg png'] {{\n"
      "  if (format eq 'svg') {{ set terminal svg size 1000,700 background rgb 'white' }}\n"
      "  if (format eq 'png') {{ set terminal pngcairo size 1000,700 background rgb 'white' }}\n"
      "  set output 'loss_curve.'.format\n"
      "  set multiplot layout 2,1\n"
      "  set key outside center top horizontal noenhanced\n"
      "  set logscale y\n"
      "  set ytics (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)\n"
      "  set ylabel 'nats'\n"
      "{kl}"
      "  unset logscale y\n"
      "  set ytics autofreq\n"
      "  set ylabel 'top-1 agreement, %'\n"
      "  set xlabel 'step'\n"
      "{agreement}"
      "  unset xlabel\n"
      "  unset multiplot\n"
      "  unset output\n"
      "}}\n",
      fmt::arg("svg", kLossCurveSvg), fmt::arg("png", kLossCurvePng), fmt::arg("script", kScript),
      fmt::arg("data", kData), fmt::arg("kl", plot(true)), fmt::arg("agreement", plot(false)));
}

Result<std::string> DrawLossCurve(const std::string& folder, const Metrics& metrics) {
  // A picture of an earlier run must not pass for this one's.
  for (const char* picture : {kLossCurveSvg, kLossCurvePng}) file_calls::Unlink((folder + "/" + picture).c_str());
  if (metrics.steps.empty() && metrics.held_out.empty()) return std::string("there is nothing to draw a loss curve of");
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder + "/" + kData, LossCurveData(metrics)));
  SWIFTKV_RETURN_IF_ERROR(WriteFile(folder + "/" + kScript, LossCurveScript(metrics)));
  const Result<ProcessEnd> end = RunProgram({"gnuplot", "--default-settings", kScript}, {.folder = folder});
  const std::string left = fmt::format("{}/{} draws the loss curve when gnuplot can", folder, kScript);
  if (!end && end.error().code == ErrorCode::kNotFound) {
    return fmt::format("gnuplot is not installed (Debian's gnuplot-nox): {}", left);
  }
  if (!end) return fmt::format("{}: {}", end.error().message, left);
  if (end->exit_code != 0) {
    return fmt::format("gnuplot failed ({}: {}): {}", end->exit_code, Printable(end->error_output), left);
  }
  return std::string();
}

}  // namespace swiftkv
