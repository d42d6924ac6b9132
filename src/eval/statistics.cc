#include "eval/statistics.h"

#include <algorithm>
#include <cmath>

namespace swiftkv {

Estimate MeanOf(std::span<const double> values) {
  Estimate estimate{.count = static_cast<int64_t>(values.size())};
  if (values.empty()) return estimate;
  const auto count = static_cast<double>(values.size());
  for (const double value : values) estimate.mean += value / count;
  if (values.size() < 2) return estimate;
  double squares = 0;
  for (const double value : values) squares += (value - estimate.mean) * (value - estimate.mean);
  estimate.standard_error = std::sqrt(squares / (count - 1) / count);
  return estimate;
}

Estimate WeightedMeanOf(std::span<const double> values, std::span<const double> weights) {
  Estimate estimate{.count = static_cast<int64_t>(values.size())};
  for (size_t i = 0; i < values.size(); ++i) estimate.mean += weights[i] * values[i];
  if (values.size() < 2) return estimate;
  double squares = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double deviation = weights[i] * (values[i] - estimate.mean);
    squares += deviation * deviation;
  }
  const auto count = static_cast<double>(values.size());
  estimate.standard_error = std::sqrt(squares * count / (count - 1));
  return estimate;
}

std::vector<double> Differences(std::span<const double> first, std::span<const double> second) {
  std::vector<double> differences;
  for (size_t i = 0; i < first.size(); ++i) differences.push_back(second[i] - first[i]);
  return differences;
}

Estimate MeanDifference(std::span<const double> first, std::span<const double> second) {
  return MeanOf(Differences(first, second));
}

McNemar TestMcNemar(std::span<const double> first, std::span<const double> second) {
  McNemar test;
  for (size_t i = 0; i < first.size(); ++i) {
    if (first[i] > second[i]) ++test.only_first;
    if (second[i] > first[i]) ++test.only_second;
  }
  const auto n = static_cast<double>(test.only_first + test.only_second);
  const int64_t fewer = std::min(test.only_first, test.only_second);
  double tail = 0;  // P(at most `fewer` of n fair coins)
  for (int64_t k = 0; k <= fewer; ++k) {
    const auto heads = static_cast<double>(k);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(heads + 1) - std::lgamma(n - heads + 1) - n * std::log(2));
  }
  test.p = std::min(1.0, 2 * tail);
  return test;
}

double Quantile(double fraction, std::span<double> values) {
  if (values.empty()) return 0;
  const double place = fraction * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(below), values.end());
  if (below + 1 == values.size()) return values[below];
  const double above = *std::min_element(values.begin() + static_cast<ptrdiff_t>(below) + 1, values.end());
  return values[below] + (place - static_cast<double>(below)) * (above - values[below]);
}

}  // namespace swiftkv
