// The oracle of block-quantized weights. Packed: codes int8 [n, k], scales float32 [n, k / 32, ScalesOfBlock] and,
// where HasMinima, minima float32 [n, k / 32], each part at a multiple of 64 bytes.
#ifndef SWIFTKV_KERNELS_REF_REF_QUANTIZED_H_
#define SWIFTKV_KERNELS_REF_REF_QUANTIZED_H_

#include <cstdint>

#include "kernels/ops.h"

namespace swiftkv::kernels::ref {

Result<PackedMatrix> AllocateQuantized(int64_t n, int64_t k, DType dtype);
void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count, PackedMatrix* w);
int8_t QuantizedCode(const PackedMatrix& w, int64_t row, int64_t k);
float QuantizedScale(const PackedMatrix& w, int64_t row, int64_t k);
// As products in bf16 take it.
float QuantizedWeight(const PackedMatrix& w, int64_t row, int64_t k);
// With int8_inputs.
void GemmQuantized(const GemmArgs& args);

}  // namespace swiftkv::kernels::ref

#endif  // SWIFTKV_KERNELS_REF_REF_QUANTIZED_H_
