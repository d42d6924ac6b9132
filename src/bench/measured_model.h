// The model that a benchmark measures: base and SwiftKV from one set of weights, real or random.
//
//   SWIFTKV_ASSIGN_OR_RETURN(MeasuredModel model, LoadMeasuredModel({.config_file = "llama-3.2-1b.json"}));
//   for (const Mode mode : model.modes) { Forward forward(model.weights, mode); ... }
#ifndef SWIFTKV_BENCH_MEASURED_MODEL_H_
#define SWIFTKV_BENCH_MEASURED_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/weights.h"

namespace swiftkv {

struct MeasuredModelOptions {
  std::string model = {};  // as every command's model argument
  std::string adapter = {};
  std::string config_file = {};  // not empty: random weights in the shape of this config.json, instead of a model
  // Of random weights only; 0: what the config says, and for a plain one n = L / 2 and g = 1.
  int64_t num_key_value_layers = 0;
  int64_t key_value_group_size = 0;
  std::optional<Mode> mode = {};  // absent: both, where the model has both
  DType dtype = DType::kBF16;
  Quantization quantization = Quantization::kNone;
  const kernels::Backend* backend = nullptr;  // null: kernels::DefaultBackend()
};

struct MeasuredModel {
  std::string origin;
  Weights weights;
  std::vector<Mode> modes;  // base first
};

// Errors: those of OpenModelFiles and LoadWeights; kInvalidInput (a mode that the model has not, a config that is
// wrong); kResourceExhausted if the weights are larger than the memory available.
Result<MeasuredModel> LoadMeasuredModel(const MeasuredModelOptions& options);

// "base" or "swiftkv", as --mode spells them.
std::string_view ModeLabel(Mode mode);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_MEASURED_MODEL_H_
