#include "engine/pace.h"

#include <gtest/gtest.h>

#include <random>

namespace swiftkv {
namespace {

// Steps of a machine whose times are the model's, but for noise.
class Machine {
 public:
  explicit Machine(double noise) : noise_(1 - noise, 1 + noise) {}  // relative

  double prompt_s = 1e-7;  // of a unit of cost: 10,000 tokens a second
  double cached_token_s = 1.2e-6;
  double decode_s = 8e-3;

  double MeanSeconds(const DecodeLoad& load, int64_t prompt_cost) const {
    return prompt_s * static_cast<double>(prompt_cost) + cached_token_s * static_cast<double>(load.cached_tokens) +
           (load.sequences > 0 ? decode_s : 0);
  }
  double Seconds(const DecodeLoad& load, int64_t prompt_cost) {
    return MeanSeconds(load, prompt_cost) * noise_(random_);
  }

 private:
  std::mt19937 random_;
  std::uniform_real_distribution<double> noise_;
};

constexpr int64_t kBudget = 2048 * kFullTokenCost;

// Serves answers of 32 tokens after prompts of 2,000 until `steps` steps are over; the mean time of such a step as the
// last.
double LastStepSeconds(Machine* machine, Pace* pace, int steps) {
  double sequences = 0;
  double last = 0;
  for (int step = 0; step < steps; ++step) {
    const auto running = static_cast<int64_t>(sequences);
    const DecodeLoad load = {.sequences = running, .cached_tokens = running * 2016};
    const int64_t cost = std::min(pace->PromptCostLimit(load), kBudget - running * kFullTokenCost);
    pace->Observe(load, cost, machine->Seconds(load, cost));
    last = machine->MeanSeconds(load, cost);
    const double prompts = static_cast<double>(cost) / (0.53 * 2000 * kFullTokenCost);
    sequences += prompts - sequences / 32;
  }
  return last;
}

TEST(PaceTest, NothingLimitsPromptsAlone) {
  Pace pace({.target_s = 0.01, .step_cost = kBudget});
  EXPECT_EQ(pace.PromptCostLimit({}), Scheduler::kNoLimit);
  pace.Observe({}, kBudget, 0.2);
  EXPECT_EQ(pace.PromptCostLimit({}), Scheduler::kNoLimit);
}

TEST(PaceTest, NoLimitBeforeAPromptWasSeen) {
  Pace pace({.target_s = 0.01, .step_cost = kBudget});
  const DecodeLoad load = {.sequences = 1, .cached_tokens = 100};
  EXPECT_EQ(pace.PromptCostLimit(load), Scheduler::kNoLimit);
  pace.Observe(load, 0, 0.01);
  EXPECT_EQ(pace.PromptCostLimit(load), Scheduler::kNoLimit);
}

TEST(PaceTest, StepsTakeWhatAWholeBudgetTakes) {
  for (const double noise : {0.0, 0.3}) {
    Machine machine(noise);
    Pace pace({.step_cost = kBudget});
    const double full = machine.prompt_s * static_cast<double>(kBudget);
    for (int burst = 0; burst < 10; ++burst) LastStepSeconds(&machine, &pace, 20);
    EXPECT_NEAR(LastStepSeconds(&machine, &pace, 20), full, full * (0.03 + noise / 4)) << noise;
  }
}

// Steps that are alike show only the sum of what prompts and answers take, and noise carries time from one to the
// other. Unlimited these steps take 1.7 times as long as the budget.
TEST(PaceTest, LikeStepsKeepTheirPace) {
  Machine machine(0.3);
  Pace pace({.step_cost = kBudget});
  const double full = machine.prompt_s * static_cast<double>(kBudget);
  const double last = LastStepSeconds(&machine, &pace, 200);
  EXPECT_GT(last, 0.75 * full);
  EXPECT_LT(last, 1.3 * full);
}

TEST(PaceTest, StepsTakeTheTarget) {
  for (const double noise : {0.0, 0.3}) {
    Machine machine(noise);
    Pace pace({.target_s = 0.06, .step_cost = kBudget});
    EXPECT_NEAR(LastStepSeconds(&machine, &pace, 200), 0.06, 0.06 * (0.02 + noise / 2)) << noise;
  }
}

TEST(PaceTest, APromptGetsAQuarterHoweverMuchDecodes) {
  Machine machine(0);
  Pace pace({.step_cost = kBudget});
  const DecodeLoad load = {.sequences = 256, .cached_tokens = 2'000'000};
  pace.Observe({}, kBudget, machine.Seconds({}, kBudget));
  for (int i = 0; i < 20; ++i) pace.Observe(load, kBudget / 2, machine.Seconds(load, kBudget / 2));
  EXPECT_EQ(pace.PromptCostLimit(load), kBudget / 4);
}

TEST(PaceTest, FollowsAMachineThatBecomesSlower) {
  Machine machine(0.1);
  Pace pace({.target_s = 0.06, .step_cost = kBudget});
  LastStepSeconds(&machine, &pace, 300);
  machine.prompt_s *= 2;
  machine.cached_token_s *= 2;
  EXPECT_NEAR(LastStepSeconds(&machine, &pace, 10), 0.06, 0.01);
}

TEST(PaceTest, AStepWithoutTimeTeachesNothing) {
  Pace pace({.target_s = 0.01, .step_cost = kBudget});
  pace.Observe({}, kBudget, 0);
  EXPECT_EQ(pace.PromptCostLimit({.sequences = 1, .cached_tokens = 1}), Scheduler::kNoLimit);
}

}  // namespace
}  // namespace swiftkv
