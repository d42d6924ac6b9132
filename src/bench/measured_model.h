// The model that a benchmark measures: base and SwiftKV from one set of weights, real or random.
//
//   SWIFTKV_ASSIGN_OR_RETURN(MeasuredModel model, LoadMeasuredModel({.config_file = "llama-3.2-1b.json"}));
//   for (const Mode mode : model.modes) { Forward forward(model.weights, mode); ... }
#ifndef SWIFTKV_BENCH_MEASURED_MODEL_H_
#define SWIFTKV_BENCH_MEASURED_MODEL_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
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
  std::vector<Mode> modes;            // base first
  std::string quantization = "none";  // of the weights, as --quantization spells it
};

// What a report says of a model.
struct ModelInfo {
  std::string origin;
  ModelConfig config;
  DType dtype = DType::kBF16;
  DType kv_cache_dtype = DType::kBF16;
  std::string quantization = "none";  // as MeasuredModel's
  double parameters = 0;              // of the base model
  double size_bytes = 0;              // of them, packed
};
// `kv_cache_dtype` as Forward's.
ModelInfo Describe(const MeasuredModel& model, std::optional<DType> kv_cache_dtype);
// "model.gguf: L = 30, n = 20, g = 1, 134.52 M parameters, BF16, weights int8 140.31 MiB, K/V cache I8"
std::string ModelText(const ModelInfo& model);
// All but the origin, with llama-bench's names where it has them.
nlohmann::ordered_json ModelJson(const ModelInfo& model);

// Errors: those of OpenModelFiles and LoadWeights; kInvalidInput (a mode that the model has not, a config that is
// wrong); kResourceExhausted if the weights are larger than the memory available.
Result<MeasuredModel> LoadMeasuredModel(const MeasuredModelOptions& options);

// "base" or "swiftkv", as --mode spells them.
std::string_view ModeLabel(Mode mode);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_MEASURED_MODEL_H_
