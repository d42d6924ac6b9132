#include "model/swiftkv_transform.h"

#include <fmt/ranges.h>

#include <cmath>
#include <utility>

namespace swiftkv {
namespace {

std::string InputLayernormName(int64_t layer) { return fmt::format("model.layers.{}.input_layernorm.weight", layer); }

// k or v of a group: the mean over its layers, each layer's columns multiplied by gamma_j / norm_swiftkv for kScaled.
Result<std::vector<float>> GroupMean(const ModelConfig& student, const TensorSource& base, const SwiftKvTensor& spec,
                                     Init init, const std::vector<float>& norm) {
  const bool scaled = init == Init::kScaled && spec.shape.size() == 2;
  const std::string part = spec.teacher.substr(AttentionTensorName(spec.layer, "").size());
  const auto share = static_cast<float>(student.key_value_group_size);
  std::vector<float> mean;
  for (int64_t layer = spec.layer; layer < spec.layer + student.key_value_group_size; ++layer) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<float> values,
                             ReadTensor(base, AttentionTensorName(layer, part), spec.shape));
    std::vector<float> scale(norm.size(), 1.0f);
    if (scaled) {
      SWIFTKV_ASSIGN_OR_RETURN(scale, ReadTensor(base, InputLayernormName(layer), {student.hidden_size}));
      for (size_t i = 0; i < scale.size(); ++i) scale[i] /= norm[i];
    }
    mean.resize(values.size(), 0.0f);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += values[i] * scale[i % scale.size()] / share;
  }
  return mean;
}

}  // namespace

Result<ModelConfig> StudentConfig(const ModelConfig& base, int64_t num_key_value_layers, int64_t key_value_group_size) {
  const int64_t layers = base.num_hidden_layers;
  if (num_key_value_layers < 1 || num_key_value_layers > layers) {
    return InvalidInput("num_key_value_layers is {}, it must be 1 to {} (the model's layers)", num_key_value_layers,
                        layers);
  }
  if (key_value_group_size < 1 || (layers - num_key_value_layers) % key_value_group_size != 0) {
    return InvalidInput("key_value_group_size {} does not divide the {} layers above num_key_value_layers {}",
                        key_value_group_size, layers - num_key_value_layers, num_key_value_layers);
  }
  ModelConfig student = base.Teacher();
  student.num_key_value_layers = num_key_value_layers;
  student.key_value_group_size = key_value_group_size;
  return student;
}

std::string AttentionTensorName(int64_t layer, std::string_view part) {
  return fmt::format("model.layers.{}.self_attn.{}", layer, part);
}

std::vector<BaseTensor> BaseTensors(const ModelConfig& config) {
  std::vector<BaseTensor> tensors = {{"model.embed_tokens.weight", {config.vocab_size, config.hidden_size}}};
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const auto add = [&](std::string_view module, int64_t out, int64_t in, bool bias) {
      const std::string name = fmt::format("model.layers.{}.{}", layer, module);
      tensors.push_back({name + ".weight", {out, in}});
      if (bias) tensors.push_back({name + ".bias", {out}});
    };
    const auto add_norm = [&](std::string_view module, int64_t size) {
      tensors.push_back({fmt::format("model.layers.{}.{}.weight", layer, module), {size}});
    };
    add("self_attn.q_proj", config.q_size(), config.hidden_size, config.qkv_bias);
    add("self_attn.k_proj", config.kv_size(), config.hidden_size, config.qkv_bias);
    add("self_attn.v_proj", config.kv_size(), config.hidden_size, config.qkv_bias);
    add("self_attn.o_proj", config.hidden_size, config.q_size(), config.o_bias);
    if (config.qk_norm) add_norm("self_attn.q_norm", config.head_dim);
    if (config.qk_norm) add_norm("self_attn.k_norm", config.head_dim);
    add("mlp.gate_proj", config.intermediate_size, config.hidden_size, config.mlp_bias);
    add("mlp.up_proj", config.intermediate_size, config.hidden_size, config.mlp_bias);
    add("mlp.down_proj", config.hidden_size, config.intermediate_size, config.mlp_bias);
    add_norm("input_layernorm", config.hidden_size);
    add_norm("post_attention_layernorm", config.hidden_size);
  }
  tensors.push_back({"model.norm.weight", {config.hidden_size}});
  if (!config.tie_word_embeddings) tensors.push_back({"lm_head.weight", {config.vocab_size, config.hidden_size}});
  return tensors;
}

std::vector<SwiftKvTensor> SwiftKvTensors(const ModelConfig& student) {
  std::vector<SwiftKvTensor> specs;
  if (!student.is_swiftkv()) return specs;
  for (int64_t layer = student.num_key_value_layers; layer < student.num_hidden_layers; ++layer) {
    const auto add = [&](std::string_view module, std::string_view parameter, std::vector<int64_t> shape) {
      specs.push_back({.name = AttentionTensorName(layer, fmt::format("{}_swiftkv.{}", module, parameter)),
                       .teacher = AttentionTensorName(layer, fmt::format("{}.{}", module, parameter)),
                       .shape = std::move(shape),
                       .layer = layer,
                       .shared = module == "k_proj" || module == "v_proj"});
    };
    const auto add_projection = [&](std::string_view module, int64_t out) {
      add(module, "weight", {out, student.hidden_size});
      if (student.qkv_bias) add(module, "bias", {out});
    };
    const bool owner = student.kv_owner(layer) == layer;
    add_projection("q_proj", student.q_size());
    if (owner) add_projection("k_proj", student.kv_size());
    if (owner) add_projection("v_proj", student.kv_size());
    if (student.qk_norm) add("q_norm", "weight", {student.head_dim});
    if (student.qk_norm && owner) add("k_norm", "weight", {student.head_dim});
  }
  specs.push_back({.name = std::string(kNormSwiftKvName),
                   .teacher = InputLayernormName(student.num_key_value_layers),
                   .shape = {student.hidden_size},
                   .layer = student.num_key_value_layers});
  return specs;
}

std::vector<BaseTensor> CheckpointTensors(const ModelConfig& student) {
  const std::vector<SwiftKvTensor> added = SwiftKvTensors(student);
  auto next = added.begin();
  std::vector<BaseTensor> tensors;
  const auto add_those_of = [&](std::string_view prefix) {
    for (; next != added.end() && next->name.starts_with(prefix); ++next) tensors.push_back({next->name, next->shape});
  };
  for (BaseTensor& tensor : BaseTensors(student)) {
    const size_t mlp = tensor.name.find("mlp.");
    if (mlp != std::string::npos) add_those_of(tensor.name.substr(0, mlp));
    tensors.push_back(std::move(tensor));
    if (tensors.back().name == "model.norm.weight") add_those_of(kNormSwiftKvName);
  }
  return tensors;
}

Result<std::vector<float>> ReadTensor(const TensorSource& source, const std::string& name,
                                      const std::vector<int64_t>& shape) {
  const StoredTensor* tensor = source.Find(name);
  if (tensor == nullptr) return InvalidInput("{}: the checkpoint has no such tensor", source.Place(name));
  if (tensor->shape != shape) {
    return InvalidInput("{}: shape [{}], expected [{}]", source.Place(name), fmt::join(tensor->shape, ", "),
                        fmt::join(shape, ", "));
  }
  std::vector<float> values(static_cast<size_t>(tensor->rows() * tensor->columns()));
  SWIFTKV_RETURN_IF_ERROR(DecodeRows(*tensor, 0, tensor->rows(), values.data()));
  return values;
}

std::vector<float> GuardedNorm(std::vector<float> norm) {
  double mean = 0;
  for (const float value : norm) mean += std::abs(value) / static_cast<double>(norm.size());
  const float least = mean > 0 ? static_cast<float>(1e-2 * mean) : 1.0f;
  for (float& value : norm) {
    if (std::abs(value) < least) value = std::copysign(least, value);
  }
  return norm;
}

Result<MemoryTensors> InitStudent(const ModelConfig& student, const TensorSource& base, Init init, DType dtype) {
  MemoryTensors tensors(dtype);
  if (!student.is_swiftkv()) return tensors;
  SWIFTKV_ASSIGN_OR_RETURN(std::vector<float> norm,
                           ReadTensor(base, InputLayernormName(student.num_key_value_layers), {student.hidden_size}));
  if (init == Init::kScaled) norm = GuardedNorm(std::move(norm));
  for (const SwiftKvTensor& spec : SwiftKvTensors(student)) {
    if (spec.name == kNormSwiftKvName) {
      tensors.Set(spec.name, spec.shape, norm);
      continue;
    }
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<float> values, spec.shared ? GroupMean(student, base, spec, init, norm)
                                                                          : ReadTensor(base, spec.teacher, spec.shape));
    tensors.Set(spec.name, spec.shape, values);
  }
  return tensors;
}

Result<MemoryTensors> ReadStudent(const ModelConfig& student, const TensorSource& source, DType dtype) {
  MemoryTensors tensors(dtype);
  for (const SwiftKvTensor& spec : SwiftKvTensors(student)) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<float> values, ReadTensor(source, spec.name, spec.shape));
    tensors.Set(spec.name, spec.shape, values);
  }
  return tensors;
}

}  // namespace swiftkv
