// Knowledge-preserving self-distillation: a frozen teacher and a student that shares all of its weights but
// norm_swiftkv and q/k/v of the layers >= n (swiftkv.md sections 1.4 and 4).
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto trainer, Trainer::Create(student_config, *base, start, options));
//   for (...) SWIFTKV_ASSIGN_OR_RETURN(StepReport report, trainer->Step(micro_batches, learning_rate));
//   SWIFTKV_ASSIGN_OR_RETURN(MemoryTensors adapter, trainer->student().Tensors(DType::kBF16));
//
// One step: the layers below n run once for both; the teacher goes on with its own q/k/v; the student's layers run
// forwards and backwards; AdamW moves the masters. The same steps give the same bytes at any thread count.
#ifndef SWIFTKV_DISTILL_TRAINER_H_
#define SWIFTKV_DISTILL_TRAINER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "checkpoint/tensor_source.h"
#include "distill/optimizer.h"
#include "distill/packed_sequence.h"
#include "distill/student.h"
#include "model/quality.h"
#include "model/weights.h"

namespace swiftkv {

struct TrainerOptions {
  DType dtype = DType::kBF16;  // of activations and packed weights: kBF16 or kF32
  double logits_loss_temp = 2.0;
  double hidden_loss_mult = 0.0;  // 0: no hidden loss
  // As in transformers' hidden_states: -2 is the input of the last layer. It must be the input of a layer above n.
  int64_t hidden_loss_layer = -2;
  HiddenLossKind hidden_loss_kind = HiddenLossKind::kMse;
  AdamWOptions adamw;
  double max_grad_norm = 1.0;  // 0: no clipping
  bool activation_checkpointing = false;
  const kernels::Backend* backend = nullptr;  // a CPU's or a device's; null: kernels::DefaultBackend()
};

struct StepReport {
  int64_t tokens = 0;          // that ran
  int64_t loss_positions = 0;  // that count in the KL
  double loss = 0;             // kl_loss + hidden_loss_mult * hidden_loss
  double kl_loss = 0;          // T² KL at temperature T, mean over positions in the loss
  double hidden_loss = 0;      // mean over all tokens; 0 where it is not asked for
  double agreement = 0;        // share of positions in the loss with the same most likely token
  double gradient_norm = 0;    // before clipping
};

class Trainer {
 public:
  // `base`: the plain model's tensors; `start`: all SwiftKV tensors of `student`.
  // Errors: those of LoadWeights; kInvalidInput (a plain model; hidden_loss_layer out of range).
  static Result<std::unique_ptr<Trainer>> Create(const ModelConfig& student, const TensorSource& base,
                                                 const TensorSource& start, const TrainerOptions& options);
  // The same with RandomWeights(student, seed), for benchmarks.
  static Result<std::unique_ptr<Trainer>> CreateRandom(const ModelConfig& student, uint64_t seed,
                                                       const TrainerOptions& options);
  ~Trainer();

  // The loss of some micro-batches and its gradients, which stay in gradients(): means over all positions of all of
  // them, so that cutting the same rows into other micro-batches changes rounding only.
  // Errors: kInvalidInput (a token id out of range, no position in the loss), kResourceExhausted; what a device said.
  Result<StepReport> ComputeGradients(std::span<const std::vector<PackedSequence>> micro_batches);
  // ComputeGradients, then clipping and one update. Error kInternal besides: the loss is not finite. After an error
  // that leaves updates() as it was, so are parameters and moments; after any other nothing is known of them.
  Result<StepReport> Step(std::span<const std::vector<PackedSequence>> micro_batches, double learning_rate);

  // KL at T = 1, agreement and cross-entropies on text that is not trained on.
  Result<Quality> Measure(std::span<const TokenSequence> sequences) const;

  Gradients gradients() const;  // a copy on the host
  const Student& student() const;
  const ModelConfig& config() const;
  const kernels::Backend& backend() const;
  int64_t updates() const;  // done so far

  // Continues from saved masters and moments after `updates` updates. Error kInvalidInput: a name or size that differs.
  Status Restore(std::vector<Parameter> parameters, int64_t updates);

 private:
  class Impl;
  explicit Trainer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_TRAINER_H_
