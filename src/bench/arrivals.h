// When the requests of an open-loop run arrive.
//
//   const std::vector<double> arrivals = ArrivalTimes(100, {.request_rate = 2, .burstiness = 1, .seed = 0});
#ifndef SWIFTKV_BENCH_ARRIVALS_H_
#define SWIFTKV_BENCH_ARRIVALS_H_

#include <cstdint>
#include <limits>
#include <vector>

namespace swiftkv {

struct ArrivalOptions {
  double request_rate = std::numeric_limits<double>::infinity();  // requests a second; infinite: all at once
  // Shape of the gamma distribution of the gaps: 1 is a Poisson process, less is burstier, more is more even.
  double burstiness = 1;
  uint64_t seed = 0;
};

// Ascending seconds after the start. As `vllm bench serve` does, the gaps are scaled so that the last request arrives
// at count / request_rate: the mean rate is the one asked for in every run.
std::vector<double> ArrivalTimes(int64_t count, const ArrivalOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_ARRIVALS_H_
