// What a conversion tells: on the screen, as JSON, and in the model card that lies in the folder it wrote.
#ifndef SWIFTKV_CLI_CONVERT_REPORT_H_
#define SWIFTKV_CLI_CONVERT_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "model/checkpoint_output.h"
#include "model/config.h"
#include "model/group_fit.h"
#include "model/quality.h"

namespace swiftkv {

struct ConvertReport {
  struct Tried {
    int64_t num_key_value_layers = 0;
    Quality quality;
  };

  struct Kind {
    std::string name;
    Quality quality;
  };

  std::string origin;
  ModelConfig student;
  OutputOptions options;
  DType dtype = DType::kBF16;
  std::string init;
  std::string adapter;  // init is "adapter": whose tensors these are
  std::string text;     // CalibrationText::description
  double lambda = 0;
  TokenWeights token_weights = TokenWeights::kHead;
  int64_t calibration_tokens = 0;  // 0: not calibrated
  std::vector<LayerFit> fits;
  Quality quality;  // the mean over the kinds of held-out text
  std::vector<Kind> kinds;
  std::vector<Tried> tried;  // by --num-key-value-layers auto
  double text_seconds = 0;
  double calibration_seconds = 0;
  double measure_seconds = 0;
  double seconds = 0;
  int64_t peak_bytes = 0;
};

std::string ReportText(const ConvertReport& report);
std::string ReportJson(const ConvertReport& report);  // one line
std::string ModelCard(const ConvertReport& report);   // Markdown

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_CONVERT_REPORT_H_
