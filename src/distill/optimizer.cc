#include "distill/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/aligned_buffer.h"

namespace swiftkv {

Result<double> GradientNorm(const kernels::Backend& backend, std::span<const ResidentParameter> parameters) {
  MemorySpace& memory = backend.memory();
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer sum, AlignedBuffer::Allocate(sizeof(double), "gradient norm", memory));
  for (const ResidentParameter& parameter : parameters) {
    backend.backward().SumOfSquares({.x = parameter.gradient, .size = parameter.size, .sum = sum.as<double>()});
  }
  double squares = 0;
  memory.Read(&squares, sum.data(), sizeof squares);
  return std::sqrt(squares);
}

void AdamWStep(const kernels::Backend& backend, const AdamWOptions& options, double learning_rate, int64_t step,
               double gradient_scale, std::span<const ResidentParameter> parameters) {
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(step));
  for (const ResidentParameter& parameter : parameters) {
    backend.backward().AdamW({.value = parameter.value,
                              .first_moment = parameter.first_moment,
                              .second_moment = parameter.second_moment,
                              .gradient = parameter.gradient,
                              .size = parameter.size,
                              .gradient_scale = static_cast<float>(gradient_scale),
                              .beta1 = static_cast<float>(options.beta1),
                              .beta2 = static_cast<float>(options.beta2),
                              .rest1 = static_cast<float>(1 - options.beta1),
                              .rest2 = static_cast<float>(1 - options.beta2),
                              .keep = static_cast<float>(1 - learning_rate * options.weight_decay),
                              .step_size = static_cast<float>(learning_rate / correction1),
                              .root = static_cast<float>(1 / std::sqrt(correction2)),
                              .epsilon = static_cast<float>(options.epsilon)});
  }
}

double LearningRate(const ScheduleOptions& options, int64_t done) {
  const auto steps = static_cast<double>(options.steps);
  const auto warmup = static_cast<double>(options.warmup_steps);
  const auto at = static_cast<double>(done);
  if (at < warmup) return options.learning_rate * at / std::max(1.0, warmup);
  if (options.kind == ScheduleKind::kConstant) return options.learning_rate;
  const double progress = std::clamp((at - warmup) / std::max(1.0, steps - warmup), 0.0, 1.0);
  const double share =
      options.kind == ScheduleKind::kLinear ? 1 - progress : 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return options.learning_rate * (options.min_ratio + (1 - options.min_ratio) * share);
}

}  // namespace swiftkv
