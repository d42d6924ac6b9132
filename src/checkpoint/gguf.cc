#include "checkpoint/gguf.h"

#include <array>
#include <cstring>
#include <utility>

#include "base/printable.h"
#include "checkpoint/gguf_parser.h"
#include "checkpoint/tensor_table.h"

namespace swiftkv {
namespace {

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class T>
T LoadAt(const GgufValue& value, uint64_t index) {
  T result;
  std::memcpy(&result, value.bytes.data() + index * sizeof(T), sizeof(T));
  return result;
}

std::optional<int64_t> IntAt(const GgufValue& value, uint64_t index) {
  switch (value.type) {
    case kGgufUint8:
      return LoadAt<uint8_t>(value, index);
    case kGgufInt8:
      return LoadAt<int8_t>(value, index);
    case kGgufUint16:
      return LoadAt<uint16_t>(value, index);
    case kGgufInt16:
      return LoadAt<int16_t>(value, index);
    case kGgufUint32:
      return LoadAt<uint32_t>(value, index);
    case kGgufInt32:
      return LoadAt<int32_t>(value, index);
    case kGgufInt64:
      return LoadAt<int64_t>(value, index);
    case kGgufUint64: {
      const auto number = LoadAt<uint64_t>(value, index);
      return number > INT64_MAX ? std::nullopt : std::optional(static_cast<int64_t>(number));
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> NumberAt(const GgufValue& value, uint64_t index) {
  if (value.type == kGgufFloat32) return LoadAt<float>(value, index);
  if (value.type == kGgufFloat64) return LoadAt<double>(value, index);
  const std::optional<int64_t> number = IntAt(value, index);
  return number.has_value() ? std::optional(static_cast<double>(*number)) : std::nullopt;
}

using Rename = std::pair<std::string_view, std::string_view>;
constexpr std::array<Rename, 4> kModelNames = {{
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
    {"output.bias", "lm_head.bias"},
}};
constexpr std::array<Rename, 11> kLayerNames = {{
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
}};

}  // namespace

std::string HfNameOfGgufTensor(std::string_view name) {
  for (const auto& [stored, hf] : kModelNames) {
    if (name == stored) return std::string(hf);
  }
  // blk.<layer>.<part>.<weight or bias>
  constexpr std::string_view kPrefix = "blk.";
  const size_t layer_end = name.find('.', kPrefix.size());
  const size_t part_end = name.rfind('.');
  if (!name.starts_with(kPrefix) || layer_end == std::string_view::npos || part_end <= layer_end) {
    return std::string(name);
  }
  const std::string_view layer = name.substr(kPrefix.size(), layer_end - kPrefix.size());
  const std::string_view part = name.substr(layer_end + 1, part_end - layer_end - 1);
  for (const auto& [stored, hf] : kLayerNames) {
    if (part == stored) return fmt::format("model.layers.{}.{}{}", layer, hf, name.substr(part_end));
  }
  return std::string(name);
}

Result<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  SWIFTKV_ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, MappedFile::Open(path));
  Result<GgufContent> content = ParseGguf(file->bytes(), path);
  SWIFTKV_RETURN_IF_ERROR(file->Check());
  if (!content) return tl::unexpected<Error>(std::move(content).error());
  for (StoredTensor& tensor : content->tensors) tensor.file = file;
  return FromContent(*std::move(content), path, std::move(file));
}

Result<std::unique_ptr<GgufFile>> GgufFile::Parse(std::span<const std::byte> bytes, const std::string& origin) {
  SWIFTKV_ASSIGN_OR_RETURN(GgufContent content, ParseGguf(bytes, origin));
  return FromContent(std::move(content), origin, nullptr);
}

Result<std::unique_ptr<GgufFile>> GgufFile::FromContent(GgufContent content, const std::string& path,
                                                        std::shared_ptr<const MappedFile> file) {
  std::unique_ptr<GgufFile> gguf(new GgufFile());
  gguf->path_ = path;
  gguf->file_ = std::move(file);
  gguf->values_ = std::move(content.values);
  SWIFTKV_RETURN_IF_ERROR(gguf->CheckWhole());
  SWIFTKV_ASSIGN_OR_RETURN(const std::string_view architecture, gguf->String("general.architecture"));
  gguf->architecture_ = architecture;
  for (StoredTensor& tensor : content.tensors) {
    SWIFTKV_RETURN_IF_ERROR(gguf->SetPermutedHeads(&tensor));
    tensor.name = HfNameOfGgufTensor(tensor.name);
  }
  SWIFTKV_ASSIGN_OR_RETURN(gguf->tensors_, TensorTable::Create(std::move(content.tensors), path));
  return gguf;
}

Status GgufFile::CheckWhole() const {
  if (!Contains("split.count")) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t parts, Int("split.count"));
  if (parts <= 1) return Ok();
  return InvalidInput(
      "{}: one of the {} parts of a split GGUF file, which is not supported; join them with llama-gguf-split --merge",
      path_, parts);
}

// llama.cpp rotates adjacent pairs of a llama's q and k, so its converter interleaves the two halves of each head.
Status GgufFile::SetPermutedHeads(StoredTensor* tensor) const {
  const bool q = tensor->name.find(".attn_q.") != std::string::npos;
  const bool k = tensor->name.find(".attn_k.") != std::string::npos;
  if (architecture_ != "llama" || (!q && !k)) return Ok();
  const char* key =
      k && Contains("llama.attention.head_count_kv") ? "llama.attention.head_count_kv" : "llama.attention.head_count";
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t heads, Int(key));
  const int64_t rows = tensor->shape.empty() ? 0 : tensor->shape[0];
  if (heads < 1 || heads > rows / 2 || rows % (2 * heads) != 0) {
    return InvalidInput("{}: {} has {} rows, which {} {} do not divide into pairs", path_, Printable(tensor->name),
                        rows, key, heads);
  }
  tensor->permuted_heads = heads;
  return Ok();
}

Result<const GgufValue*> GgufFile::FindValue(std::string_view key, bool is_array) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return NotFound("{}: the metadata lacks {}", path_, key);
  if (found->second.is_array != is_array) {
    return InvalidInput("{}: {} must be {}", path_, key, is_array ? "an array" : "a single value");
  }
  return &found->second;
}

Result<int64_t> GgufFile::Int(std::string_view key) const {
  SWIFTKV_ASSIGN_OR_RETURN(const GgufValue* value, FindValue(key, false));
  const std::optional<int64_t> number = IntAt(*value, 0);
  if (!number.has_value()) return InvalidInput("{}: {} must be a whole number below 2^63", path_, key);
  return *number;
}

Result<double> GgufFile::Number(std::string_view key) const {
  SWIFTKV_ASSIGN_OR_RETURN(const GgufValue* value, FindValue(key, false));
  const std::optional<double> number = NumberAt(*value, 0);
  if (!number.has_value()) return InvalidInput("{}: {} must be a number", path_, key);
  return *number;
}

Result<bool> GgufFile::Bool(std::string_view key) const {
  SWIFTKV_ASSIGN_OR_RETURN(const GgufValue* value, FindValue(key, false));
  if (value->type != kGgufBool) return InvalidInput("{}: {} must be true or false", path_, key);
  return LoadAt<uint8_t>(*value, 0) != 0;
}

Result<std::string_view> GgufFile::String(std::string_view key) const {
  SWIFTKV_ASSIGN_OR_RETURN(const GgufValue* value, FindValue(key, false));
  if (value->type != kGgufString) return InvalidInput("{}: {} must be a string", path_, key);
  return Text(value->bytes);
}

Result<std::vector<std::string_view>> GgufFile::Strings(std::string_view key) const {
  SWIFTKV_ASSIGN_OR_RETURN(const GgufValue* value, FindValue(key, true));
  if (value->type != kGgufString) return InvalidInput("{}: {} must be an array of strings", path_, key);
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  std::span<const std::byte> left = value->bytes;
  for (uint64_t i = 0; i < value->count; ++i) {
    uint64_t length = 0;
    // Checked when the file was opened, but it may have been written to since.
    if (left.size() < sizeof(length)) return InvalidInput("{}: {} changed while it was read", path_, key);
    std::memcpy(&length, left.data(), sizeof(length));
    if (length > left.size() - sizeof(length)) return InvalidInput("{}: {} changed while it was read", path_, key);
    strings.push_back(Text(left.subspan(sizeof(length), length)));
    left = left.subspan(sizeof(length) + length);
  }
  return strings;
}

Result<std::vector<int32_t>> GgufFile::Ints(std::string_view key) const {
  SWIFTKV_ASSIGN_OR_RETURN(const GgufValue* value, FindValue(key, true));
  std::vector<int32_t> numbers;
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int64_t> number = IntAt(*value, i);
    if (!number.has_value() || *number < INT32_MIN || *number > INT32_MAX) {
      return InvalidInput("{}: {} must be an array of 32-bit whole numbers", path_, key);
    }
    numbers.push_back(static_cast<int32_t>(*number));
  }
  return numbers;
}

Result<std::vector<float>> GgufFile::Floats(std::string_view key) const {
  SWIFTKV_ASSIGN_OR_RETURN(const GgufValue* value, FindValue(key, true));
  if (value->type != kGgufFloat32 && value->type != kGgufFloat64) {
    return InvalidInput("{}: {} must be an array of floats", path_, key);
  }
  std::vector<float> numbers;
  for (uint64_t i = 0; i < value->count; ++i) numbers.push_back(static_cast<float>(*NumberAt(*value, i)));
  return numbers;
}

}  // namespace swiftkv
