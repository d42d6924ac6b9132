// What this machine can do at most, measured: products per second and bytes per second. Latency reports say what share
// of it they reached.
//
//   SWIFTKV_ASSIGN_OR_RETURN(const Roofline roofline, MeasureRoofline({}));
//   const double seconds_at_best = BestSeconds(StepWork(step, weights, mode), weights.dtype, roofline);
#ifndef SWIFTKV_BENCH_ROOFLINE_H_
#define SWIFTKV_BENCH_ROOFLINE_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/machine.h"
#include "model/forward.h"

namespace swiftkv {

struct RooflineOptions {
  double seconds = 0.3;  // of measuring, for each figure
  // Bytes that the reads for `read_bandwidth` go over; 0: kBeyondCaches or a quarter of the memory available.
  int64_t read_bytes = 0;
  std::vector<DType> dtypes = {DType::kI8, DType::kBF16, DType::kF32};
  const kernels::Backend* backend = nullptr;  // a GPU's, to measure that instead
};

inline constexpr int64_t kBeyondCaches = int64_t{2} << 30;  // more than any last-level cache holds

struct GemmPeak {
  DType dtype = DType::kBF16;
  double flops = 0;  // a second, best of some shapes of our own Gemm with all threads
  std::string shape;
  std::string loop;       // the instructions of the loop in registers
  double loop_flops = 0;  // a second, of that loop on all threads: no product can be faster; of CPUs alone
};

struct Roofline {
  std::vector<GemmPeak> gemm;  // one for each dtype asked for
  double read_bandwidth = 0;   // bytes a second, all threads reading; of a GPU what a copy reads and writes
  int64_t read_bytes = 0;      // that those reads went over
};

// The best of repeated runs each: other programs on the machine only take away. Error kResourceExhausted: no memory.
Result<Roofline> MeasureRoofline(const RooflineOptions& options);

// What a step must do at least.
struct Work {
  double flops = 0;  // a multiply-add counts as two
  double bytes = 0;  // weights that it reads, once, and K/V that it reads and writes
};
// `kv_cache_dtype` as Forward's.
Work StepWork(const Step& step, const Weights& weights, Mode mode, std::optional<DType> kv_cache_dtype = {});

// Seconds that `work` takes at best: the longer of its arithmetic and its memory traffic.
double BestSeconds(const Work& work, DType dtype, const Roofline& roofline);

std::string RooflineText(const MachineInfo& machine, const Roofline& roofline);
nlohmann::ordered_json RooflineJson(const Roofline& roofline);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_ROOFLINE_H_
