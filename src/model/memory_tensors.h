// Named tensors that live in memory, as a TensorSource: what the transform, calibration and distillation make, for
// LoadWeights (as an adapter) and for the writers. Values are rounded to the stored type when they are added, so that
// what is measured is what is written.
#ifndef SWIFTKV_MODEL_MEMORY_TENSORS_H_
#define SWIFTKV_MODEL_MEMORY_TENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_source.h"

namespace swiftkv {

class MemoryTensors : public TensorSource {
 public:
  // `dtype`: kF32, kF16 or kBF16.
  explicit MemoryTensors(DType dtype) : dtype_(dtype) {}
  // Move only: tensors point into their own bytes.
  MemoryTensors(MemoryTensors&&) = default;
  MemoryTensors& operator=(MemoryTensors&&) = default;

  DType dtype() const { return dtype_; }
  // Adds or replaces a tensor; values.size() must be the product of `shape`.
  void Set(const std::string& name, const std::vector<int64_t>& shape, std::span<const float> values);

  const std::vector<std::string>& names() const override { return names_; }
  const StoredTensor* Find(std::string_view name) const override;

 private:
  struct Entry {
    std::vector<std::byte> bytes;
    StoredTensor tensor;
  };
  DType dtype_;
  std::vector<std::string> names_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_MEMORY_TENSORS_H_
