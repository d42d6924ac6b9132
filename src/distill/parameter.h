// A trainable tensor: its float32 master values and AdamW's moments. The trainer computes with copies of `value` in the
// activation type.
#ifndef SWIFTKV_DISTILL_PARAMETER_H_
#define SWIFTKV_DISTILL_PARAMETER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace swiftkv {

// On the host, as checkpoints have it.
struct Parameter {
  std::string name;  // Hugging Face's: "model.layers.15.self_attn.q_proj_swiftkv.weight"
  std::vector<int64_t> shape;
  std::vector<float> value;
  std::vector<float> first_moment;   // the same size, zero before the first step
  std::vector<float> second_moment;  // the same size, zero before the first step
};

// One for each Parameter, of its size.
using Gradients = std::vector<std::vector<float>>;

// Where kernels read and write it: each pointer [size] in the backend's memory.
struct ResidentParameter {
  std::string name;
  std::vector<int64_t> shape;
  int64_t size = 0;
  float* value = nullptr;
  float* gradient = nullptr;
  float* first_moment = nullptr;
  float* second_moment = nullptr;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_PARAMETER_H_
