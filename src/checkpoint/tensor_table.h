// A TensorSource over tensors whose places are known: what each file format's reader ends in.
#ifndef SWIFTKV_CHECKPOINT_TENSOR_TABLE_H_
#define SWIFTKV_CHECKPOINT_TENSOR_TABLE_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_source.h"

namespace swiftkv {

class TensorTable : public TensorSource {
 public:
  // Error kInvalidInput: two tensors of one name.
  static Result<std::unique_ptr<TensorTable>> Create(std::vector<StoredTensor> tensors, const std::string& origin);

  const std::vector<std::string>& names() const override { return names_; }
  const StoredTensor* Find(std::string_view name) const override;
  std::string origin() const override { return origin_; }

 private:
  std::string origin_;
  std::vector<StoredTensor> tensors_;  // sorted by name
  std::vector<std::string> names_;
};

// Elements of a shape, and the bytes that they take. nullopt: a negative dimension, an overflow, or rows that are no
// whole number of blocks.
std::optional<int64_t> ElementsOf(const std::vector<int64_t>& shape);
std::optional<int64_t> BytesOf(DType dtype, const std::vector<int64_t>& shape);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_TENSOR_TABLE_H_
