// A distillation run from its first to its last update: rows from the data, steps of the trainer, held-out quality,
// metrics, checkpoints. The caller shows what it reports and says when to stop.
//
//   DistillRun run(recipe, trainer.get(), data.get(), held_out, folder, listener);
//   SWIFTKV_RETURN_IF_ERROR(run.CountSteps());
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
#include "distill/metrics.h"
#include "distill/recipe.h"
#include "distill/trainer.h"
#include "distill/training_checkpoint.h"

namespace swiftkv {

TrainerOptions TrainerOptionsOf(const Recipe& recipe);

// Text that is only measured on, each document from position 0.
struct HeldOutSet {
  std::string name;
  std::vector<TokenSequence> documents;
};
std::vector<TokenSequence> Documents(std::span<const PackedSequence> packed);

class RunListener {
 public:
  virtual ~RunListener() = default;
  virtual void OnStep(const StepMetrics& metrics) = 0;
  virtual void OnHeldOut(const HeldOutMetrics& metrics) = 0;
  virtual void OnWarning(const std::string& sentence) = 0;
  // Asked before each step.
  virtual bool StopAsked() = 0;
};

struct RunEnd {
  bool finished = false;  // false: stopped, with a checkpoint to resume from
  int64_t steps_done = 0;
  int64_t tokens = 0;
  double seconds = 0;                    // of training, all parts of the run together
  std::vector<HeldOutMetrics> held_out;  // after the last step; empty unless finished
};

class DistillRun {
 public:
  // folder: of training checkpoints and metrics.jsonl. All but `recipe` must outlive this.
  DistillRun(const Recipe& recipe, Trainer* trainer, Dataset* data, std::vector<HeldOutSet> held_out,
             std::string folder, RunListener* listener);

  // Finds the number of updates of the whole run: train_iters, or what `epochs` give. Error: of CountSequences.
  Status CountSteps();
  int64_t steps() const { return steps_; }
  // Goes on from the newest checkpoint. Warns where that was trained on another device, whose bytes may differ. Errors:
  // kNotFound (there is none), those of LoadTrainingCheckpoint.
  Status Resume();
  // Errors: those of the trainer and the data; what was learnt before them is saved, and the sentence says so, so that
  // Resume goes on with the update or measurement that failed. Lines of metrics and checkpoints that can't be written
  // (a full disk) are warnings, and older checkpoints stay; only the checkpoint of a run that was stopped is an error,
  // as nothing else holds what was learnt.
  Result<RunEnd> Train();

  std::string MetricsPath() const { return folder_ + "/metrics.jsonl"; }

 private:
  Result<std::vector<std::vector<PackedSequence>>> NextBatches();
  // One update; false where the data has ended.
  Result<bool> Update(const ScheduleOptions& schedule, MetricsLog* log);
  Result<bool> TryUpdate(const ScheduleOptions& schedule, MetricsLog* log);
  // What is asked for every so many updates.
  Status MeasureAndSaveIfDue(MetricsLog* log);
  Result<RunEnd> Finish(bool finished, MetricsLog* log);
  Result<std::vector<HeldOutMetrics>> Measure(MetricsLog* log);
  // data: what the next update begins with.
  Status Save(const DatasetState& data, MetricsLog* log);
  // Of a failure that left the parameters good: saves them, and says so behind `error`.
  Error SaveAfter(Error error, const DatasetState& data, MetricsLog* log);
  // Warns, once a run, of a metrics.jsonl that can't be written.
  void CheckLogged(const Status& status);
  // Passes on what the data has warned of since it was last asked.
  void TellOfSkippedRows();

  const Recipe recipe_;
  Trainer* trainer_;
  Dataset* data_;
  std::vector<HeldOutSet> held_out_;
  std::string folder_;
  RunListener* listener_;
  int64_t steps_ = 0;
  int64_t tokens_ = 0;
  double seconds_ = 0;
  int64_t saved_step_ = 0;  // of the newest checkpoint; 0: there is none
  bool log_failed_ = false;
  size_t told_warnings_ = 0;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_RUN_H_
