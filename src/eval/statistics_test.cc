#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "eval/hash.h"

namespace swiftkv {
namespace {

TEST(StatisticsTest, StandardErrorIsOfTheSample) {
  const std::vector<double> values = {1, 0, 1, 1};
  const Estimate estimate = MeanOf(values);
  EXPECT_DOUBLE_EQ(estimate.mean, 0.75);
  EXPECT_DOUBLE_EQ(estimate.standard_error, 0.25);  // sqrt(0.75 / 3) / sqrt(4)
  EXPECT_EQ(MeanOf(std::vector<double>{2}).standard_error, 0);
  EXPECT_EQ(MeanOf({}).count, 0);
}

TEST(StatisticsTest, WeightsOfDocuments) {
  const std::vector<double> values = {1, 0, 1, 1};
  const Estimate equal = WeightedMeanOf(values, std::vector<double>(4, 0.25));
  EXPECT_DOUBLE_EQ(equal.mean, MeanOf(values).mean);
  EXPECT_DOUBLE_EQ(equal.standard_error, MeanOf(values).standard_error);
  const Estimate estimate = WeightedMeanOf(values, std::vector<double>{0.5, 0.5, 0, 0});
  EXPECT_DOUBLE_EQ(estimate.mean, 0.5);
  EXPECT_DOUBLE_EQ(estimate.standard_error, std::sqrt(2 * 0.25 * 0.25 * 4 / 3));
  EXPECT_EQ(WeightedMeanOf({}, {}).count, 0);
}

TEST(StatisticsTest, DifferencesArePaired) {
  const std::vector<double> first = {1, 0, 1, 0};
  const std::vector<double> second = {1, 0, 0, 0};
  const Estimate difference = MeanDifference(first, second);
  EXPECT_DOUBLE_EQ(difference.mean, -0.25);
  EXPECT_DOUBLE_EQ(difference.standard_error, 0.25);
}

// Reference: scipy.stats.binomtest(2, 12).pvalue, and the sum of Pascal's row by hand.
TEST(StatisticsTest, McNemarIsExact) {
  std::vector<double> first(30, 1), second(30, 1);
  for (int i = 0; i < 10; ++i) second[static_cast<size_t>(i)] = 0;
  for (int i = 10; i < 12; ++i) first[static_cast<size_t>(i)] = 0;
  const McNemar test = TestMcNemar(first, second);
  EXPECT_EQ(test.only_first, 10);
  EXPECT_EQ(test.only_second, 2);
  EXPECT_NEAR(test.p, 2 * (1 + 12 + 66) / 4096.0, 1e-12);
  EXPECT_EQ(TestMcNemar(first, first).p, 1);
}

TEST(StatisticsTest, QuantilesAreNumpys) {
  std::vector<double> values = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(Quantile(0.5, values), 2.5);
  EXPECT_DOUBLE_EQ(Quantile(0.99, values), 3.97);
  EXPECT_DOUBLE_EQ(Quantile(1, values), 4);
  EXPECT_DOUBLE_EQ(Quantile(0.5, {}), 0);
}

TEST(HashTest, IsSha256) {
  EXPECT_EQ(Sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_FALSE(HashModel("/nowhere").has_value());
}

}  // namespace
}  // namespace swiftkv
