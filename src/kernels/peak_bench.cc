// The yardstick of kernels_bench's figures: what all cores reach with everything in registers.
#include <benchmark/benchmark.h>

#include <string>

#include "base/parallel.h"
#include "kernels/peak.h"

namespace swiftkv::kernels {
namespace {

void Peak(benchmark::State& state, const PeakLoop& loop) {
  for (auto _ : state) ParallelFor(Threads(), [&](int64_t) { loop.run(); });
  state.counters["FLOP"] = benchmark::Counter(loop.flops * Threads(), benchmark::Counter::kIsIterationInvariantRate);
}

const bool kRegistered = [] {
  for (const PeakLoop& loop : AvailablePeakLoops()) {
    benchmark::RegisterBenchmark(("Peak/" + std::string(loop.name)).c_str(), Peak, loop)->UseRealTime();
  }
  return true;
}();

}  // namespace
}  // namespace swiftkv::kernels
