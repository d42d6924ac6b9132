#include "checkpoint/tensor_table.h"

#include <algorithm>

#include "base/printable.h"

namespace swiftkv {

std::string TensorSource::Place(std::string_view name) const {
  const std::string from = origin();
  return from.empty() ? std::string(name) : fmt::format("{}: {}", from, name);
}

Result<std::unique_ptr<TensorTable>> TensorTable::Create(std::vector<StoredTensor> tensors, const std::string& origin) {
  auto table = std::make_unique<TensorTable>();
  table->origin_ = origin;
  table->tensors_ = std::move(tensors);
  std::sort(table->tensors_.begin(), table->tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  table->names_.reserve(table->tensors_.size());
  for (const StoredTensor& tensor : table->tensors_) {
    if (!table->names_.empty() && table->names_.back() == tensor.name) {
      return InvalidInput("{}: the tensor {} occurs twice", origin, Printable(tensor.name));
    }
    table->names_.push_back(tensor.name);
  }
  return table;
}

const StoredTensor* TensorTable::Find(std::string_view name) const {
  const auto found =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const StoredTensor& tensor, std::string_view key) { return tensor.name < key; });
  return found == tensors_.end() || found->name != name ? nullptr : &*found;
}

std::optional<int64_t> ElementsOf(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    // A zero must not hide an overflow: rows() and columns() multiply a part of the shape.
    empty = empty || size == 0;
    if (__builtin_mul_overflow(elements, size == 0 ? 1 : size, &elements)) return std::nullopt;
  }
  return empty ? 0 : elements;
}

std::optional<int64_t> BytesOf(DType dtype, const std::vector<int64_t>& shape) {
  const int64_t columns = shape.empty() ? 1 : shape.back();
  const std::optional<int64_t> elements = ElementsOf(shape);
  if (!elements.has_value() || columns % BlockElements(dtype) != 0) return std::nullopt;
  return BytesFor(dtype, *elements);
}

}  // namespace swiftkv
