// A tiny model for tests of this room and of those above: its config, and its random tensors in memory under Hugging
// Face's names. RandomWeights(TinyConfig(), seed, options) gives weights where no tensors are needed.
#ifndef SWIFTKV_MODEL_TINY_MODEL_H_
#define SWIFTKV_MODEL_TINY_MODEL_H_

#include <cstdint>
#include <random>
#include <vector>

#include "model/memory_tensors.h"
#include "model/sequence_batch.h"
#include "model/swiftkv_transform.h"

namespace swiftkv {

inline ModelConfig TinyConfig(Family family = Family::kLlama, int64_t layers = 6) {
  ModelConfig config;
  config.family = family;
  config.vocab_size = 96;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = layers;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.max_position_embeddings = 256;
  config.tie_word_embeddings = true;
  config.qkv_bias = family == Family::kQwen2;
  config.qk_norm = family == Family::kQwen3;
  config.sliding_window.assign(static_cast<size_t>(layers), 0);
  config.num_key_value_layers = layers;
  config.dtype = DType::kF32;
  return config;
}

inline MemoryTensors TinyTensors(const ModelConfig& config, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  MemoryTensors tensors(DType::kF32);
  for (const BaseTensor& tensor : BaseTensors(config)) {
    int64_t count = 1;
    for (const int64_t size : tensor.shape) count *= size;
    const bool norm = tensor.name.find("norm.weight") != std::string::npos;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = norm ? 1.0f + 0.3f * normal(random) : 0.15f * normal(random);
    tensors.Set(tensor.name, tensor.shape, values);
  }
  return tensors;
}

inline std::vector<TokenSequence> TinySequences(const ModelConfig& config, int count, int tokens, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenSequence> sequences(static_cast<size_t>(count));
  for (TokenSequence& sequence : sequences) {
    for (int t = 0; t < tokens; ++t) {
      sequence.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(config.vocab_size)));
    }
  }
  return sequences;
}

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_TINY_MODEL_H_
