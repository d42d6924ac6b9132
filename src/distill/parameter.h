// A trainable tensor: its float32 master values and AdamW's moments. The trainer computes with copies of `value` in the
// activation type.
#ifndef SWIFTKV_DISTILL_PARAMETER_H_
#define SWIFTKV_DISTILL_PARAMETER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace swiftkv {

struct Parameter {
  std::string name;  // Hugging Face's: "model.layers.15.self_attn.q_proj_swiftkv.weight"
  std::vector<int64_t> shape;
  std::vector<float> value;
  std::vector<float> first_moment;   // the same size, zero before the first step
  std::vector<float> second_moment;  // the same size, zero before the first step
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_PARAMETER_H_
