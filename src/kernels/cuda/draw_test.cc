// Draws of tokens on the device, against the definition in double.
#include "kernels/cuda/draw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cuda/test_buffer.h"

namespace swiftkv::kernels::cuda {
namespace {

// Weights [vocab] of the tokens that may be drawn, zero for the others. Tokens at a threshold are in by a hair or out:
// both are taken for right, within what float32 rounds.
struct Allowed {
  std::vector<double> least;  // what is surely in
  std::vector<double> most;   // what may be
};

Allowed Define(const std::vector<float>& logits, const TokenDraw& draw) {
  constexpr double kRounding = 1e-5;
  const double max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = std::exp((logits[i] - max) / draw.temperature);
  std::vector<double> sorted = weights;
  std::sort(sorted.rbegin(), sorted.rend());
  const auto k = static_cast<size_t>(draw.top_k);
  const double kth = k > 0 && k < sorted.size() ? sorted[k - 1] : 0;
  const auto define = [&](double slack) {
    double total = 0;
    for (const double weight : weights) {
      if (weight >= kth * (1 - slack) && weight >= draw.min_p * (1 - slack)) total += weight;
    }
    double before = 0;
    double last = std::numeric_limits<double>::infinity();  // where none is surely in
    for (const double weight : sorted) {
      if (before >= draw.top_p * total * (1 + slack) || weight < kth * (1 - slack) ||
          weight < draw.min_p * (1 - slack)) {
        break;
      }
      before += weight;
      last = weight;
    }
    std::vector<double> kept(weights.size());
    for (size_t i = 0; i < weights.size(); ++i) kept[i] = weights[i] >= last * (1 - slack) ? weights[i] : 0;
    return kept;
  };
  return {define(-kRounding), define(kRounding)};
}

class CudaDrawTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasDevice()) GTEST_SKIP() << "there is no CUDA device";
  }

  std::vector<int32_t> Run(const std::vector<float>& logits, int64_t vocab, const std::vector<TokenDraw>& draws) {
    std::vector<LogitStats> stats(draws.size());
    for (size_t r = 0; r < draws.size(); ++r) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(r) * vocab;
      const auto max = std::max_element(begin, begin + vocab);
      stats[r] = {.argmax = static_cast<int32_t>(max - begin), .max = *max};
    }
    const DeviceArray<float> device_logits(logits);
    const DeviceArray<LogitStats> device_stats(stats);
    const DeviceArray<TokenDraw> device_draws(draws);
    const DeviceArray<int32_t> tokens(std::vector<int32_t>(draws.size(), -1));
    Draw({.logits = device_logits.get(),
          .rows = std::ssize(draws),
          .vocab = vocab,
          .stats = device_stats.get(),
          .draws = device_draws.get(),
          .tokens = tokens.get()},
         nullptr);
    return tokens.ToHost();
  }
};

TEST_F(CudaDrawTest, DrawsAsDefined) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform;
  for (const int64_t vocab : {1, 3, 1000, 5000, 128256}) {
    for (const float spread : {0.5f, 4.0f}) {
      std::vector<TokenDraw> draws;
      for (const float temperature : {0.3f, 1.0f, 2.5f}) {
        for (const int32_t top_k : {0, 1, 7, 2000}) {
          for (const float top_p : {1.0f, 0.9f, 0.2f, 1e-6f}) {
            for (const float min_p : {0.0f, 0.05f}) {
              draws.push_back({temperature, top_k, top_p, min_p, uniform(random)});
            }
          }
        }
      }
      if (vocab > 10000) draws.resize(24);
      std::normal_distribution<float> normal(0, spread);
      std::vector<float> logits(draws.size() * static_cast<size_t>(vocab));
      for (float& logit : logits) logit = std::round(normal(random) * 64) / 64;  // with ties
      const std::vector<int32_t> tokens = Run(logits, vocab, draws);
      for (size_t r = 0; r < draws.size(); ++r) {
        const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(r) * vocab;
        const Allowed allowed = Define({begin, begin + vocab}, draws[r]);
        SCOPED_TRACE(testing::Message() << "vocab " << vocab << " temperature " << draws[r].temperature << " top_k "
                                        << draws[r].top_k << " top_p " << draws[r].top_p << " min_p " << draws[r].min_p
                                        << " uniform " << draws[r].uniform);
        ASSERT_GE(tokens[r], 0);
        ASSERT_LT(tokens[r], vocab);
        const auto token = static_cast<size_t>(tokens[r]);
        EXPECT_GT(allowed.most[token], 0) << "token " << token << " should have been left out";
        // The weights before the token reach up to the draw, with it they pass it.
        double least_before = 0, most_before = 0, least_all = 0, most_all = 0;
        for (size_t i = 0; i < allowed.most.size(); ++i) {
          least_all += allowed.least[i];
          most_all += allowed.most[i];
          if (i < token) least_before += allowed.least[i];
          if (i < token) most_before += allowed.most[i];
        }
        constexpr double kSlack = 1e-4;
        EXPECT_LE(least_before, draws[r].uniform * most_all + kSlack * most_all);
        EXPECT_GE(most_before + allowed.most[token], draws[r].uniform * least_all - kSlack * most_all);
      }
    }
  }
}

TEST_F(CudaDrawTest, FollowsTheWeights) {
  const std::vector<float> row = {0, 1, 2, -1, 3, 2};
  constexpr int kDraws = 6000;
  std::vector<float> logits;
  std::vector<TokenDraw> draws;
  for (int i = 0; i < kDraws; ++i) {
    logits.insert(logits.end(), row.begin(), row.end());
    draws.push_back({.temperature = 1, .uniform = (i + 0.5) / kDraws});
  }
  std::vector<int> counts(row.size());
  for (const int32_t token : Run(logits, std::ssize(row), draws)) ++counts[static_cast<size_t>(token)];
  double total = 0;
  for (const float logit : row) total += std::exp(logit);
  for (size_t i = 0; i < row.size(); ++i) EXPECT_NEAR(counts[i], kDraws * std::exp(row[i]) / total, 2) << i;
}

TEST_F(CudaDrawTest, IsNotBrokenByBrokenRows) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> rows = {{nan, nan, nan}, {1, nan, 2}, {-inf, -inf, 0}, {inf, 0, inf}};
  for (const std::vector<float>& row : rows) {
    for (const TokenDraw& draw :
         {TokenDraw{.temperature = 1, .uniform = 0.999}, TokenDraw{.temperature = 0.01f, .top_k = 2, .top_p = 0.5f},
          TokenDraw{.temperature = 0}, TokenDraw{.temperature = 1, .min_p = 0.1f, .uniform = 0.5}}) {
      const int32_t token = Run(row, 3, {draw}).front();
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 3);
      if (row[2] == 0 && draw.temperature > 0) {
        EXPECT_EQ(token, 2);
      }
      if (std::isnan(row[1]) && !std::isnan(row[0])) {
        EXPECT_NE(token, 1);
      }
    }
  }
}

}  // namespace
}  // namespace swiftkv::kernels::cuda
