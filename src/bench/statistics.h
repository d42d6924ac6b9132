// Mean, spread and percentiles of measured values, as numpy computes them.
//
//   const Summary ttft = Summarize(ttfts_ms, {50, 90, 99});
//   ttft.percentiles[2];   // the 99th
#ifndef SWIFTKV_BENCH_STATISTICS_H_
#define SWIFTKV_BENCH_STATISTICS_H_

#include <span>
#include <vector>

namespace swiftkv {

// Zeros where there are no values.
struct Summary {
  double mean = 0;
  double median = 0;
  double standard_deviation = 0;    // of the population, as numpy.std
  std::vector<double> percentiles;  // one for each asked for
};

// `percents`: each in [0, 100].
Summary Summarize(std::vector<double> values, std::span<const double> percents);

// Linear between the closest ranks (numpy's default). `sorted`: ascending, not empty; `percent` in [0, 100].
double Percentile(std::span<const double> sorted, double percent);

double Mean(std::span<const double> values);
// Of a sample, with n - 1 below, as llama-bench prints it; 0 for fewer than two values.
double SampleStandardDeviation(std::span<const double> values);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_STATISTICS_H_
