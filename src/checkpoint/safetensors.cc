#include "checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"
#include "checkpoint/tensor_table.h"

namespace swiftkv {
namespace {

constexpr size_t kMaxDimensions = 8;
constexpr size_t kMaxTensors = 1 << 18;
constexpr int64_t kLengthBytes = 8;

struct HeaderEntry {
  StoredTensor tensor;
  int64_t begin = 0;  // in the data section
  int64_t end = 0;
};

std::optional<DType> ParseDType(std::string_view name) {
  constexpr std::array kTypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3,
                                 DType::kI8,  DType::kU8,  DType::kI32,  DType::kI64};
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](DType dtype) { return Name(dtype) == name; });
  return found == kTypes.end() ? std::nullopt : std::optional(*found);
}

// Receives the header as it is parsed: {"name": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, ...} and
// "__metadata__", whose values are strings. Nothing else is accepted, so that a hostile header costs no memory.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<HeaderEntry> entries;
  std::string error;

  bool key(std::string& name) override {
    if (place_ == Place::kTop) entry_ = HeaderEntry{.tensor = {.name = name}};
    if (place_ == Place::kTop) seen_ = {};
    if (place_ != Place::kEntry) return true;
    field_ = static_cast<size_t>(std::find(kFields.begin(), kFields.end(), name) - kFields.begin());
    if (field_ == kFields.size()) return Refuse("has the unknown field " + Printable(name));
    if (std::exchange(seen_[field_], true)) return Refuse("has the field " + name + " twice");
    return true;
  }
  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) return Enter(Place::kTop);
    if (place_ == Place::kTop) return Enter(entry_.tensor.name == "__metadata__" ? Place::kMetadata : Place::kEntry);
    return Refuse("holds an object where none belongs");
  }
  bool end_object() override {
    if (place_ == Place::kTop) return Enter(Place::kStart);
    if (place_ == Place::kEntry) {
      if (!seen_[0] || !seen_[1] || !seen_[2]) return Refuse("lacks dtype, shape or data_offsets");
      if (offsets_ != 2) return Refuse("has data_offsets that are no pair");
      if (entries.size() == kMaxTensors) return Refuse("is one too many: the limit is 262144");
      entries.push_back(std::move(entry_));
    }
    return Enter(Place::kTop);
  }
  bool start_array(std::size_t) override {
    offsets_ = field_ == 2 ? 0 : offsets_;
    if (place_ == Place::kEntry && field_ == 1) return Enter(Place::kShape);
    if (place_ == Place::kEntry && field_ == 2) return Enter(Place::kOffsets);
    return Refuse("holds an array where none belongs");
  }
  bool end_array() override { return Enter(Place::kEntry); }
  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kEntry || field_ != 0) return Refuse("holds a string where none belongs");
    const std::optional<DType> dtype = ParseDType(value);
    if (!dtype.has_value()) return Refuse("has the unsupported dtype " + Printable(value));
    entry_.tensor.dtype = *dtype;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (value > INT64_MAX) return Refuse("has a size above 2^63");
    const auto number = static_cast<int64_t>(value);
    if (place_ == Place::kShape) {
      if (entry_.tensor.shape.size() == kMaxDimensions) return Refuse("has more than 8 dimensions");
      entry_.tensor.shape.push_back(number);
      return true;
    }
    if (place_ != Place::kOffsets) return Refuse("holds a number where none belongs");
    if (offsets_ == 2) return Refuse("has data_offsets that are no pair");
    (offsets_++ == 0 ? entry_.begin : entry_.end) = number;
    return true;
  }
  bool number_integer(int64_t) override { return Refuse("has a negative size"); }
  bool number_float(double, const std::string&) override { return Refuse("has a size that is no whole number"); }
  bool null() override { return Refuse("holds null"); }
  bool boolean(bool) override { return Refuse("holds a boolean"); }
  bool binary(nlohmann::json::binary_t&) override { return Refuse("holds binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error = fmt::format("the header is not valid JSON (byte {})", position);
    return false;
  }

 private:
  enum class Place { kStart, kTop, kEntry, kShape, kOffsets, kMetadata };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  bool Enter(Place place) {
    place_ = place;
    return true;
  }
  bool Refuse(const std::string& what) {
    error = place_ == Place::kStart || place_ == Place::kMetadata
                ? "the header " + what
                : "the header's entry " + Printable(entry_.tensor.name) + " " + what;
    return false;
  }

  Place place_ = Place::kStart;
  HeaderEntry entry_;
  size_t field_ = 0;  // of kFields
  int offsets_ = 0;
  std::array<bool, 3> seen_ = {};
};

// Every entry's bytes must be what its shape needs, and all of them together exactly the data section.
Status PlaceData(std::span<const std::byte> data, const std::string& origin, std::vector<HeaderEntry>* entries) {
  std::sort(entries->begin(), entries->end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t covered = 0;
  for (HeaderEntry& entry : *entries) {
    StoredTensor& tensor = entry.tensor;
    const std::optional<int64_t> bytes = BytesOf(tensor.dtype, tensor.shape);
    if (!bytes.has_value()) return InvalidInput("{}: {} has an impossible shape", origin, Printable(tensor.name));
    if (entry.begin != covered) {
      return InvalidInput("{}: {} begins at byte {} of the data, expected {}: tensors must not overlap or leave holes",
                          origin, Printable(tensor.name), entry.begin, covered);
    }
    if (entry.end < entry.begin || entry.end > std::ssize(data)) {
      return InvalidInput("{}: {} ends at byte {} of the data, the file has {}", origin, Printable(tensor.name),
                          entry.end, data.size());
    }
    if (*bytes != entry.end - entry.begin) {
      return InvalidInput("{}: {} has {} bytes, its shape needs {}", origin, Printable(tensor.name),
                          entry.end - entry.begin, *bytes);
    }
    tensor.data = data.subspan(entry.begin, *bytes);
    covered = entry.end;
  }
  if (covered != std::ssize(data)) {
    return InvalidInput("{}: {} bytes after the last tensor", origin, std::ssize(data) - covered);
  }
  return Ok();
}

}  // namespace

Result<std::vector<StoredTensor>> ParseSafetensors(std::span<const std::byte> bytes, const std::string& origin) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t header_bytes = 0;
  if (std::ssize(bytes) < kLengthBytes) return InvalidInput("{}: too short for a safetensors file", origin);
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxSafetensorsHeaderBytes) {
    return InvalidInput("{}: a header of {} bytes, the limit is {} (is this a safetensors file?)", origin, header_bytes,
                        kMaxSafetensorsHeaderBytes);
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    return InvalidInput("{}: the header has {} bytes, the file only {}", origin, header_bytes, bytes.size());
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + kLengthBytes;
  HeaderReader header;
  if (!nlohmann::json::sax_parse(text, text + header_bytes, &header))
    return InvalidInput("{}: {}", origin, header.error);
  SWIFTKV_RETURN_IF_ERROR(PlaceData(bytes.subspan(kLengthBytes + header_bytes), origin, &header.entries));
  std::vector<StoredTensor> tensors;
  tensors.reserve(header.entries.size());
  for (HeaderEntry& entry : header.entries) tensors.push_back(std::move(entry.tensor));
  return tensors;
}

}  // namespace swiftkv
