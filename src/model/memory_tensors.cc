#include "model/memory_tensors.h"

#include <algorithm>
#include <cstring>

#include "base/bfloat16.h"

namespace swiftkv {
namespace {

std::vector<std::byte> Round(std::span<const float> values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(BlockBytes(dtype)));
  if (dtype == DType::kF32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const BFloat16 rounded = ToBFloat16(values[i]);
    std::memcpy(bytes.data() + 2 * i, &rounded, sizeof(rounded));
  }
  return bytes;
}

}  // namespace

void MemoryTensors::Set(const std::string& name, const std::vector<int64_t>& shape, std::span<const float> values) {
  Entry& entry = entries_[name];
  entry.bytes = Round(values, dtype_);
  entry.tensor.name = name;
  entry.tensor.dtype = dtype_;
  entry.tensor.shape = shape;
  entry.tensor.data = entry.bytes;
  const auto place = std::lower_bound(names_.begin(), names_.end(), name);
  if (place == names_.end() || *place != name) names_.insert(place, name);
}

const StoredTensor* MemoryTensors::Find(std::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second.tensor;
}

}  // namespace swiftkv
