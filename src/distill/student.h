// What distillation trains: norm_swiftkv and q/k/v of the layers >= n (with their biases and q/k norms), as float32
// masters with their gradients and AdamW's moments, in the backend's memory. The model computes with packed copies in
// `Weights`, which Repack brings up to date after each step.
#ifndef SWIFTKV_DISTILL_STUDENT_H_
#define SWIFTKV_DISTILL_STUDENT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "checkpoint/tensor_source.h"
#include "distill/parameter.h"
#include "model/memory_tensors.h"
#include "model/weights.h"

namespace swiftkv {

class Student {
 public:
  // `start`: all SwiftKV tensors of `config`. Errors: kNotFound, kInvalidInput (a shape), kResourceExhausted.
  static Result<Student> Create(const ModelConfig& config, const TensorSource& start, const kernels::Backend& backend,
                                DType dtype);
  // The masters are what `weights` has. Error kResourceExhausted.
  static Result<Student> FromWeights(const Weights& weights);

  std::span<const ResidentParameter> resident() const { return resident_; }
  // Copies on the host. Errors of parameters: what the device said (Backend::TakeError).
  Result<std::vector<Parameter>> parameters() const;
  Gradients gradients() const;
  // Replaces masters and moments; names and sizes are those of parameters().
  void Restore(std::span<const Parameter> parameters);
  void ZeroGradients();

  // Places in resident(), -1 where the family has none. `layer` >= n; `group` counts KV groups from layer n.
  int64_t norm() const { return norm_; }
  struct LayerPlaces {
    int64_t q_weight = -1, q_bias = -1, q_norm = -1;
  };
  const LayerPlaces& layer(int64_t layer) const {
    return layers_[static_cast<size_t>(layer - config_.num_key_value_layers)];
  }
  // Keys of every group and then values of every group lie one after another in memory, weights and biases alike, as
  // LaterKvWeights has them: those of group 0's keys begin them all.
  struct GroupPlaces {
    int64_t k_weight = -1, k_bias = -1, k_norm = -1, v_weight = -1, v_bias = -1;
  };
  const GroupPlaces& group(int64_t group) const { return groups_[static_cast<size_t>(group)]; }
  // Null for place -1.
  float* value(int64_t place) const { return place < 0 ? nullptr : resident_[static_cast<size_t>(place)].value; }
  float* gradient(int64_t place) const { return place < 0 ? nullptr : resident_[static_cast<size_t>(place)].gradient; }

  // For dx = dy w: [hidden, q_size] of one layer; [hidden, 2 groups kv_size] of all KV groups.
  const kernels::PackedMatrix& q_transposed(int64_t layer) const {
    return q_transposed_[static_cast<size_t>(layer - config_.num_key_value_layers)];
  }
  const kernels::PackedMatrix& kv_transposed() const { return kv_transposed_; }

  // Puts the masters into the student's part of `weights`, and into the transposed copies.
  void Repack(Weights* weights);
  // The masters as tensors for a writer. Errors as parameters.
  Result<MemoryTensors> Tensors(DType dtype) const;

 private:
  Student(const ModelConfig& config, const kernels::Backend& backend)
      : config_(config), backend_(&backend), memory_(&backend.memory()) {}
  static Result<Student> Allocate(const ModelConfig& config, const kernels::Backend& backend, DType dtype);
  void ListParameters();
  Status AllocateParameters();
  Status UnpackMasters(const Weights& weights);
  std::vector<float> Read(const float* values, int64_t size) const;
  void Write(std::span<const float> values, float* to) const;
  void ReadInto(int64_t place, std::vector<float>* values) const;

  ModelConfig config_;
  const kernels::Backend* backend_;
  MemorySpace* memory_;  // the backend's
  std::vector<ResidentParameter> resident_;
  int64_t norm_ = -1;
  std::vector<LayerPlaces> layers_;
  std::vector<GroupPlaces> groups_;
  // All parameters' [sum of sizes], each of the four in the same order:
  AlignedBuffer values_;
  AlignedBuffer gradients_;
  AlignedBuffer first_moments_;
  AlignedBuffer second_moments_;
  std::vector<kernels::PackedMatrix> q_transposed_;
  kernels::PackedMatrix kv_transposed_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_STUDENT_H_
