#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "engine/random.h"

namespace swiftkv {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

// How often each token comes in `draws` draws of the first output position, over seeds 0, 1, 2, ...
std::map<int32_t, int> Histogram(const SamplingParams& params, const std::vector<float>& logits, int draws) {
  std::map<int32_t, int> counts;
  SamplerScratch scratch;
  for (int seed = 0; seed < draws; ++seed) {
    const Sampler sampler(params, static_cast<uint64_t>(seed), 0, {}, {});
    ++counts[sampler.Sample(logits, &scratch)];
  }
  return counts;
}

// Pearson's chi-square against `probabilities`; every drawn token must have one.
double ChiSquare(const std::map<int32_t, int>& counts, const std::map<int32_t, double>& probabilities, int draws) {
  double sum = 0;
  for (const auto& [token, count] : counts) EXPECT_TRUE(probabilities.contains(token)) << "token " << token;
  for (const auto& [token, probability] : probabilities) {
    const double expected = probability * draws;
    const double seen = counts.contains(token) ? counts.at(token) : 0;
    sum += (seen - expected) * (seen - expected) / expected;
  }
  return sum;
}

std::vector<float> LogOf(std::initializer_list<double> probabilities) {
  std::vector<float> logits;
  for (const double probability : probabilities) logits.push_back(static_cast<float>(std::log(probability)) + 3.0f);
  return logits;
}

int32_t Token(const Sampler& sampler, const std::vector<float>& logits) {
  SamplerScratch scratch;
  return sampler.Sample(logits, &scratch);
}

// The logits after bias and penalties.
std::vector<float> After(const Sampler& sampler, const std::vector<float>& logits) {
  SamplerScratch scratch;
  sampler.Sample(logits, &scratch);
  return scratch.logits;
}

// Known answers of Random123's kat_vectors for philox4x32, 10 rounds.
TEST(PhiloxTest, GivesTheKnownAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}), ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(SamplerTest, GreedyNeedsNoLogitsUnlessSomethingChangesThem) {
  EXPECT_FALSE(Sampler({.temperature = 0}, 1, 0, {}, {}).NeedsLogits());
  EXPECT_TRUE(Sampler({.temperature = 1}, 1, 0, {}, {}).NeedsLogits());
  EXPECT_TRUE(Sampler({.temperature = 0, .logit_bias = {{1, 2.0f}}}, 1, 0, {}, {}).NeedsLogits());
  EXPECT_TRUE(Sampler({.temperature = 0, .repetition_penalty = 1.1}, 1, 0, {}, {}).NeedsLogits());
  Sampler presence({.temperature = 0, .presence_penalty = 1}, 1, 0, {}, {});
  EXPECT_FALSE(presence.NeedsLogits()) << "nothing to penalize before the first token";
  presence.Accept(3);
  EXPECT_TRUE(presence.NeedsLogits());
  Sampler minimum({.temperature = 0, .min_tokens = 1}, 1, 0, {}, {});
  EXPECT_TRUE(minimum.NeedsLogits());
  minimum.Accept(3);
  EXPECT_FALSE(minimum.NeedsLogits());
}

TEST(SamplerTest, GreedyTakesTheFirstOfEqualMaxima) {
  const Sampler sampler({.temperature = 0}, 1, 0, {}, {});
  EXPECT_EQ(Token(sampler, {1, 5, 5, 2}), 1);
  EXPECT_EQ(Token(sampler, {std::numeric_limits<float>::quiet_NaN(), -3, -2}), 2);
}

TEST(SamplerTest, DrawsFollowTheSoftmaxAtTheTemperature) {
  const std::vector<float> logits = LogOf({0.5, 0.3, 0.2});
  // 3 tokens, 2 degrees of freedom: above 13.8 has probability 0.001.
  EXPECT_LT(ChiSquare(Histogram({}, logits, 20000), {{0, 0.5}, {1, 0.3}, {2, 0.2}}, 20000), 13.8);
  // At temperature 0.5 the probabilities are squared: .25, .09, .04 of .38.
  EXPECT_LT(ChiSquare(Histogram({.temperature = 0.5}, logits, 20000), {{0, .25 / .38}, {1, .09 / .38}, {2, .04 / .38}},
                      20000),
            13.8);
}

TEST(SamplerTest, TopKKeepsTiesAndRenormalizes) {
  const std::vector<float> logits = LogOf({0.1, 0.4, 0.2, 0.2, 0.1});
  EXPECT_LT(ChiSquare(Histogram({.top_k = 2}, logits, 20000), {{1, 0.5}, {2, 0.25}, {3, 0.25}}, 20000), 13.8);
  EXPECT_THAT(Histogram({.top_k = 1}, logits, 100), ElementsAre(Pair(1, 100)));
}

TEST(SamplerTest, TopPKeepsTheTokenThatCrossesTheMass) {
  const std::vector<float> logits = LogOf({0.1, 0.4, 0.3, 0.2});
  // 0.4 < 0.5 <= 0.7: the second token crosses and stays.
  EXPECT_LT(ChiSquare(Histogram({.top_p = 0.5}, logits, 20000), {{1, 4 / 7.}, {2, 3 / 7.}}, 20000), 10.8);
  EXPECT_THAT(Histogram({.top_p = 0.39}, logits, 100), ElementsAre(Pair(1, 100)));
  EXPECT_THAT(Histogram({.top_p = 1e-9}, logits, 100), ElementsAre(Pair(1, 100)));
}

TEST(SamplerTest, MinPComparesWithTheLikeliest) {
  const std::vector<float> logits = LogOf({0.1, 0.4, 0.3, 0.2});
  EXPECT_LT(ChiSquare(Histogram({.min_p = 0.6}, logits, 20000), {{1, 4 / 7.}, {2, 3 / 7.}}, 20000), 10.8);
}

TEST(SamplerTest, MinPComesBeforeTopPAsInVllm) {
  // min_p leaves .4 and .3, so .5 of the remaining mass is .35, which the first token alone holds.
  EXPECT_THAT(Histogram({.top_p = 0.5, .min_p = 0.6}, LogOf({0.1, 0.4, 0.3, 0.2}), 100), ElementsAre(Pair(1, 100)));
}

TEST(SamplerTest, PenaltiesHaveTheHandComputedValues) {
  const std::vector<int32_t> prompt = {0, 1};
  Sampler sampler({.temperature = 0, .repetition_penalty = 2, .presence_penalty = 0.5, .frequency_penalty = 0.25}, 1, 0,
                  prompt, {});
  EXPECT_THAT(After(sampler, {4, -4, 4, 4}), ElementsAre(2, -8, 4, 4)) << "the prompt is repeated, not yet output";
  sampler.Accept(1);
  sampler.Accept(2);
  sampler.Accept(2);
  // Token 1: -4 * 2 - 0.25 - 0.5. Token 2: 4 / 2 - 2 * 0.25 - 0.5.
  EXPECT_THAT(After(sampler, {4, -4, 4, 4}), ElementsAre(2, -8.75, 1, 4));
}

TEST(SamplerTest, BiasComesBeforePenalties) {
  const std::vector<int32_t> prompt = {0};
  const Sampler sampler({.temperature = 0, .repetition_penalty = 2, .logit_bias = {{0, 2.0f}, {1, -1.5f}}}, 1, 0,
                        prompt, {});
  EXPECT_THAT(After(sampler, {4, 1}), ElementsAre(3, -0.5));
}

TEST(SamplerTest, EndTokensAreForbiddenBeforeMinTokens) {
  Sampler sampler({.temperature = 0, .min_tokens = 1}, 1, 0, {}, {1});
  EXPECT_EQ(Token(sampler, {1, 9, 2}), 2);
  sampler.Accept(2);
  EXPECT_EQ(Token(sampler, {1, 9, 2}), 1);
}

TEST(SamplerTest, TheDrawFollowsFromSeedPositionAndChoice) {
  std::vector<float> logits(1000, 0.0f);
  const auto draw = [&](uint64_t seed, int32_t choice, int accepted) {
    Sampler sampler({}, seed, choice, {}, {});
    for (int i = 0; i < accepted; ++i) sampler.Accept(0);
    return Token(sampler, logits);
  };
  EXPECT_EQ(draw(7, 0, 3), draw(7, 0, 3));
  EXPECT_NE(draw(7, 0, 3), draw(8, 0, 3));
  EXPECT_NE(draw(7, 0, 3), draw(7, 1, 3));
  EXPECT_NE(draw(7, 0, 3), draw(7, 0, 4));
}

TEST(SamplerTest, BrokenLogitsStillGiveAToken) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& logits : {std::vector<float>{nan, nan}, std::vector<float>{-infinity, -infinity},
                                           std::vector<float>{infinity, infinity}, std::vector<float>{nan, 1}}) {
    const Sampler sampler({.top_k = 1, .top_p = 0.5, .min_p = 0.1}, 1, 0, {}, {});
    const int32_t token = Token(sampler, logits);
    EXPECT_TRUE(token == 0 || token == 1);
  }
}

TEST(LogprobsTest, RankAndAlternatives) {
  const std::vector<float> logits = LogOf({0.1, 0.4, 0.3, 0.2});
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit);
  const kernels::LogitStats stats{.argmax = 1, .max = logits[1], .log_sum_exp = static_cast<float>(std::log(sum))};
  PositionLogprobs result;
  ComputeLogprobs(logits, stats, 3, 2, &result);
  EXPECT_EQ(result.token.rank, 3);
  EXPECT_NEAR(result.token.logprob, std::log(0.2), 1e-5);
  ASSERT_EQ(result.top.size(), 2u);
  EXPECT_EQ(result.top[0].token_id, 1);
  EXPECT_NEAR(result.top[0].logprob, std::log(0.4), 1e-5);
  EXPECT_EQ(result.top[1].token_id, 2);
  EXPECT_EQ(result.top[1].rank, 2);
  ComputeLogprobs(logits, stats, 0, 0, &result);
  EXPECT_EQ(result.token.rank, 4);
  EXPECT_TRUE(result.top.empty());
}

}  // namespace
}  // namespace swiftkv
