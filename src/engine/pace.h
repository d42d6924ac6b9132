// Keeps the pace of running answers: how much prompt work a step may hold so that it ends within --tpot-target.
//
//   Pace pace(/*target_s=*/0.05);
//   auto chunks = scheduler.Schedule(pace.PromptCostLimit(answers_running));
//   pace.Observe(decode_tokens, prompt_cost, seconds);
//
// A step's time is modelled as that of its decode tokens plus a rate times the cost of its prompt tokens; both are
// moving averages of what was seen.
#ifndef SWIFTKV_ENGINE_PACE_H_
#define SWIFTKV_ENGINE_PACE_H_

#include <cstdint>

namespace swiftkv {

class Pace {
 public:
  // target_s: seconds that a step may take while answers run; 0: no limit.
  explicit Pace(double target_s) : target_s_(target_s) {}

  // In the scheduler's units of cost; no limit while nothing decodes or before anything was seen.
  int64_t PromptCostLimit(bool decoding) const;
  void Observe(int64_t decode_tokens, int64_t prompt_cost, double seconds);

 private:
  double target_s_;
  double decode_s_ = 0;           // of a step without prompt tokens
  double prompt_s_per_cost_ = 0;  // 0: not seen yet
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_PACE_H_
