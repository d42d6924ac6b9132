#include "bench/statistics.h"

#include <algorithm>
#include <cmath>

namespace swiftkv {
namespace {

double SumOfSquares(std::span<const double> values, double mean) {
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return sum;
}

}  // namespace

double Mean(std::span<const double> values) {
  if (values.empty()) return 0;
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double SampleStandardDeviation(std::span<const double> values) {
  if (values.size() < 2) return 0;
  return std::sqrt(SumOfSquares(values, Mean(values)) / static_cast<double>(values.size() - 1));
}

double Percentile(std::span<const double> sorted, double percent) {
  const double rank = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Summary Summarize(std::vector<double> values, std::span<const double> percents) {
  Summary summary;
  summary.percentiles.assign(percents.size(), 0);
  if (values.empty()) return summary;
  std::sort(values.begin(), values.end());
  summary.mean = Mean(values);
  summary.median = Percentile(values, 50);
  summary.standard_deviation = std::sqrt(SumOfSquares(values, summary.mean) / static_cast<double>(values.size()));
  for (size_t i = 0; i < percents.size(); ++i) summary.percentiles[i] = Percentile(values, percents[i]);
  return summary;
}

}  // namespace swiftkv
