// What a model costs by its config alone: parameters, cache bytes, arithmetic of a prompt token. Figures to show, and
// to refuse a load that can't fit.
#ifndef SWIFTKV_ENGINE_MODEL_COSTS_H_
#define SWIFTKV_ENGINE_MODEL_COSTS_H_

#include <cstdint>

#include "base/dtype.h"
#include "model/config.h"
#include "model/weights.h"

namespace swiftkv {

struct ModelCosts {
  // Elements, biases and norms included.
  int64_t base_parameters = 0;          // the plain model
  int64_t swiftkv_parameters = 0;       // norm_swiftkv and *_swiftkv projections
  int64_t teacher_only_parameters = 0;  // of the base: q/k/v of layers >= n, which the student does not use
  // K and V of one token.
  int64_t base_kv_elements = 0;     // 2 kv_size L
  int64_t swiftkv_kv_elements = 0;  // 2 kv_size (n + (L - n) / g)
  // Multiply-adds of the projections and MLPs for one prompt token that is not a logit row; the lm_head, which only
  // logit rows reach, is left out. SwiftKV runs n whole layers, then K and V of the later KV groups.
  int64_t base_prefill_macs = 0;
  int64_t swiftkv_prefill_macs = 0;

  // Share of a long prompt's projections and MLPs that SwiftKV does not run. The share of attention saved is
  // (L - n) / L.
  double skipped_prefill_share() const {
    return 1.0 - static_cast<double>(swiftkv_prefill_macs) / static_cast<double>(base_prefill_macs);
  }
  int64_t parameters(Mode mode) const {
    return mode == Mode::kTeacher ? base_parameters : base_parameters - teacher_only_parameters + swiftkv_parameters;
  }
};

ModelCosts ComputeModelCosts(const ModelConfig& config);

// Of the weights of base and SwiftKV together in that type, BF16 or F32; of a plain model its own.
int64_t BothModesBytes(const ModelConfig& config, DType dtype);

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_MODEL_COSTS_H_
