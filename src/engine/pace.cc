#include "engine/pace.h"

#include <algorithm>

#include "engine/scheduler.h"

namespace swiftkv {
namespace {

constexpr double kWeightOfTheNewest = 0.2;

void Average(double value, double* average) {
  *average = *average == 0 ? value : (1 - kWeightOfTheNewest) * *average + kWeightOfTheNewest * value;
}

}  // namespace

int64_t Pace::PromptCostLimit(bool decoding) const {
  if (target_s_ <= 0 || !decoding || prompt_s_per_cost_ <= 0) return Scheduler::kNoLimit;
  return static_cast<int64_t>(std::max(target_s_ - decode_s_, 0.0) / prompt_s_per_cost_);
}

void Pace::Observe(int64_t decode_tokens, int64_t prompt_cost, double seconds) {
  if (prompt_cost == 0) {
    Average(seconds, &decode_s_);
  } else {
    const double rest = decode_tokens > 0 ? seconds - decode_s_ : seconds;
    Average(std::max(rest, 1e-9) / static_cast<double>(prompt_cost), &prompt_s_per_cost_);
  }
}

}  // namespace swiftkv
