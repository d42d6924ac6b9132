// What a table of scores needs: means with standard errors, and differences of paired scores.
//
//   Estimate score = MeanOf(scores);             // score.mean, score.standard_error
//   Estimate loss = MeanDifference(base, swiftkv);  // of the same documents, in the same order
#ifndef SWIFTKV_EVAL_STATISTICS_H_
#define SWIFTKV_EVAL_STATISTICS_H_

#include <cstdint>
#include <span>
#include <vector>

namespace swiftkv {

struct Estimate {
  double mean = 0;
  double standard_error = 0;  // sample standard deviation / sqrt(count); 0 below two values
  int64_t count = 0;
};

Estimate MeanOf(std::span<const double> values);
// Weights sum to 1; equal ones give MeanOf. standard_error is of the weighted deviations.
Estimate WeightedMeanOf(std::span<const double> values, std::span<const double> weights);
// Of second - first, document by document: much narrower than the difference of two means, since both models find the
// same documents hard. Both have the same size.
Estimate MeanDifference(std::span<const double> first, std::span<const double> second);
std::vector<double> Differences(std::span<const double> first, std::span<const double> second);

// McNemar's exact test of two models' right and wrong answers to the same documents.
struct McNemar {
  int64_t only_first = 0;   // right in the first alone
  int64_t only_second = 0;  // right in the second alone
  // Probability, were both models equally good, of a split at least as uneven (binomial, two-sided).
  double p = 1;
};
// Scores are 0 or 1.
McNemar TestMcNemar(std::span<const double> first, std::span<const double> second);

// The value below which a share `fraction` of `values` lies, interpolated as numpy.quantile does; 0 where there are
// none. Reorders `values`.
double Quantile(double fraction, std::span<double> values);

}  // namespace swiftkv

#endif  // SWIFTKV_EVAL_STATISTICS_H_
