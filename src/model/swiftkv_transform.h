// The rewiring of a plain model to SwiftKV: which tensors a student has beside its base (the official layout), and how
// they start. Calibration (model/calibration.h) replaces the start by a fit.
//
//   SWIFTKV_ASSIGN_OR_RETURN(ModelConfig student, StudentConfig(base_config, 15, 1));
//   SWIFTKV_ASSIGN_OR_RETURN(MemoryTensors tensors, InitStudent(student, *base, Init::kReference, DType::kBF16));
//   LoadWeights(student, *base, &tensors, {.student = true});
#ifndef SWIFTKV_MODEL_SWIFTKV_TRANSFORM_H_
#define SWIFTKV_MODEL_SWIFTKV_TRANSFORM_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "checkpoint/tensor_source.h"
#include "model/config.h"
#include "model/memory_tensors.h"

namespace swiftkv {

enum class Init {
  // ArcticTraining's: norm_swiftkv from layer n's input_layernorm, q copied, k and v the mean over the group's layers.
  kReference,
  // The same, but each k/v is first moved from its own layer's norm to norm_swiftkv: W diag(gamma_j / gamma_n).
  kScaled,
};

// `base` with n and g set. Error kInvalidInput: n outside 1 .. L, or g does not divide L - n.
Result<ModelConfig> StudentConfig(const ModelConfig& base, int64_t num_key_value_layers, int64_t key_value_group_size);

// A tensor that a SwiftKV checkpoint holds beside its base's, and the teacher's tensor that it stands in for.
struct SwiftKvTensor {
  std::string name;     // "model.layers.7.self_attn.k_proj_swiftkv.weight"
  std::string teacher;  // "model.layers.7.self_attn.k_proj.weight"; of norm_swiftkv: input_layernorm of layer n
  std::vector<int64_t> shape;
  int64_t layer = 0;
  bool shared = false;  // k or v of a group: the teacher has one in each layer of the group
};
// All of them in module order; none for a plain model.
std::vector<SwiftKvTensor> SwiftKvTensors(const ModelConfig& student);
inline constexpr std::string_view kNormSwiftKvName = "model.norm_swiftkv.weight";
// "model.layers.7.self_attn." + part, e.g. "k_proj_swiftkv.weight".
std::string AttentionTensorName(int64_t layer, std::string_view part);

struct BaseTensor {
  std::string name;
  std::vector<int64_t> shape;
};
// The tensors of the plain model, in module order.
std::vector<BaseTensor> BaseTensors(const ModelConfig& config);

// Those of the plain model and SwiftKV's, in the order of the reference implementations' modules, in which transformers
// writes them: SwiftKV's projections end their layer's attention, and norm_swiftkv follows the last norm.
std::vector<BaseTensor> CheckpointTensors(const ModelConfig& student);

// A whole tensor of `source` as float32. Errors: absent, or not of this shape.
Result<std::vector<float>> ReadTensor(const TensorSource& source, const std::string& name,
                                      const std::vector<int64_t>& shape);

// The input_layernorm of layer n, with entries too small to divide by moved away from zero: norm_swiftkv of kScaled and
// of the fit.
std::vector<float> GuardedNorm(std::vector<float> norm);

// All student tensors at their start, rounded to `dtype`. Reads the teacher's q/k/v from `base`.
Result<MemoryTensors> InitStudent(const ModelConfig& student, const TensorSource& base, Init init, DType dtype);

// All student tensors as an adapter or a checkpoint has them, rounded to `dtype`. Errors: ReadTensor's.
Result<MemoryTensors> ReadStudent(const ModelConfig& student, const TensorSource& source, DType dtype);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_SWIFTKV_TRANSFORM_H_
