// Weights as compressed-tensors lays them out (https://github.com/vllm-project/compressed-tensors), which vLLM and
// transformers read. Symmetric ones are known here:
//   float-quantized  W.weight F8_E4M3 [out, in], W.weight_scale of one value or [out] or [out, 1]
//   int-quantized    W.weight I8 [out, in], W.weight_scale the same
//   pack-quantized   W.weight_packed I32 [out, in / 8], W.weight_scale [out, groups], W.weight_shape I64 [2]
// with weight = code * scale.
//
//   for (const TensorToWrite& tensor : CompressedTensors(name, shape, CompressedFormat::kInt4, DType::kBF16)) ...
//   SWIFTKV_RETURN_IF_ERROR(WriteCompressed(weight, CompressedFormat::kInt4, DType::kBF16, &writer));
#ifndef SWIFTKV_CHECKPOINT_COMPRESSED_TENSORS_H_
#define SWIFTKV_CHECKPOINT_COMPRESSED_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/safetensors_writer.h"
#include "checkpoint/tensor_source.h"

namespace swiftkv {

enum class CompressedFormat {
  kFp8,   // float-quantized, a scale for each row
  kInt8,  // int-quantized, a scale for each row
  kInt4,  // pack-quantized, a scale for each 32 columns
};
inline constexpr int64_t kInt4Group = 32;

// Gives every quantized weight its scales, and makes of W.weight_packed the tensor W.weight of dtype kI4. Error
// kInvalidInput: a companion is missing, has another shape, or is one that symmetric weights do not have.
Status AttachScales(std::vector<StoredTensor>* tensors, const std::string& origin);

// What a weight is written as, in this order. Its columns must be a multiple of kInt4Group for kInt4. `scale_dtype`:
// kBF16 or kF32; kF16 reaches no further down than 6e-8, and scales are small.
std::vector<TensorToWrite> CompressedTensors(const std::string& name, const std::vector<int64_t>& shape,
                                             CompressedFormat format, DType scale_dtype);
// Appends those tensors of `weight`. Scales are rounded to `scale_dtype` before the codes are chosen. Errors: as
// DecodeRows and SafetensorsWriter; kInvalidInput, a value is NaN or infinite.
Status WriteCompressed(const StoredTensor& weight, CompressedFormat format, DType scale_dtype,
                       SafetensorsWriter* writer);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_COMPRESSED_TENSORS_H_
