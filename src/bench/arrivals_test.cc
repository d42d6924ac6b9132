#include "bench/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "bench/statistics.h"

namespace swiftkv {
namespace {

std::vector<double> Gaps(const std::vector<double>& times) {
  std::vector<double> gaps = {times.front()};
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  return gaps;
}

// Standard deviation over mean: 1 / sqrt(burstiness) for gamma gaps.
double Variation(const std::vector<double>& gaps) { return SampleStandardDeviation(gaps) / Mean(gaps); }

TEST(ArrivalsTest, TheRateIsExactAndTheSeedDecides) {
  const std::vector<double> times = ArrivalTimes(1000, {.request_rate = 4, .seed = 7});
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  EXPECT_DOUBLE_EQ(times.back(), 250);
  EXPECT_EQ(times, ArrivalTimes(1000, {.request_rate = 4, .seed = 7}));
  EXPECT_NE(times, ArrivalTimes(1000, {.request_rate = 4, .seed = 8}));
}

TEST(ArrivalsTest, BurstinessShapesTheGaps) {
  constexpr int64_t kCount = 20000;
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    const std::vector<double> gaps = Gaps(ArrivalTimes(kCount, {.request_rate = 10, .burstiness = burstiness}));
    EXPECT_NEAR(Variation(gaps), 1 / std::sqrt(burstiness), 0.05) << burstiness;
  }
  // A Poisson process: a share of 1 - 1/e of the gaps is shorter than their mean.
  const std::vector<double> gaps = Gaps(ArrivalTimes(kCount, {.request_rate = 10}));
  const auto shorter = std::count_if(gaps.begin(), gaps.end(), [](double gap) { return gap < 0.1; });
  EXPECT_NEAR(static_cast<double>(shorter) / kCount, 1 - std::exp(-1), 0.01);
}

TEST(ArrivalsTest, AnInfiniteRateIsAllAtOnce) {
  EXPECT_EQ(ArrivalTimes(3, {}), std::vector<double>({0, 0, 0}));
  EXPECT_TRUE(ArrivalTimes(0, {.request_rate = 1}).empty());
}

}  // namespace
}  // namespace swiftkv
