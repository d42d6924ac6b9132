// AdamW as torch.optim.AdamW computes it, gradient clipping as torch.nn.utils.clip_grad_norm_, and the learning rates
// of transformers' schedules. Everything is summed in a fixed order: the same steps give the same bytes at any thread
// count. Parameters and gradients stay in the backend's memory.
#ifndef SWIFTKV_DISTILL_OPTIMIZER_H_
#define SWIFTKV_DISTILL_OPTIMIZER_H_

#include <cstdint>
#include <span>

#include "base/status.h"
#include "distill/parameter.h"
#include "distill/recipe.h"
#include "kernels/ops.h"

namespace swiftkv {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};

// The 2-norm over all gradients. Error kResourceExhausted.
Result<double> GradientNorm(const kernels::Backend& backend, std::span<const ResidentParameter> parameters);

// One update; `step` counts from 1. Every gradient is multiplied by gradient_scale first.
void AdamWStep(const kernels::Backend& backend, const AdamWOptions& options, double learning_rate, int64_t step,
               double gradient_scale, std::span<const ResidentParameter> parameters);

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kLinear;
  double learning_rate = 2e-4;
  int64_t steps = 0;         // of the whole run
  int64_t warmup_steps = 0;  // from 0 up to learning_rate
  double min_ratio = 0;      // of learning_rate that the schedule ends at
};

// Of the update that follows `done` updates. Linear and cosine with min_ratio 0 are transformers'
// get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup.
double LearningRate(const ScheduleOptions& options, int64_t done);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_OPTIMIZER_H_
