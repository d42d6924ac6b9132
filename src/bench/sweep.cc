#include "bench/sweep.h"

#include <cmath>
#include <limits>
#include <utility>

#include "bench/workload.h"

namespace swiftkv {
namespace {

constexpr double kAllAtOnce = std::numeric_limits<double>::infinity();

// Measures single points, each with prompts of its own.
class Sweeper {
 public:
  Sweeper(const SweepOptions& options, const MeasureLoad& measure, const std::function<Status(const SweepPoint&)>& seen)
      : options_(options), measure_(measure), seen_(seen) {}

  // All modes at one input length and rate.
  Status Measure(const std::vector<Mode>& modes, int64_t input_len, double request_rate) {
    const uint64_t seed = options_.seed + ++settings_;
    SWIFTKV_ASSIGN_OR_RETURN(Workload workload, MakeWorkload({.num_prompts = options_.num_prompts,
                                                              .prompt_tokens = input_len,
                                                              .output_tokens = options_.output_len,
                                                              .arrivals = {.request_rate = request_rate, .seed = seed},
                                                              .seed = seed}));
    FillWithTokenIds(options_.vocab_size, seed, &workload.requests);
    for (const Mode mode : modes) {
      if (const SweepPoint* known = FindKnown(mode, input_len, request_rate)) {
        points_.push_back(*known);
        continue;
      }
      SWIFTKV_ASSIGN_OR_RETURN(const LoadRun run, measure_(mode, workload.requests));
      points_.push_back({.mode = mode,
                         .input_len = input_len,
                         .output_len = options_.output_len,
                         .request_rate = request_rate,
                         .report = MakeServeReport(workload.requests, run, {.request_rate = request_rate})});
      if (seen_) SWIFTKV_RETURN_IF_ERROR(seen_(points_.back()));
    }
    return Ok();
  }

  const std::vector<SweepPoint>& points() const { return points_; }
  std::vector<SweepPoint> TakePoints() { return std::move(points_); }

 private:
  const SweepPoint* FindKnown(Mode mode, int64_t input_len, double request_rate) const {
    for (const SweepPoint& point : options_.known) {
      const bool same = point.mode == mode && point.input_len == input_len && point.output_len == options_.output_len &&
                        point.request_rate == request_rate &&
                        point.report.completed + point.report.failed() == options_.num_prompts;
      if (same) return &point;
    }
    return nullptr;
  }

  const SweepOptions& options_;
  const MeasureLoad& measure_;
  const std::function<Status(const SweepPoint&)>& seen_;
  uint64_t settings_ = 0;
  std::vector<SweepPoint> points_;
};

}  // namespace

Result<std::vector<SweepPoint>> RunSweep(const std::vector<Mode>& modes, const SweepOptions& options,
                                         const MeasureLoad& measure,
                                         const std::function<Status(const SweepPoint&)>& on_point) {
  Sweeper sweeper(options, measure, on_point);
  for (const int64_t input_len : options.input_lens) {
    const size_t first = sweeper.points().size();
    SWIFTKV_RETURN_IF_ERROR(sweeper.Measure(modes, input_len, kAllAtOnce));
    const double base_throughput = sweeper.points()[first].report.request_throughput();
    std::vector<double> rates = options.request_rates;
    if (rates.empty()) {
      for (const double relative : options.relative_rates) rates.push_back(relative * base_throughput);
    }
    for (const double rate : rates) {
      if (rate > 0 && std::isfinite(rate)) SWIFTKV_RETURN_IF_ERROR(sweeper.Measure(modes, input_len, rate));
    }
  }
  return sweeper.TakePoints();
}

}  // namespace swiftkv
