// Keeps the pace of running answers: how much prompt work a step may hold beside them.
//
//   Pace pace({.step_cost = 2048 * kFullTokenCost});
//   auto chunks = scheduler.Schedule(pace.PromptCostLimit(scheduler.decode_load()));
//   pace.Observe(load, prompt_cost, seconds);
//
// A step's time is modelled as
//
//   seconds = a * cost of its prompt tokens + b * tokens in the caches of its decoding sequences + (c if any decodes)
//
// and a, b and c are learnt while it runs, by a Kalman filter. What a step may take is `target_s`, or without it, what
// a whole budget of prompt tokens alone takes: a long cache to read makes the prompts' part smaller instead of the step
// longer.
#ifndef SWIFTKV_ENGINE_PACE_H_
#define SWIFTKV_ENGINE_PACE_H_

#include <array>
#include <cstdint>

#include "engine/scheduler.h"

namespace swiftkv {

struct PaceOptions {
  double target_s = 0;    // what a step may take while answers run; 0: what step_cost takes
  int64_t step_cost = 0;  // a step's budget, in the scheduler's units of cost
};

class Pace {
 public:
  explicit Pace(const PaceOptions& options) : options_(options) {}

  // What the prompts of a step may cost beside `load`. No limit while nothing decodes or before a prompt was seen.
  // Without a target at least a quarter of step_cost: smaller chunks would only make all work less efficient.
  int64_t PromptCostLimit(const DecodeLoad& load) const;
  void Observe(const DecodeLoad& load, int64_t prompt_cost, double seconds);

 private:
  using Vector = std::array<double, 3>;

  void Begin(double seconds_per_cost);

  PaceOptions options_;
  bool saw_prompts_ = false;
  Vector seconds_ = {};                    // of a unit of prompt cost, of a cached token, of any decoding at all
  std::array<Vector, 3> covariance_ = {};  // how uncertain they are
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_PACE_H_
