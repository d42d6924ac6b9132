// GGUF files, versions 2 and 3: typed metadata and tensors, the latter under Hugging Face's names.
//
//   SWIFTKV_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> gguf, GgufFile::Open("model.gguf"));
//   const StoredTensor* q = gguf->Find("model.layers.0.self_attn.q_proj.weight");  // stored as blk.0.attn_q.weight
//   SWIFTKV_ASSIGN_OR_RETURN(int64_t layers, gguf->Int("llama.block_count"));
//   auto tokens = gguf->Strings("tokenizer.ggml.tokens");                          // views into the mapped file
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Little endian only.
#ifndef SWIFTKV_CHECKPOINT_GGUF_H_
#define SWIFTKV_CHECKPOINT_GGUF_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_source.h"

namespace swiftkv {

// A metadata value as it stands in the file, with its bounds checked.
struct GgufValue {
  uint32_t type = 0;  // of the value, or of an array's elements
  bool is_array = false;
  uint64_t count = 1;                // elements
  std::span<const std::byte> bytes;  // a scalar string without its length
};

struct GgufContent;

class GgufFile : public TensorSource {
 public:
  static Result<std::unique_ptr<GgufFile>> Open(const std::string& path);
  // From bytes that outlive the result.
  static Result<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> bytes, const std::string& origin);

  // Tensors. Names that have no Hugging Face counterpart (rope_freqs.weight, ...) are kept. Dimensions are in row-major
  // order. permuted_heads is set for q/k of architecture llama.
  const std::vector<std::string>& names() const override { return tensors_->names(); }
  const StoredTensor* Find(std::string_view name) const override { return tensors_->Find(name); }
  std::string origin() const override { return path_; }

  // Metadata. Errors: kNotFound (no such key), kInvalidInput (of another type, or out of range); both name the key.
  bool Contains(std::string_view key) const { return values_.contains(key); }
  Result<int64_t> Int(std::string_view key) const;    // any integer type
  Result<double> Number(std::string_view key) const;  // any integer or float type
  Result<bool> Bool(std::string_view key) const;
  Result<std::string_view> String(std::string_view key) const;
  Result<std::vector<std::string_view>> Strings(std::string_view key) const;
  Result<std::vector<int32_t>> Ints(std::string_view key) const;
  Result<std::vector<float>> Floats(std::string_view key) const;

  const std::string& architecture() const { return architecture_; }  // general.architecture
  const std::string& path() const { return path_; }

 private:
  GgufFile() = default;
  static Result<std::unique_ptr<GgufFile>> FromContent(GgufContent content, const std::string& path,
                                                       std::shared_ptr<const MappedFile> file);
  Status CheckWhole() const;
  Status SetPermutedHeads(StoredTensor* tensor) const;
  Result<const GgufValue*> FindValue(std::string_view key, bool is_array) const;

  std::string path_;
  std::string architecture_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::unique_ptr<TensorSource> tensors_;
  std::shared_ptr<const MappedFile> file_;
};

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; a name without counterpart stays.
std::string HfNameOfGgufTensor(std::string_view name);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_GGUF_H_
