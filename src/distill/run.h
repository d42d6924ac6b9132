// A distillation run from its first to its last update: rows from the data, steps of the trainer, held-out quality,
// checkpoints. The caller shows what it reports and says when to stop.
//
//   DistillRun run(recipe, trainer.get(), data.get(), held_out, folder, listener);
//   SWIFTKV_RETURN_IF_ERROR(run.Resume());                            // where there is a checkpoint in `folder`
//   SWIFTKV_ASSIGN_OR_RETURN(RunEnd end, run.Train());
//
// A run that was stopped and resumed gives, bit for bit, the parameters of one that was not.
#ifndef SWIFTKV_DISTILL_RUN_H_
#define SWIFTKV_DISTILL_RUN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "distill/dataset.h"
#include "distill/recipe.h"
#include "distill/trainer.h"
#include "distill/training_checkpoint.h"
#include "model/quality.h"

namespace swiftkv {

TrainerOptions TrainerOptionsOf(const Recipe& recipe);

// Text that is only measured on, each document from position 0.
struct HeldOutSet {
  std::string name;
  std::vector<TokenSequence> sequences;
};
std::vector<TokenSequence> Documents(std::span<const PackedSequence> packed);

struct SetQuality {
  std::string name;
  Quality quality;
};

struct StepLine {
  int64_t step = 0;  // updates done, this one included
  int64_t steps = 0;
  int64_t tokens = 0;  // trained on so far
  double seconds = 0;  // of training so far, all runs together
  double learning_rate = 0;
  StepReport report;
};

class RunListener {
 public:
  virtual ~RunListener() = default;
  virtual Status OnStep(const StepLine& line) = 0;
  virtual Status OnQuality(int64_t step, std::span<const SetQuality> sets) = 0;
  virtual void OnWarning(const std::string& sentence) = 0;
  // Asked before each step.
  virtual bool StopAsked() = 0;
};

struct RunEnd {
  bool finished = false;  // false: stopped, with a checkpoint to resume from
  int64_t step = 0;
  int64_t steps = 0;
  int64_t tokens = 0;
  double seconds = 0;
  std::vector<SetQuality> start;  // empty where the run was resumed
  std::vector<SetQuality> end;    // empty unless finished
};

class DistillRun {
 public:
  // folder: of training checkpoints. All but `recipe` must outlive this.
  DistillRun(const Recipe& recipe, Trainer* trainer, Dataset* data, std::vector<HeldOutSet> held_out,
             std::string folder, RunListener* listener);

  // Updates of the whole run: train_iters, or what `epochs` give. Error: those of Dataset::CountSequences.
  Status CountSteps();
  // Goes on from the newest checkpoint. Errors: kNotFound (there is none), those of LoadTrainingCheckpoint.
  Status Resume();
  // Errors: those of the trainer, the data and the listener. A checkpoint that can't be written (a full disk) is a
  // warning, and the older ones stay; at the end of a stopped run it is an error.
  Result<RunEnd> Train();

  int64_t step() const { return trainer_->updates(); }
  int64_t steps() const { return steps_; }

 private:
  TrainingState State() const;
  Result<std::vector<std::vector<PackedSequence>>> NextBatches();
  Result<std::vector<SetQuality>> Measure() const;

  const Recipe recipe_;
  Trainer* trainer_;
  Dataset* data_;
  std::vector<HeldOutSet> held_out_;
  std::string folder_;
  RunListener* listener_;
  int64_t steps_ = 0;
  int64_t tokens_ = 0;
  double seconds_ = 0;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_RUN_H_
