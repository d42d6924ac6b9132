#include "distill/student.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "base/parallel.h"
#include "distill/gradient_products.h"
#include "model/swiftkv_transform.h"

namespace swiftkv {
namespace {

constexpr int64_t kPackRows = 64;  // PackRows may run in parallel from multiples of 64

bool EndsWith(std::string_view text, std::string_view end) { return text.ends_with(end); }

void Pack(const kernels::Backend& backend, const float* values, kernels::PackedMatrix* w) {
  ParallelFor((w->n + kPackRows - 1) / kPackRows, [&](int64_t strip) {
    const int64_t begin = strip * kPackRows;
    backend.PackRows(values + begin * w->k, begin, std::min(kPackRows, w->n - begin), w);
  });
}

}  // namespace

Result<Student> Student::Create(const ModelConfig& config, const TensorSource& start, const kernels::Backend& backend,
                                DType dtype) {
  Student student(config);
  SWIFTKV_RETURN_IF_ERROR(student.ReadParameters(start));
  for (size_t i = 0; i < student.layers_.size(); ++i) {
    SWIFTKV_ASSIGN_OR_RETURN(auto packed, backend.AllocatePacked(config.hidden_size, config.q_size(), dtype));
    student.q_transposed_.push_back(std::move(packed));
  }
  const auto groups = static_cast<int64_t>(student.groups_.size());
  SWIFTKV_ASSIGN_OR_RETURN(student.kv_transposed_,
                           backend.AllocatePacked(config.hidden_size, 2 * groups * config.kv_size(), dtype));
  return student;
}

Status Student::ReadParameters(const TensorSource& start) {
  const int64_t n = config_.num_key_value_layers;
  layers_.resize(static_cast<size_t>(config_.num_hidden_layers - n));
  groups_.resize(static_cast<size_t>(config_.kv_groups() - n));
  for (const SwiftKvTensor& tensor : SwiftKvTensors(config_)) {
    const auto place = static_cast<int64_t>(parameters_.size());
    Parameter& parameter = parameters_.emplace_back();
    parameter.name = tensor.name;
    parameter.shape = tensor.shape;
    SWIFTKV_ASSIGN_OR_RETURN(parameter.value, ReadTensor(start, tensor.name, tensor.shape));
    parameter.first_moment.assign(parameter.value.size(), 0.0f);
    parameter.second_moment.assign(parameter.value.size(), 0.0f);
    if (tensor.name == kNormSwiftKvName) {
      norm_ = place;
      continue;
    }
    LayerPlaces& layer = layers_[static_cast<size_t>(tensor.layer - n)];
    GroupPlaces& group = groups_[static_cast<size_t>(config_.kv_group(tensor.layer) - n)];
    const std::pair<const char*, int64_t*> places[] = {
        {"q_proj_swiftkv.weight", &layer.q_weight}, {"q_proj_swiftkv.bias", &layer.q_bias},
        {"q_norm_swiftkv.weight", &layer.q_norm},   {"k_proj_swiftkv.weight", &group.k_weight},
        {"k_proj_swiftkv.bias", &group.k_bias},     {"k_norm_swiftkv.weight", &group.k_norm},
        {"v_proj_swiftkv.weight", &group.v_weight}, {"v_proj_swiftkv.bias", &group.v_bias}};
    for (const auto& [end, field] : places) {
      if (EndsWith(tensor.name, end)) *field = place;
    }
  }
  return Ok();
}

// Keys of every group, then values of every group, as LaterKvWeights has them; empty for biases that do not exist.
std::vector<float> Student::StackedKv(bool weight) const {
  std::vector<float> stacked;
  const auto add = [&](int64_t place) {
    if (place < 0) return;
    const std::vector<float>& values = parameters_[static_cast<size_t>(place)].value;
    stacked.insert(stacked.end(), values.begin(), values.end());
  };
  for (const GroupPlaces& group : groups_) add(weight ? group.k_weight : group.k_bias);
  for (const GroupPlaces& group : groups_) add(weight ? group.v_weight : group.v_bias);
  return stacked;
}

void Student::Repack(Weights* weights) {
  const kernels::Backend& backend = *weights->backend;
  const auto value = [&](int64_t place) {
    return place < 0 ? std::vector<float>() : parameters_[static_cast<size_t>(place)].value;
  };
  for (size_t i = 0; i < layers_.size(); ++i) {
    LayerWeights& w = weights->layers[static_cast<size_t>(config_.num_key_value_layers) + i];
    const std::vector<float>& q = parameters_[static_cast<size_t>(layers_[i].q_weight)].value;
    Pack(backend, q.data(), &w.q_proj_swiftkv);
    PackTransposed(backend, q.data(), config_.q_size(), config_.hidden_size, &q_transposed_[i]);
    w.q_bias_swiftkv = value(layers_[i].q_bias);
    w.q_norm_swiftkv = value(layers_[i].q_norm);
  }
  LaterKvWeights& later = weights->later;
  later.norm_swiftkv = value(norm_);
  const std::vector<float> kv = StackedKv(true);
  Pack(backend, kv.data(), &later.kv_proj);
  PackTransposed(backend, kv.data(), later.kv_proj.n, later.kv_proj.k, &kv_transposed_);
  later.kv_bias = StackedKv(false);
  for (size_t g = 0; g < later.k_norm.size(); ++g) later.k_norm[g] = value(groups_[g].k_norm);
}

MemoryTensors Student::Tensors(DType dtype) const {
  MemoryTensors tensors(dtype);
  for (const Parameter& parameter : parameters_) tensors.Set(parameter.name, parameter.shape, parameter.value);
  return tensors;
}

}  // namespace swiftkv
