// Against something that we did not write: transformers' logits, and those of a PyTorch reference of SwiftKV.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "model_cases.h"

namespace swiftkv {
namespace {

// Every logit within 1e-4, relative to the larger of itself and a tenth of the row's largest.
void ExpectNear(const std::vector<float>& actual, const std::vector<float>& golden, int64_t vocab) {
  ASSERT_EQ(actual.size(), golden.size());
  const auto magnitude = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
  double worst = 0;
  for (size_t row = 0; row < golden.size(); row += static_cast<size_t>(vocab)) {
    const auto begin = golden.begin() + static_cast<std::ptrdiff_t>(row);
    const double floor = 0.1 * std::fabs(*std::max_element(begin, begin + vocab, magnitude));
    for (size_t i = row; i < row + static_cast<size_t>(vocab); ++i) {
      const double error = std::fabs(static_cast<double>(actual[i]) - golden[i]);
      worst = Worse(worst, error / std::max(floor, std::fabs(static_cast<double>(golden[i]))));
    }
  }
  EXPECT_LT(worst, 1e-4);
}

TEST(GoldenTest, NothingIsWorseThanNan) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(Worse(1, 2), 2);
  EXPECT_EQ(Worse(2, 1), 2);
  EXPECT_TRUE(std::isnan(Worse(nan, 1)));
  EXPECT_TRUE(std::isnan(Worse(1, nan)));
}

TEST(GoldenTest, Float32LogitsAreTransformersInEveryFamilyAndOption) {
  for (const kernels::Backend* backend : AllBackends()) {
    for (const ModelCase& model : ModelCases()) {
      SCOPED_TRACE(model.name + " on " + std::string(backend->name()));
      const Weights weights = LoadCase(model, DType::kF32, backend);
      const bool swiftkv = model.config.is_swiftkv();
      ExpectNear(RunAllRows(weights, Mode::kTeacher, GoldenTokens()),
                 GoldenLogits(model.name + (swiftkv ? ".teacher" : ".logits")), model.config.vocab_size);
    }
  }
}

TEST(GoldenTest, Float32LogitsOfStudentsAreTheReferences) {
  for (const kernels::Backend* backend : AllBackends()) {
    for (const ModelCase& model : SwiftKvCases()) {
      SCOPED_TRACE(model.name + " on " + std::string(backend->name()));
      const Weights weights = LoadCase(model, DType::kF32, backend);
      ExpectNear(RunAllRows(weights, Mode::kStudent, GoldenTokens()), GoldenLogits(model.name + ".student"),
                 model.config.vocab_size);
    }
  }
}

// BF16 rounds; it must still be the same model.
TEST(GoldenTest, BFloat16LogitsStayNear) {
  for (const kernels::Backend* backend : AllBackends()) {
    for (const ModelCase& model : ModelCases()) {
      SCOPED_TRACE(model.name + " on " + std::string(backend->name()));
      const Weights weights = LoadCase(model, DType::kBF16, backend);
      const Mode mode = model.config.is_swiftkv() ? Mode::kStudent : Mode::kTeacher;
      const std::vector<float> actual = RunAllRows(weights, mode, GoldenTokens());
      const std::vector<float> golden = GoldenLogits(model.name + (mode == Mode::kStudent ? ".student" : ".logits"));
      ASSERT_EQ(actual.size(), golden.size());
      double error = 0;
      double norm = 0;
      for (size_t i = 0; i < golden.size(); ++i) {
        error += std::pow(static_cast<double>(actual[i]) - golden[i], 2);
        norm += std::pow(static_cast<double>(golden[i]), 2);
      }
      EXPECT_LT(std::sqrt(error / norm), 0.03);
    }
  }
}

}  // namespace
}  // namespace swiftkv
