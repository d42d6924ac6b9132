// What a distillation tells: on the screen, as JSON, and in the model card that lies beside the adapter or checkpoint.
#ifndef SWIFTKV_CLI_DISTILL_REPORT_H_
#define SWIFTKV_CLI_DISTILL_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "distill/metrics.h"
#include "model/checkpoint_output.h"
#include "model/config.h"

namespace swiftkv {

struct DistillReport {
  // A text that was trained or measured on.
  struct Source {
    std::string name;
    std::string use;      // "trained on", "held out", ...
    std::string licence;  // as the user named it; may be empty
  };

  std::string origin;  // the base model
  ModelConfig student;
  OutputOptions options;
  DType dtype = DType::kBF16;
  std::string start;    // what the student was before the first step: "a calibrated conversion"
  std::string command;  // that made it
  std::string recipe;   // YAML
  std::vector<Source> sources;
  int64_t steps = 0;
  int64_t tokens = 0;  // trained on
  double seconds = 0;  // of training
  int64_t peak_bytes = 0;
  std::vector<HeldOutMetrics> before;   // training; may be empty
  std::vector<HeldOutMetrics> quality;  // after it
  std::string loss_curve;               // the picture's name in the folder of the card; may be empty
};

std::string DistillReportText(const DistillReport& report);
std::string DistillReportJson(const DistillReport& report);  // one line
std::string DistillModelCard(const DistillReport& report);   // Markdown

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_DISTILL_REPORT_H_
