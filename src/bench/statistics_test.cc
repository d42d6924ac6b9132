#include "bench/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swiftkv {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

TEST(StatisticsTest, PercentilesAreNumpys) {
  // numpy.percentile([35, 15, 50, 20, 40], [0, 5, 30, 40, 50, 90, 99, 100]), std, mean, std(ddof=1)
  const std::vector<double> values = {35, 15, 50, 20, 40};
  const Summary summary = Summarize(values, std::vector<double>{0, 5, 30, 40, 50, 90, 99, 100});
  EXPECT_THAT(summary.percentiles, ElementsAre(15, DoubleNear(16, 1e-12), DoubleNear(23, 1e-12), DoubleNear(29, 1e-12),
                                               35, DoubleNear(46, 1e-12), DoubleNear(49.6, 1e-12), 50));
  EXPECT_DOUBLE_EQ(summary.mean, 32);
  EXPECT_DOUBLE_EQ(summary.median, 35);
  EXPECT_NEAR(summary.standard_deviation, 12.884098726725126, 1e-12);
  EXPECT_NEAR(SampleStandardDeviation(values), 14.404860290887933, 1e-12);
}

TEST(StatisticsTest, EvenCountsAndFractionsOfPercent) {
  // numpy.percentile([1.5, 2.25, 10, 0.125, 7, 3], [50, 90, 99, 99.9])
  const Summary summary = Summarize({1.5, 2.25, 10, 0.125, 7, 3}, std::vector<double>{50, 90, 99, 99.9});
  EXPECT_THAT(summary.percentiles, ElementsAre(DoubleNear(2.625, 1e-12), DoubleNear(8.5, 1e-12),
                                               DoubleNear(9.85, 1e-12), DoubleNear(9.985, 1e-12)));
}

TEST(StatisticsTest, NothingAndOneValue) {
  const Summary none = Summarize({}, std::vector<double>{50, 99});
  EXPECT_THAT(none.percentiles, ElementsAre(0, 0));
  EXPECT_EQ(none.mean, 0);
  const Summary one = Summarize({7}, std::vector<double>{0, 50, 99, 100});
  EXPECT_THAT(one.percentiles, ElementsAre(7, 7, 7, 7));
  EXPECT_EQ(SampleStandardDeviation(std::vector<double>{7}), 0);
}

}  // namespace
}  // namespace swiftkv
