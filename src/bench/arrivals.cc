#include "bench/arrivals.h"

#include <cmath>
#include <random>

namespace swiftkv {

std::vector<double> ArrivalTimes(int64_t count, const ArrivalOptions& options) {
  std::vector<double> times(static_cast<size_t>(count), 0.0);
  if (count == 0 || std::isinf(options.request_rate)) return times;
  std::mt19937_64 engine(options.seed);
  std::gamma_distribution<double> gap(options.burstiness, 1 / (options.request_rate * options.burstiness));
  double now = 0;
  for (double& time : times) time = now += gap(engine);
  // Very bursty gaps can all round to zero.
  const double scale = now > 0 ? static_cast<double>(count) / options.request_rate / now : 0;
  for (double& time : times) time *= scale;
  return times;
}

}  // namespace swiftkv
