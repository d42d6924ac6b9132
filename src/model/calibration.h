// Closed-form calibration: the teacher runs once over some text, and k_proj_swiftkv and v_proj_swiftkv of every KV
// group
// >= n are fitted by ridge regression, so that they make the teacher's own keys and values (before norm and RoPE) from
// s = RMSNorm(h_n; norm_swiftkv). No gradients. docs/calibration.md has the measurements behind the defaults.
//
//   SWIFTKV_ASSIGN_OR_RETURN(Weights teacher, LoadWeights(base_config, *base, nullptr, {}));
//   SWIFTKV_ASSIGN_OR_RETURN(Calibration fit, Calibrate(teacher, student, *base, sequences, DType::kBF16, {}));
//   LoadWeights(student, *base, &fit.tensors, {.teacher = true});
#ifndef SWIFTKV_MODEL_CALIBRATION_H_
#define SWIFTKV_MODEL_CALIBRATION_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/group_fit.h"
#include "model/memory_tensors.h"
#include "model/sequence_batch.h"
#include "model/weights.h"

namespace swiftkv {

struct CalibrationOptions {
  double lambda = 1e-4;
  // Unset: kHead where its sums take at most 2 GiB, else kLayer.
  std::optional<TokenWeights> token_weights;
  // Called after every step; an error it returns (kCancelled) ends the calibration. May be empty.
  std::function<Status(int64_t done, int64_t tokens)> progress;
};

struct Calibration {
  MemoryTensors tensors;       // all tensors of the student
  std::vector<LayerFit> fits;  // of layers n .. L-1
  TokenWeights token_weights = TokenWeights::kHead;
  int64_t tokens = 0;
};

// `teacher`: the weights of `student.Teacher()`; `base`: where they came from; `dtype`: of the tensors made.
// Errors: kInvalidInput (no sequences, text that cannot be fitted), kResourceExhausted.
Result<Calibration> Calibrate(const Weights& teacher, const ModelConfig& student, const TensorSource& base,
                              std::span<const TokenSequence> sequences, DType dtype, const CalibrationOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_CALIBRATION_H_
