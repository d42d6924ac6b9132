// The safetensors format, from bytes: https://github.com/huggingface/safetensors#format.
// (Files and folders: OpenSafetensors in tensor_source.h.)
#ifndef SWIFTKV_CHECKPOINT_SAFETENSORS_H_
#define SWIFTKV_CHECKPOINT_SAFETENSORS_H_

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_source.h"

namespace swiftkv {

// The limit of Hugging Face's own reader.
inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// The tensors of one file, in the order of their data; their data are parts of `bytes`, `file` is null. As strict as
// Hugging Face's reader: the tensors cover the data section without overlap or hole. Error kInvalidInput.
Result<std::vector<StoredTensor>> ParseSafetensors(std::span<const std::byte> bytes, const std::string& origin);

// model.safetensors.index.json: the shard of each tensor. The shards' names are as untrusted as the text.
Result<std::map<std::string, std::string>> ParseSafetensorsIndex(std::string_view text, const std::string& origin);

// All tensors of a checkpoint as a source; those of compressed-tensors get their scales (compressed_tensors.h).
Result<std::unique_ptr<TensorSource>> MakeSafetensorsSource(std::vector<StoredTensor> tensors,
                                                            const std::string& origin);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_SAFETENSORS_H_
