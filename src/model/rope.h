// Rotary embedding tables, as transformers' ROPE_INIT_FUNCTIONS make them (default, linear, llama3, yarn), computed in
// double and stored as float32.
#ifndef SWIFTKV_MODEL_ROPE_H_
#define SWIFTKV_MODEL_ROPE_H_

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "model/config.h"

namespace swiftkv {

// [head_dim / 2] radians per position.
std::vector<double> RopeInverseFrequencies(const ModelConfig& config);
// What cosines and sines are multiplied with; 1 except for yarn.
double RopeAttentionFactor(const RopeConfig& rope);

// Cosines and sines of the positions asked for so far.
class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config);

  // Makes positions [0, positions) available, at most max_position_embeddings. Moves the tables.
  // Error kResourceExhausted: no memory.
  Status Grow(int64_t positions);

  int64_t positions() const { return positions_; }
  const float* cos() const { return cos_.data(); }  // [positions, head_dim / 2]
  const float* sin() const { return sin_.data(); }  // [positions, head_dim / 2]

 private:
  std::vector<double> inverse_frequencies_;
  double attention_factor_;
  int64_t max_positions_;
  int64_t positions_ = 0;
  std::vector<float> cos_;
  std::vector<float> sin_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_ROPE_H_
