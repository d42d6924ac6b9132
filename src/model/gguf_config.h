// The config of a model in a GGUF file: its metadata as the config.json that the same model has at Hugging Face.
#ifndef SWIFTKV_MODEL_GGUF_CONFIG_H_
#define SWIFTKV_MODEL_GGUF_CONFIG_H_

#include <optional>
#include <span>

#include "checkpoint/gguf.h"
#include "model/config.h"

namespace swiftkv {

// Errors: an architecture other than llama, qwen2 and qwen3, experts, metadata that is missing or of a wrong type, and
// those of ParseHfConfig.
Result<ModelConfig> ParseGgufConfig(const GgufFile& gguf);

// A llama3 GGUF holds no rope parameters but their result: `factors` [head_dim / 2], by which each frequency is
// divided (rope_freqs.weight). Finds the parameters again; nullopt if no llama3 formula gives these factors.
std::optional<RopeConfig> FitLlama3Rope(std::span<const float> factors, double rope_theta);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_GGUF_CONFIG_H_
