#include "model/memory_tensors.h"

#include <algorithm>

#include "checkpoint/encode_values.h"

namespace swiftkv {
void MemoryTensors::Set(const std::string& name, const std::vector<int64_t>& shape, std::span<const float> values) {
  Entry& entry = entries_[name];
  entry.bytes = EncodeValues(values, dtype_);
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
