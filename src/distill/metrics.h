// metrics.jsonl: what a training run measured, one JSON object a line.
//
//   {"step":12,"tokens":49152,"loss":0.41,"kl":0.41,"hidden_loss":0.0,"agreement":0.74,"grad_norm":0.8,
//    "learning_rate":0.0002,"tok_s":1510.2,"seconds":32.5}
//   {"step":50,"held_out":"novels","tokens":8192,"kl":0.21,"agreement":0.81,"teacher_cross_entropy":2.91,
//    "student_cross_entropy":2.99}
//
// A number that is not finite is null. Losses and cross-entropies are in nats.
//
//   SWIFTKV_ASSIGN_OR_RETURN(MetricsLog log, MetricsLog::Open(folder + "/metrics.jsonl", loaded.state.step));
//   log.Append(StepMetrics{...});        // after each step
//   log.Append(HeldOutMetrics{...});     // of a step, before that step's checkpoint
//   log.Sync();                          // before each checkpoint
//   SaveTrainingCheckpoint(...);
//
// So a run that resumes has every line up to its checkpoint, and none twice.
#ifndef SWIFTKV_DISTILL_METRICS_H_
#define SWIFTKV_DISTILL_METRICS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "model/quality.h"

namespace swiftkv {

struct StepMetrics {
  int64_t step = 0;    // that is done, from 1
  int64_t tokens = 0;  // trained on so far
  double loss = 0;     // of this step, with the hidden-state loss's multiplier
  double kl = 0;       // T^2 KL(teacher || student), mean over the positions in the loss
  double hidden_loss = 0;
  double agreement = 0;  // share of the same positions where both have the same most likely token
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  double tokens_per_second = 0;
  double seconds = 0;  // of training so far, all runs together
};

struct HeldOutMetrics {
  int64_t step = 0;
  std::string source;
  Quality quality;
};

struct Metrics {
  std::vector<StepMetrics> steps;        // as they stand in the file
  std::vector<HeldOutMetrics> held_out;  // where a source was measured twice at a step, the later
  int64_t unreadable_lines = 0;          // the last line of a run that was killed, say
};

// Errors: kNotFound, kInvalidInput (larger than 1 GiB), kIo.
Result<Metrics> ReadMetrics(const std::string& path);

class MetricsLog {
 public:
  // `step`: of the checkpoint that the run goes on from, 0 for a new run. Lines of later steps, and of a new run all
  // lines, are removed from the file. Errors as ReadMetrics, but no file is no error.
  static Result<MetricsLog> Open(const std::string& path, int64_t step);
  Status Append(const StepMetrics& metrics);
  Status Append(const HeldOutMetrics& metrics);
  // Until then a loss of power, though no end of the process, can take lines.
  Status Sync() { return file_.Sync(); }
  // Sentences about lines that Open found damaged or missing.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  explicit MetricsLog(AppendFile file) : file_(std::move(file)) {}
  AppendFile file_;
  std::vector<std::string> warnings_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_METRICS_H_
