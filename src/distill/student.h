// What distillation trains: norm_swiftkv and q/k/v of the layers >= n (with their biases and q/k norms), as float32
// masters. The model computes with packed copies in `Weights`, which Repack brings up to date after each step.
#ifndef SWIFTKV_DISTILL_STUDENT_H_
#define SWIFTKV_DISTILL_STUDENT_H_

#include <cstdint>
#include <vector>

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

  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  // Places in parameters(), -1 where the family has none. `layer` >= n; `group` counts KV groups from layer n.
  int64_t norm() const { return norm_; }
  struct LayerPlaces {
    int64_t q_weight = -1, q_bias = -1, q_norm = -1;
  };
  const LayerPlaces& layer(int64_t layer) const {
    return layers_[static_cast<size_t>(layer - config_.num_key_value_layers)];
  }
  struct GroupPlaces {
    int64_t k_weight = -1, k_bias = -1, k_norm = -1, v_weight = -1, v_bias = -1;
  };
  const GroupPlaces& group(int64_t group) const { return groups_[static_cast<size_t>(group)]; }

  // For dx = dy w: [hidden, q_size] of one layer; [hidden, 2 groups kv_size] of all KV groups.
  const kernels::PackedMatrix& q_transposed(int64_t layer) const {
    return q_transposed_[static_cast<size_t>(layer - config_.num_key_value_layers)];
  }
  const kernels::PackedMatrix& kv_transposed() const { return kv_transposed_; }

  // Puts the masters into the student's part of `weights`, and into the transposed copies.
  void Repack(Weights* weights);
  // The masters as tensors for a writer.
  MemoryTensors Tensors(DType dtype) const;

 private:
  explicit Student(const ModelConfig& config) : config_(config) {}
  Status ReadParameters(const TensorSource& start);
  std::vector<float> StackedKv(bool weight) const;

  ModelConfig config_;
  std::vector<Parameter> parameters_;
  int64_t norm_ = -1;
  std::vector<LayerPlaces> layers_;
  std::vector<GroupPlaces> groups_;
  std::vector<kernels::PackedMatrix> q_transposed_;
  kernels::PackedMatrix kv_transposed_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_STUDENT_H_
