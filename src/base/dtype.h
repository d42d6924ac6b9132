// Element types of tensors in files and in memory.
#ifndef SWIFTKV_BASE_DTYPE_H_
#define SWIFTKV_BASE_DTYPE_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace swiftkv {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF8E4M3,  // OCP E4M3FN: no infinities, S.1111.111 is NaN
  kI8,
  kU8,
  kI32,
  kI64,
  // GGUF's block types: a block of elements shares its scales (ggml-common.h names).
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kQ8_K,  // in memory alone: ggml's for intermediate results
  kI4,    // compressed-tensors': eight codes of four bits in an I32, lowest bits first, moved up by 8
};

// Elements that share one block: 1 for plain types, 32 or 256 for block types.
int64_t BlockElements(DType dtype);
// Bytes of one block.
int64_t BlockBytes(DType dtype);
// Bytes of `elements` elements; `elements` must be a multiple of BlockElements. nullopt on overflow.
std::optional<int64_t> BytesFor(DType dtype, int64_t elements);
// Scales that 32 elements of a block type have.
inline int64_t ScalesOfBlock(DType dtype) { return dtype == DType::kQ6_K ? 2 : 1; }
// "F32", "BF16", "Q4_K", ... as safetensors and GGUF spell them.
std::string_view Name(DType dtype);

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_DTYPE_H_
