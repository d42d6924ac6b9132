#include "checkpoint/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/printable.h"
#include "checkpoint/tensor_table.h"

namespace swiftkv {
namespace {

constexpr uint64_t kMaxTensors = 1 << 18;
constexpr uint64_t kMaxKeyBytes = 65535;  // the format's own limit
constexpr uint64_t kMaxNameBytes = 256;   // the format says 64; be lenient
constexpr uint32_t kMaxDimensions = 4;
constexpr int64_t kMaxAlignment = 1 << 20;

// Reads forward through the file; every read checks what is left.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  Result<std::span<const std::byte>> Take(uint64_t count) {
    if (count > left()) {
      return InvalidInput("{}: the file ends within {} bytes at byte {}", origin_, count, position_);
    }
    const auto part = bytes_.subspan(position_, count);
    position_ += count;
    return part;
  }
  template <class T>
  Result<T> Read() {
    SWIFTKV_ASSIGN_OR_RETURN(const auto part, Take(sizeof(T)));
    T value;
    std::memcpy(&value, part.data(), sizeof(value));
    return value;
  }
  Result<std::span<const std::byte>> TakeString(uint64_t max_bytes) {
    SWIFTKV_ASSIGN_OR_RETURN(const auto length, Read<uint64_t>());
    if (length > max_bytes) {
      return InvalidInput("{}: a string of {} bytes at byte {}, the limit is {}", origin_, length, position_,
                          max_bytes);
    }
    return Take(length);
  }
  Result<std::string> ReadName(uint64_t max_bytes) {
    SWIFTKV_ASSIGN_OR_RETURN(const auto part, TakeString(max_bytes));
    if (part.empty()) return InvalidInput("{}: an empty name at byte {}", origin_, position_);
    return std::string(reinterpret_cast<const char*>(part.data()), part.size());
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& origin_;
  uint64_t position_ = 0;
};

// Bytes of a metadata type of fixed size; 0 for strings, arrays and types that do not exist.
uint64_t SizeOf(uint32_t type) {
  switch (type) {
    case kGgufUint8:
    case kGgufInt8:
    case kGgufBool:
      return 1;
    case kGgufUint16:
    case kGgufInt16:
      return 2;
    case kGgufUint32:
    case kGgufInt32:
    case kGgufFloat32:
      return 4;
    case kGgufUint64:
    case kGgufInt64:
    case kGgufFloat64:
      return 8;
    default:
      return 0;
  }
}

std::optional<DType> TensorType(uint32_t type) {
  switch (type) {  // ggml_type
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 24:
      return DType::kI8;
    case 26:
      return DType::kI32;
    case 27:
      return DType::kI64;
    case 30:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

Result<GgufValue> ReadArray(Cursor& cursor, const std::string& origin, const std::string& key) {
  GgufValue value;
  value.is_array = true;
  SWIFTKV_ASSIGN_OR_RETURN(value.type, cursor.Read<uint32_t>());
  SWIFTKV_ASSIGN_OR_RETURN(value.count, cursor.Read<uint64_t>());
  if (value.type == kGgufString) {
    Cursor strings = cursor;
    for (uint64_t i = 0; i < value.count; ++i) SWIFTKV_RETURN_IF_ERROR(strings.TakeString(UINT64_MAX));
    SWIFTKV_ASSIGN_OR_RETURN(value.bytes, cursor.Take(strings.position() - cursor.position()));
    return value;
  }
  const uint64_t size = SizeOf(value.type);
  if (size == 0) {
    return InvalidInput("{}: {} is an array of type {}, which is not supported", origin, Printable(key), value.type);
  }
  if (value.count > cursor.left() / size) {
    return InvalidInput("{}: {} has {} elements, more than the file can hold", origin, Printable(key), value.count);
  }
  SWIFTKV_ASSIGN_OR_RETURN(value.bytes, cursor.Take(value.count * size));
  return value;
}

Result<GgufValue> ReadValue(Cursor& cursor, const std::string& origin, const std::string& key) {
  GgufValue value;
  SWIFTKV_ASSIGN_OR_RETURN(value.type, cursor.Read<uint32_t>());
  if (value.type == kGgufArray) return ReadArray(cursor, origin, key);
  if (value.type == kGgufString) {
    SWIFTKV_ASSIGN_OR_RETURN(value.bytes, cursor.TakeString(UINT64_MAX));
    return value;
  }
  const uint64_t size = SizeOf(value.type);
  if (size == 0) {
    return InvalidInput("{}: {} has the type {}, which does not exist", origin, Printable(key), value.type);
  }
  SWIFTKV_ASSIGN_OR_RETURN(value.bytes, cursor.Take(size));
  return value;
}

struct TensorInfo {
  StoredTensor tensor;
  uint64_t offset = 0;  // in the data section
};

Result<TensorInfo> ReadTensorInfo(Cursor& cursor, const std::string& origin) {
  TensorInfo info;
  StoredTensor& tensor = info.tensor;
  SWIFTKV_ASSIGN_OR_RETURN(tensor.name, cursor.ReadName(kMaxNameBytes));
  SWIFTKV_ASSIGN_OR_RETURN(const auto dimensions, cursor.Read<uint32_t>());
  if (dimensions > kMaxDimensions) {
    return InvalidInput("{}: {} has {} dimensions, the limit is {}", origin, Printable(tensor.name), dimensions,
                        kMaxDimensions);
  }
  for (uint32_t i = 0; i < dimensions; ++i) {
    SWIFTKV_ASSIGN_OR_RETURN(const auto size, cursor.Read<int64_t>());
    tensor.shape.push_back(size);
  }
  // ggml counts the fastest dimension first.
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  SWIFTKV_ASSIGN_OR_RETURN(const auto type, cursor.Read<uint32_t>());
  const std::optional<DType> dtype = TensorType(type);
  if (!dtype.has_value()) {
    return InvalidInput(
        "{}: {} has the ggml type {}, which is not supported; supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, "
        "Q5_1, Q4_K, Q5_K and Q6_K",
        origin, Printable(tensor.name), type);
  }
  tensor.dtype = *dtype;
  SWIFTKV_ASSIGN_OR_RETURN(info.offset, cursor.Read<uint64_t>());
  return info;
}

// Gives each tensor its bytes in the data section.
Status PlaceData(std::span<const std::byte> data, uint64_t alignment, const std::string& origin,
                 std::vector<TensorInfo>* infos) {
  std::sort(infos->begin(), infos->end(), [](const TensorInfo& a, const TensorInfo& b) { return a.offset < b.offset; });
  uint64_t covered = 0;
  for (auto& [tensor, offset] : *infos) {
    const std::optional<int64_t> bytes = BytesOf(tensor.dtype, tensor.shape);
    if (!bytes.has_value()) return InvalidInput("{}: {} has an impossible shape", origin, Printable(tensor.name));
    if (offset % alignment != 0) {
      return InvalidInput("{}: {} begins at byte {}, which is not aligned to {}", origin, Printable(tensor.name),
                          offset, alignment);
    }
    if (offset > data.size() || static_cast<uint64_t>(*bytes) > data.size() - offset) {
      return InvalidInput("{}: {} needs {} bytes at byte {} of the data, the file has {}", origin,
                          Printable(tensor.name), *bytes, offset, data.size());
    }
    if (offset < covered) return InvalidInput("{}: {} overlaps another tensor", origin, Printable(tensor.name));
    tensor.data = data.subspan(offset, *bytes);
    covered = offset + static_cast<uint64_t>(*bytes);
  }
  return Ok();
}

struct Counts {
  uint64_t tensors = 0;
  uint64_t values = 0;
};

Result<Counts> ReadHead(Cursor& cursor, const std::string& origin) {
  SWIFTKV_ASSIGN_OR_RETURN(const auto magic, cursor.Take(4));
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) return InvalidInput("{}: not a GGUF file", origin);
  SWIFTKV_ASSIGN_OR_RETURN(const auto version, cursor.Read<uint32_t>());
  if (version != 2 && version != 3) {
    return InvalidInput("{}: GGUF version {} is not supported; supported are 2 and 3, little endian", origin, version);
  }
  Counts counts;
  SWIFTKV_ASSIGN_OR_RETURN(counts.tensors, cursor.Read<uint64_t>());
  SWIFTKV_ASSIGN_OR_RETURN(counts.values, cursor.Read<uint64_t>());
  // The shortest value takes 14 bytes, the shortest tensor 25.
  if (counts.values > cursor.left() / 14 || counts.tensors > cursor.left() / 25 || counts.tensors > kMaxTensors) {
    return InvalidInput("{}: {} metadata values and {} tensors are more than the file can hold", origin, counts.values,
                        counts.tensors);
  }
  return counts;
}

Result<uint64_t> Alignment(const GgufContent& content, const std::string& origin) {
  const auto found = content.values.find("general.alignment");
  if (found == content.values.end()) return 32;
  uint32_t alignment = 0;
  if (found->second.type == kGgufUint32 && !found->second.is_array) {
    std::memcpy(&alignment, found->second.bytes.data(), sizeof(alignment));
  }
  if (!std::has_single_bit(alignment) || alignment > kMaxAlignment) {
    return InvalidInput("{}: general.alignment must be a power of two up to {}", origin, kMaxAlignment);
  }
  return alignment;
}

}  // namespace

Result<GgufContent> ParseGguf(std::span<const std::byte> bytes, const std::string& origin) {
  static_assert(std::endian::native == std::endian::little);
  Cursor cursor(bytes, origin);
  SWIFTKV_ASSIGN_OR_RETURN(const Counts counts, ReadHead(cursor, origin));
  GgufContent content;
  for (uint64_t i = 0; i < counts.values; ++i) {
    SWIFTKV_ASSIGN_OR_RETURN(std::string key, cursor.ReadName(kMaxKeyBytes));
    SWIFTKV_ASSIGN_OR_RETURN(const GgufValue value, ReadValue(cursor, origin, key));
    if (!content.values.emplace(std::move(key), value).second) {
      return InvalidInput("{}: a metadata key occurs twice (before byte {})", origin, cursor.position());
    }
  }
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < counts.tensors; ++i) {
    SWIFTKV_ASSIGN_OR_RETURN(TensorInfo info, ReadTensorInfo(cursor, origin));
    infos.push_back(std::move(info));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment(content, origin));
  const uint64_t begin = std::min<uint64_t>((cursor.position() + alignment - 1) / alignment * alignment, bytes.size());
  SWIFTKV_RETURN_IF_ERROR(PlaceData(bytes.subspan(begin), alignment, origin, &infos));
  for (TensorInfo& info : infos) content.tensors.push_back(std::move(info.tensor));
  return content;
}

}  // namespace swiftkv
