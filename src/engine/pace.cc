#include "engine/pace.h"

#include <algorithm>

namespace swiftkv {
namespace {

// Of a step's time around the model's, relative to itself: machines are noisy.
constexpr double kNoise = 0.2;
// How far each of the model's figures may move from a step to the next, relative to itself: prompts get deeper, and the
// machine is shared.
constexpr double kDrift = 0.05;
// What a cached token and decoding at all may cost, in prompt tokens, before it was seen: a standard deviation.
constexpr double kCachedTokenCost = 0.01;
constexpr double kDecodingCost = 128;

}  // namespace

int64_t Pace::PromptCostLimit(const DecodeLoad& load) const {
  const double prompt_s = seconds_[0];
  if (load.sequences == 0 || !saw_prompts_ || prompt_s <= 0) return Scheduler::kNoLimit;
  const double decode_s = seconds_[1] * static_cast<double>(load.cached_tokens) + seconds_[2];
  if (options_.target_s > 0) return static_cast<int64_t>(std::max(options_.target_s - decode_s, 0.0) / prompt_s);
  const auto budget = static_cast<double>(options_.step_cost);
  return static_cast<int64_t>(std::max(budget - decode_s / prompt_s, budget / 4));
}

// From the first step with a prompt.
void Pace::Begin(double seconds_per_cost) {
  saw_prompts_ = true;
  seconds_ = {seconds_per_cost, 0, 0};
  const double token_s = seconds_per_cost * kFullTokenCost;
  const Vector deviations = {seconds_per_cost * 0.5, token_s * kCachedTokenCost, token_s * kDecodingCost};
  for (size_t i = 0; i < deviations.size(); ++i) covariance_[i][i] = deviations[i] * deviations[i];
}

void Pace::Observe(const DecodeLoad& load, int64_t prompt_cost, double seconds) {
  if (seconds <= 0) return;
  if (!saw_prompts_) {
    if (prompt_cost == 0) return;
    Begin(seconds / static_cast<double>(prompt_cost));
  }
  // Divided by the time seen, so that short and long steps count alike.
  const Vector x = {static_cast<double>(prompt_cost) / seconds, static_cast<double>(load.cached_tokens) / seconds,
                    (load.sequences > 0 ? 1.0 : 0.0) / seconds};
  Vector covariance_x = {};
  double variance = kNoise * kNoise;
  double error = 1;
  for (size_t i = 0; i < x.size(); ++i) {
    covariance_[i][i] += kDrift * kDrift * seconds_[i] * seconds_[i];
    for (size_t j = 0; j < x.size(); ++j) covariance_x[i] += covariance_[i][j] * x[j];
    error -= seconds_[i] * x[i];
  }
  for (size_t i = 0; i < x.size(); ++i) variance += x[i] * covariance_x[i];
  for (size_t i = 0; i < x.size(); ++i) {
    seconds_[i] = std::max(seconds_[i] + covariance_x[i] / variance * error, 0.0);
    for (size_t j = 0; j < x.size(); ++j) covariance_[i][j] -= covariance_x[i] * covariance_x[j] / variance;
  }
}

}  // namespace swiftkv
