// Base and SwiftKV over input lengths and request rates, as the model card's guide measures them: first everything at
// once (combined throughput), then at rates (TTFT, TPOT).
//
//   SWIFTKV_ASSIGN_OR_RETURN(std::vector<SweepPoint> points, RunSweep(modes, options, measure));
//   SWIFTKV_ASSIGN_OR_RETURN(const std::string warning, WriteSweepReport("out", {.points = points, ...}));
#ifndef SWIFTKV_BENCH_SWEEP_H_
#define SWIFTKV_BENCH_SWEEP_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/load_run.h"
#include "bench/machine.h"
#include "bench/serve_report.h"
#include "model/config.h"
#include "model/weights.h"

namespace swiftkv {

// Runs requests, which have token ids, in one mode: in an engine of this process, or on a server.
using MeasureLoad = std::function<Result<LoadRun>(Mode mode, const std::vector<LoadRequest>& requests)>;

struct SweepPoint {
  Mode mode = Mode::kTeacher;
  int64_t input_len = 0;
  int64_t output_len = 0;
  double request_rate = 0;  // infinite: all at once
  ServeReport report;
};

struct SweepOptions {
  std::vector<int64_t> input_lens = {512, 2000, 4000, 7500};
  int64_t output_len = 256;
  int64_t num_prompts = 16;  // of each point
  // Requests a second; empty: `relative_rates` times the base model's requests a second when all come at once, for each
  // input length anew. The first mode stands for the base where there is none.
  std::vector<double> request_rates = {};
  std::vector<double> relative_rates = {0.25, 0.5, 0.75, 1, 1.25};
  int64_t vocab_size = 0;
  uint64_t seed = 0;
  std::vector<SweepPoint> known = {};  // of an earlier run: taken where they are of the same setting
};

// `on_point` sees each point as it is measured. Every point has prompts of its own, for a server may keep prefixes;
// both modes get the same. Errors: those of `measure` and of MakeWorkload.
Result<std::vector<SweepPoint>> RunSweep(const std::vector<Mode>& modes, const SweepOptions& options,
                                         const MeasureLoad& measure,
                                         const std::function<Status(const SweepPoint&)>& on_point = nullptr);

struct Sweep {
  MachineInfo machine;
  std::string origin;   // of the model
  std::string command;  // that measured
  ModelConfig config;
  std::vector<SweepPoint> points;
};

inline constexpr char kSweepReport[] = "report.html";

// Leaves in `folder`: sweep.json, sweep.tsv and sweep.gp (`gnuplot sweep.gp` draws again), throughput.svg, ttft.svg and
// tpot.svg where gnuplot is installed, and report.html with all of it in one file. A sentence where there are no
// pictures, else an empty text. Error kIo.
Result<std::string> WriteSweepReport(const std::string& folder, const Sweep& sweep);

// The files' contents.
std::string SweepData(const std::vector<SweepPoint>& points);
std::string SweepScript(const std::vector<SweepPoint>& points);
nlohmann::ordered_json SweepPointJson(const SweepPoint& point);
// A line of the file that outlives a sweep's end; `job` is what its figures follow from besides the points' settings.
std::string SweepPointLine(const SweepPoint& point, const std::string& job);
// Such lines, but for a last one that is not whole; none where there is no file. Errors: kIo; kInvalidInput if they are
// of another job or something else.
Result<std::vector<SweepPoint>> ReadSweepPoints(const std::string& path, const std::string& job);
// `pictures`: SVG documents, may be fewer than three.
std::string SweepHtml(const Sweep& sweep, const std::vector<std::string>& pictures);
// Markdown: combined throughput of both modes and their ratio by input length, then TTFT and TPOT by rate.
std::string SweepText(const std::vector<SweepPoint>& points);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_SWEEP_H_
