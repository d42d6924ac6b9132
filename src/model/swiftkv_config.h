// config.json of a student, as the reference implementations read it (reference: model_type llama_swiftkv, ...).
#ifndef SWIFTKV_MODEL_SWIFTKV_CONFIG_H_
#define SWIFTKV_MODEL_SWIFTKV_CONFIG_H_

#include <nlohmann/json_fwd.hpp>

#include "base/dtype.h"
#include "base/status.h"
#include "checkpoint/compressed_tensors.h"
#include "model/config.h"

namespace swiftkv {

// The plain model's config.json in transformers' spelling, for a base that has none (GGUF).
nlohmann::ordered_json HfConfigJson(const ModelConfig& config);

// Turns a plain (or already converted) model's config.json into the student's: architecture, model_type, SwiftKV's
// fields and the stored type. Plain Mistral becomes llama_swiftkv, which computes the same.
// Error kInvalidInput: Mistral with a sliding window, for which there is no SwiftKV class.
Status SetSwiftKvFields(const ModelConfig& student, DType dtype, nlohmann::ordered_json* json);

// config.json's quantization_config of a checkpoint whose projections are all quantized in that format.
nlohmann::ordered_json QuantizationConfigJson(CompressedFormat format);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_SWIFTKV_CONFIG_H_
