#include "distill/student.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>

#include "model/swiftkv_transform.h"

namespace swiftkv {
namespace {

constexpr int64_t kAlignment = 64;  // floats, so that every matrix begins where a device reads it best

bool EndsWith(std::string_view text, std::string_view end) { return text.ends_with(end); }

int64_t Elements(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

Result<Student> Student::Allocate(const ModelConfig& config, const kernels::Backend& backend, DType dtype) {
  Student student(config, backend);
  student.ListParameters();
  SWIFTKV_RETURN_IF_ERROR(student.AllocateParameters());
  for (size_t i = 0; i < student.layers_.size(); ++i) {
    SWIFTKV_ASSIGN_OR_RETURN(auto packed, backend.AllocatePacked(config.hidden_size, config.q_size(), dtype));
    student.q_transposed_.push_back(std::move(packed));
  }
  const auto groups = static_cast<int64_t>(student.groups_.size());
  SWIFTKV_ASSIGN_OR_RETURN(student.kv_transposed_,
                           backend.AllocatePacked(config.hidden_size, 2 * groups * config.kv_size(), dtype));
  return student;
}

Result<Student> Student::Create(const ModelConfig& config, const TensorSource& start, const kernels::Backend& backend,
                                DType dtype) {
  SWIFTKV_ASSIGN_OR_RETURN(Student student, Allocate(config, backend, dtype));
  for (const ResidentParameter& parameter : student.resident_) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<float> values, ReadTensor(start, parameter.name, parameter.shape));
    student.Write(values, parameter.value);
  }
  return student;
}

Result<Student> Student::FromWeights(const Weights& weights) {
  SWIFTKV_ASSIGN_OR_RETURN(Student student, Allocate(weights.config, *weights.backend, weights.dtype));
  SWIFTKV_RETURN_IF_ERROR(student.UnpackMasters(weights));
  return student;
}

Status Student::UnpackMasters(const Weights& weights) {
  const LaterKvWeights& later = weights.later;
  std::vector<int32_t> ids(static_cast<size_t>(std::max(config_.q_size(), later.kv_proj.n)));
  std::iota(ids.begin(), ids.end(), 0);
  const auto bytes = static_cast<int64_t>(ids.size() * sizeof(int32_t));
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer rows, AlignedBuffer::Allocate(bytes, "row numbers", *memory_));
  memory_->Write(rows.data(), ids.data(), bytes);
  const auto unpack = [&](const kernels::PackedMatrix& w, int64_t place) {
    weights.backend->UnpackRows(w, rows.as<int32_t>(), w.n, value(place));
  };
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerWeights& w = weights.layers[static_cast<size_t>(config_.num_key_value_layers) + i];
    unpack(w.q_proj_swiftkv, layers_[i].q_weight);
    Write(w.q_bias_swiftkv, value(layers_[i].q_bias));
    Write(w.q_norm_swiftkv, value(layers_[i].q_norm));
  }
  unpack(later.kv_proj, groups_.front().k_weight);
  Write(later.kv_bias, value(groups_.front().k_bias));
  for (size_t g = 0; g < later.k_norm.size(); ++g) Write(later.k_norm[g], value(groups_[g].k_norm));
  Write(later.norm_swiftkv, value(norm_));
  return Ok();
}

// Names, shapes and places.
void Student::ListParameters() {
  const int64_t n = config_.num_key_value_layers;
  layers_.resize(static_cast<size_t>(config_.num_hidden_layers - n));
  groups_.resize(static_cast<size_t>(config_.kv_groups() - n));
  for (const SwiftKvTensor& tensor : SwiftKvTensors(config_)) {
    const auto place = static_cast<int64_t>(resident_.size());
    resident_.push_back({.name = tensor.name, .shape = tensor.shape, .size = Elements(tensor.shape)});
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
}

// Memory of all parameters, and where each of them lies in it.
Status Student::AllocateParameters() {
  int64_t end = 0;
  std::vector<std::pair<int64_t, int64_t>> begins;  // place, first element
  const auto stack = [&](const std::vector<int64_t>& places) {
    end = (end + kAlignment - 1) / kAlignment * kAlignment;
    for (const int64_t place : places) {
      if (place < 0) continue;
      begins.emplace_back(place, end);
      end += resident_[static_cast<size_t>(place)].size;
    }
  };
  std::vector<int64_t> weights, biases, value_weights, value_biases;
  for (const GroupPlaces& group : groups_) {
    weights.push_back(group.k_weight);
    biases.push_back(group.k_bias);
    value_weights.push_back(group.v_weight);
    value_biases.push_back(group.v_bias);
    stack({group.k_norm});
  }
  weights.insert(weights.end(), value_weights.begin(), value_weights.end());
  biases.insert(biases.end(), value_biases.begin(), value_biases.end());
  stack(weights);
  stack(biases);
  stack({norm_});
  for (const LayerPlaces& layer : layers_) {
    for (const int64_t place : {layer.q_weight, layer.q_bias, layer.q_norm}) stack({place});
  }
  for (const auto& [buffer, field] : {std::pair(&values_, &ResidentParameter::value),
                                      {&gradients_, &ResidentParameter::gradient},
                                      {&first_moments_, &ResidentParameter::first_moment},
                                      {&second_moments_, &ResidentParameter::second_moment}}) {
    SWIFTKV_ASSIGN_OR_RETURN(*buffer, AlignedBuffer::Allocate(end * 4, "trained parameters", *memory_));
    for (const auto& [place, begin] : begins)
      resident_[static_cast<size_t>(place)].*field = buffer->as<float>() + begin;
  }
  return Ok();
}

std::vector<float> Student::Read(const float* values, int64_t size) const {
  std::vector<float> read(static_cast<size_t>(size));
  memory_->Read(read.data(), reinterpret_cast<const std::byte*>(values), size * 4);
  return read;
}

void Student::Write(std::span<const float> values, float* to) const {
  memory_->Write(reinterpret_cast<std::byte*>(to), values.data(), static_cast<int64_t>(values.size_bytes()));
}

Result<std::vector<Parameter>> Student::parameters() const {
  std::vector<Parameter> parameters;
  for (const ResidentParameter& r : resident_) {
    parameters.push_back({.name = r.name,
                          .shape = r.shape,
                          .value = Read(r.value, r.size),
                          .first_moment = Read(r.first_moment, r.size),
                          .second_moment = Read(r.second_moment, r.size)});
  }
  SWIFTKV_RETURN_IF_ERROR(backend_->TakeError());
  return parameters;
}

Gradients Student::gradients() const {
  Gradients gradients;
  for (const ResidentParameter& r : resident_) gradients.push_back(Read(r.gradient, r.size));
  return gradients;
}

void Student::Restore(std::span<const Parameter> parameters) {
  for (size_t i = 0; i < resident_.size(); ++i) {
    Write(parameters[i].value, resident_[i].value);
    Write(parameters[i].first_moment, resident_[i].first_moment);
    Write(parameters[i].second_moment, resident_[i].second_moment);
  }
}

void Student::ZeroGradients() { memory_->Zero(gradients_.data(), gradients_.bytes()); }

// As many values from `place` on as there are already; the vectors keep their addresses.
void Student::ReadInto(int64_t place, std::vector<float>* values) const {
  if (values->empty()) return;
  memory_->Read(values->data(), reinterpret_cast<const std::byte*>(value(place)), std::ssize(*values) * 4);
}

void Student::Repack(Weights* weights) {
  const kernels::Backend& backend = *weights->backend;
  for (size_t i = 0; i < layers_.size(); ++i) {
    LayerWeights& w = weights->layers[static_cast<size_t>(config_.num_key_value_layers) + i];
    const float* q = value(layers_[i].q_weight);
    backend.PackFromMemory(q, 0, config_.q_size(), &w.q_proj_swiftkv);
    backend.PackTransposed(q, DType::kF32, config_.q_size(), config_.hidden_size, &q_transposed_[i]);
    ReadInto(layers_[i].q_bias, &w.q_bias_swiftkv);
    ReadInto(layers_[i].q_norm, &w.q_norm_swiftkv);
  }
  LaterKvWeights& later = weights->later;
  const float* kv = value(groups_.front().k_weight);
  backend.PackFromMemory(kv, 0, later.kv_proj.n, &later.kv_proj);
  backend.PackTransposed(kv, DType::kF32, later.kv_proj.n, later.kv_proj.k, &kv_transposed_);
  ReadInto(groups_.front().k_bias, &later.kv_bias);
  for (size_t g = 0; g < later.k_norm.size(); ++g) ReadInto(groups_[g].k_norm, &later.k_norm[g]);
  ReadInto(norm_, &later.norm_swiftkv);
}

Result<MemoryTensors> Student::Tensors(DType dtype) const {
  MemoryTensors tensors(dtype);
  for (const ResidentParameter& r : resident_) tensors.Set(r.name, r.shape, Read(r.value, r.size));
  SWIFTKV_RETURN_IF_ERROR(backend_->TakeError());
  return tensors;
}

}  // namespace swiftkv
