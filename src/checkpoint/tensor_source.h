// Named tensors in files: what safetensors and GGUF have in common. Knows no model.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto source, OpenSafetensors(folder));
//   const StoredTensor* norm = source->Find("model.norm.weight");   // null if absent
//   SWIFTKV_RETURN_IF_ERROR(DecodeRows(*norm, 0, 1, values));       // any stored type -> float32
//
// Sizes in files are hostile: everything in a StoredTensor has been checked against the file's size.
#ifndef SWIFTKV_CHECKPOINT_TENSOR_SOURCE_H_
#define SWIFTKV_CHECKPOINT_TENSOR_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/file.h"
#include "base/status.h"

namespace swiftkv {

struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape = {};       // row-major; a weight matrix is [out, in]
  std::span<const std::byte> data = {};  // inside `file`'s mapping
  std::shared_ptr<const MappedFile> file = {};
  // Of F8_E4M3, I8 and I4: the companion `<name>_scale` [1, 1], [rows, 1] or (I4) [rows, groups of columns]. Null:
  // scale 1.
  std::shared_ptr<const StoredTensor> scale = {};
  // > 0: rows are stored in llama.cpp's q/k order for that many heads (pairs interleaved); DecodeRows undoes it.
  int64_t permuted_heads = 0;

  // A vector counts as one row: rows() * columns() elements in all.
  int64_t rows() const;
  int64_t columns() const;
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // Sorted.
  virtual const std::vector<std::string>& names() const = 0;
  // Null if there is no such tensor. The pointer lives as long as the source.
  virtual const StoredTensor* Find(std::string_view name) const = 0;
  // The folder or file that messages name; empty: only in memory.
  virtual std::string origin() const { return {}; }
  // What messages call a tensor of it, or one that it should have: "folder: model.norm.weight".
  std::string Place(std::string_view name) const;
};

// `path`: a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json and its shards.
Result<std::unique_ptr<TensorSource>> OpenSafetensors(const std::string& path);

// Rows [row_begin, row_begin + row_count) as float32 [row_count, columns]. Exact for every stored type (block types by
// their own formula). Errors: kInvalidInput, the dtype is no weight type (I64, ...); kIo, the file was cut short
// meanwhile.
Status DecodeRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count, float* out);

// Rows in blocks of 32 elements: element i of a row is code[i] * scale[i / 32] + minimum[i / 32], rounded once.
struct BlockRows {
  std::vector<int8_t> codes;  // [rows, columns]
  std::vector<float> scales;  // [rows, columns / 32]; of kQ6_K [rows, columns / 16], element i has scale[i / 16]
  std::vector<float> minima;  // [rows, columns / 32]; empty where all are 0
};
// The type that DecodeBlockRows gives without loss; nullopt: the file has no blocks.
//   kQ4_1  codes 0 .. 15; float16 holds scales and minima: of Q4_0 and Q4_1
//   kQ8_0  codes -128 .. 127, no minima; float16 holds the scales: of Q8_0 and Q5_0
//   kQ4_K  codes 0 .. 15: of Q4_K
//   kQ5_K  codes 0 .. 31: of Q5_K and Q5_1
//   kQ6_K  codes -32 .. 31, no minima, two scales a block: of Q6_K
//   kQ8_K  codes -128 .. 127, no minima: of I8 with scales
// kQ4_K is also of I4 with scales whose groups are whole blocks.
std::optional<DType> BlockRowsType(const StoredTensor& tensor);
// Errors: as DecodeRows; kInvalidInput, a scale or minimum is NaN or infinite.
Status DecodeBlockRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count, BlockRows* out);
// The same from float32 [row_count, columns], columns a multiple of 32. kQ8_0: largest magnitude over 127; kQ4_1: from
// the least to the greatest in 15 steps (as llama.cpp's quantize_row_*_ref).
void QuantizeRows(const float* rows, int64_t row_count, int64_t columns, DType type, BlockRows* out);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_TENSOR_SOURCE_H_
