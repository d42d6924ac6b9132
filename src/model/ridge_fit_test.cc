// Ridge regression against numpy's least-squares solver: tests/golden/model/ridge_fit.txt, made by
// tools/make_ridge_goldens.py.
#include "model/ridge_fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace swiftkv {
namespace {

constexpr int64_t kTokens = 40;
constexpr int64_t kInputs = 7;
constexpr int64_t kOutputs = 5;
constexpr double kLambda = 0.05;

std::map<std::string, std::vector<float>> Goldens() {
  std::map<std::string, std::vector<float>> tensors;
  std::ifstream file(SWIFTKV_SOURCE_DIR "/tests/golden/model/ridge_fit.txt");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    for (float value = 0; words >> value;) tensors[name].push_back(value);
  }
  return tensors;
}

template <class T>
void ExpectNear(const std::vector<T>& actual, const std::vector<float>& expected) {
  ASSERT_FALSE(expected.empty());
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 2e-5 * (1 + std::abs(expected[i])));
}

// The goldens' tokens in tiles of 16, 16 and 8.
RidgeSums GoldenSums(std::map<std::string, std::vector<float>>& golden, const kernels::Backend& backend) {
  RidgeSums sums(kInputs, kOutputs);
  RidgeTile tile;
  for (int64_t begin = 0; begin < kTokens; begin += 16) {
    const int64_t tokens = std::min<int64_t>(16, kTokens - begin);
    EXPECT_TRUE(tile.SetInputs(backend, golden["x"].data() + begin * kInputs, tokens, kInputs));
    sums.Add(&tile, golden["y"].data() + begin * kOutputs, kOutputs,
             std::span(golden["w"]).subspan(static_cast<size_t>(begin), static_cast<size_t>(tokens)));
  }
  return sums;
}

TEST(RidgeFit, EqualsNumpy) {
  auto golden = Goldens();
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    SCOPED_TRACE(backend->name());
    const auto fit = GoldenSums(golden, *backend).Solve(kLambda, false);
    ASSERT_TRUE(fit);
    ExpectNear(fit->weight, golden["plain.weight"]);
    ExpectNear(fit->residual, golden["plain.residual"]);
    EXPECT_TRUE(fit->intercept.empty());
  }
}

TEST(RidgeFit, InterceptEqualsNumpy) {
  auto golden = Goldens();
  const auto fit = GoldenSums(golden, kernels::RefBackend()).Solve(kLambda, true);
  ASSERT_TRUE(fit);
  ExpectNear(fit->weight, golden["intercept.weight"]);
  ExpectNear(fit->intercept, golden["intercept.bias"]);
  ExpectNear(fit->residual, golden["intercept.residual"]);
  for (size_t i = 0; i < fit->residual.size(); ++i) EXPECT_LT(fit->residual[i], 0.5 * fit->variance[i]);
}

TEST(RidgeFit, WeightZeroIsAbsence) {
  auto golden = Goldens();
  auto shortened = golden;
  for (size_t t = 25; t < kTokens; ++t) golden["w"][t] = 0;
  for (size_t t = 25; t < kTokens; ++t) {
    for (size_t i = 0; i < kInputs; ++i) shortened["x"][t * kInputs + i] = 0;
    for (size_t i = 0; i < kOutputs; ++i) shortened["y"][t * kOutputs + i] = 0;
  }
  const auto fit = GoldenSums(golden, kernels::RefBackend()).Solve(kLambda, false);
  const auto expected = GoldenSums(shortened, kernels::RefBackend()).Solve(kLambda, false);
  ASSERT_TRUE(fit && expected);
  ExpectNear(fit->weight, expected->weight);
}

TEST(RidgeFit, RefusesNothingAndNotFinite) {
  EXPECT_FALSE(RidgeSums(3, 2).Solve(1e-3, false));
  auto golden = Goldens();
  golden["y"][3] = std::numeric_limits<float>::quiet_NaN();
  const auto fit = GoldenSums(golden, kernels::RefBackend()).Solve(kLambda, false);
  ASSERT_FALSE(fit);
  EXPECT_EQ(fit.error().code, ErrorCode::kInvalidInput);
}

// Fewer tokens than inputs: the ridge alone makes it solvable.
TEST(RidgeFit, FewTokens) {
  auto golden = Goldens();
  RidgeSums sums(kInputs, kOutputs);
  RidgeTile tile;
  ASSERT_TRUE(tile.SetInputs(kernels::RefBackend(), golden["x"].data(), 2, kInputs));
  sums.Add(&tile, golden["y"].data(), kOutputs, std::vector<float>{1.0f, 1.0f});
  const auto fit = sums.Solve(1e-3, false);
  ASSERT_TRUE(fit);
  for (const float value : fit->weight) EXPECT_TRUE(std::isfinite(value));
}

}  // namespace
}  // namespace swiftkv
