#include "bench/measured_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"
#include "checkpoint/json_file.h"
#include "engine/memory.h"
#include "engine/model_costs.h"
#include "model/model_files.h"

namespace swiftkv {
namespace {

constexpr uint64_t kWeightsSeed = 1;

Result<ModelConfig> ReadConfig(const MeasuredModelOptions& options) {
  SWIFTKV_ASSIGN_OR_RETURN(nlohmann::ordered_json json, ReadJsonFile(options.config_file));
  SWIFTKV_ASSIGN_OR_RETURN(ModelConfig config, ParseHfConfig(json, options.config_file));
  if (options.num_key_value_layers > 0) {
    config.num_key_value_layers = options.num_key_value_layers;
  } else if (!config.is_swiftkv() && options.mode != Mode::kTeacher) {
    config.num_key_value_layers = std::max<int64_t>(config.num_hidden_layers / 2, 1);
  }
  if (options.key_value_group_size > 0) config.key_value_group_size = options.key_value_group_size;
  SWIFTKV_RETURN_IF_ERROR(CheckConfig(config, options.config_file));
  return config;
}

// The modes that can be measured and were asked for.
Result<std::vector<Mode>> ChooseModes(const std::string& origin, bool has_base, bool has_swiftkv,
                                      std::optional<Mode> wanted) {
  std::vector<Mode> modes;
  if (has_base && wanted != Mode::kStudent) modes.push_back(Mode::kTeacher);
  if (has_swiftkv && wanted != Mode::kTeacher) modes.push_back(Mode::kStudent);
  if (!modes.empty()) return modes;
  return InvalidInput("{}: has no mode {}{}", origin, ModeLabel(*wanted),
                      has_base ? "; give --adapter, or convert it first" : "");
}

// All modes share what they have in common; quantized weights need no more.
int64_t PackedBytes(const ModelConfig& config, const std::vector<Mode>& modes, DType dtype) {
  const ModelCosts costs = ComputeModelCosts(config);
  const int64_t parameters =
      modes.size() == 2 ? costs.base_parameters + costs.swiftkv_parameters : costs.parameters(modes.front());
  return parameters * BlockBytes(dtype);
}

LoadOptions WeightsOptions(const std::vector<Mode>& modes, const MeasuredModelOptions& options) {
  const auto has = [&](Mode mode) { return std::find(modes.begin(), modes.end(), mode) != modes.end(); };
  return {.dtype = options.dtype,
          .quantization = options.quantization,
          .teacher = has(Mode::kTeacher),
          .student = has(Mode::kStudent),
          .backend = options.backend};
}

Status CheckFits(const MeasuredModel& model, const ModelConfig& config, const MeasuredModelOptions& options) {
  const kernels::Backend& backend = options.backend != nullptr ? *options.backend : kernels::DefaultBackend();
  const DType dtype = options.quantization == Quantization::kFp8 ? DType::kF8E4M3 : options.dtype;
  return CheckWeightsFit(model.origin, PackedBytes(config, model.modes, dtype), backend.memory());
}

Result<MeasuredModel> RandomModel(const MeasuredModelOptions& options) {
  SWIFTKV_ASSIGN_OR_RETURN(const ModelConfig config, ReadConfig(options));
  MeasuredModel model{.origin = options.config_file + " (random weights)", .weights = {}, .modes = {}};
  SWIFTKV_ASSIGN_OR_RETURN(model.modes, ChooseModes(model.origin, true, config.is_swiftkv(), options.mode));
  SWIFTKV_RETURN_IF_ERROR(CheckFits(model, config, options));
  SWIFTKV_ASSIGN_OR_RETURN(model.weights, RandomWeights(config, kWeightsSeed, WeightsOptions(model.modes, options)));
  return model;
}

}  // namespace

std::string_view ModeLabel(Mode mode) { return mode == Mode::kTeacher ? "base" : "swiftkv"; }

ModelInfo Describe(const MeasuredModel& model, std::optional<DType> kv_cache_dtype) {
  const ModelConfig& config = model.weights.config;
  const auto parameters = static_cast<double>(ComputeModelCosts(config).base_parameters);
  return {.origin = model.origin,
          .config = config,
          .dtype = model.weights.dtype,
          .kv_cache_dtype = kv_cache_dtype.value_or(model.weights.dtype),
          .quantization = model.quantization,
          .parameters = parameters,
          .size_bytes = parameters * BytesPerWeight(model.weights)};
}

std::string ModelText(const ModelInfo& model) {
  const ModelConfig& c = model.config;
  const std::string layers = c.is_swiftkv() ? fmt::format("L = {}, n = {}, g = {}", c.num_hidden_layers,
                                                          c.num_key_value_layers, c.key_value_group_size)
                                            : fmt::format("L = {}", c.num_hidden_layers);
  const std::string quantization = model.quantization == "none" ? "" : ", weights " + model.quantization;
  const std::string cache =
      model.kv_cache_dtype == model.dtype ? "" : fmt::format(", K/V cache {}", Name(model.kv_cache_dtype));
  return fmt::format("{}: {}, {:.2f} M parameters, {}{} {:.2f} MiB{}", Printable(model.origin), layers,
                     model.parameters / 1e6, Name(model.dtype), quantization, model.size_bytes / (1 << 20), cache);
}

nlohmann::ordered_json ModelJson(const ModelInfo& model) {
  return {{"model_type", fmt::format("{} {}", Name(model.config.family), Name(model.dtype))},
          {"model_size", static_cast<int64_t>(model.size_bytes)},
          {"model_n_params", static_cast<int64_t>(model.parameters)},
          {"num_hidden_layers", model.config.num_hidden_layers},
          {"num_key_value_layers", model.config.num_key_value_layers},
          {"key_value_group_size", model.config.key_value_group_size},
          {"quantization", model.quantization},
          {"type_k", Name(model.kv_cache_dtype)},
          {"type_v", Name(model.kv_cache_dtype)}};
}

Result<MeasuredModel> LoadMeasuredModel(const MeasuredModelOptions& options) {
  SWIFTKV_RETURN_IF_ERROR(kernels::CheckBackendChoice());
  if (!options.config_file.empty()) return RandomModel(options);
  SWIFTKV_ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(options.model, options.adapter));
  // A student's checkpoint may lack the original k/v of the layers that it skips.
  const std::string last = fmt::format("model.layers.{}.self_attn.k_proj.weight", files.config.num_hidden_layers - 1);
  MeasuredModel model{.origin = files.origin, .weights = {}, .modes = {}};
  if (!options.adapter.empty()) model.origin += " + " + options.adapter;
  SWIFTKV_ASSIGN_OR_RETURN(model.modes, ChooseModes(model.origin, files.base->Find(last) != nullptr,
                                                    files.config.is_swiftkv(), options.mode));
  SWIFTKV_RETURN_IF_ERROR(CheckFits(model, files.config, options));
  SWIFTKV_ASSIGN_OR_RETURN(
      model.weights, LoadWeights(files.config, *files.base, files.adapter.get(), WeightsOptions(model.modes, options)));
  return model;
}

}  // namespace swiftkv
