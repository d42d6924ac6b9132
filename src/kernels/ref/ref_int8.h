// The oracle of products with int8 weights (PackedMatrix of dtype kI8). Packed: codes int8 [n, k], scales float32 [n],
// weights of the exact features bf16 [n, kMaxExactFeatures], each part at a multiple of 64 bytes.
#ifndef SWIFTKV_KERNELS_REF_REF_INT8_H_
#define SWIFTKV_KERNELS_REF_REF_INT8_H_

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace swiftkv::kernels::ref {

Result<PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact_features);
void PackInt8Rows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w);
void RepackInt8Rows(const PackedMatrix& from, int64_t row_begin, int64_t row_count, PackedMatrix* w);
void UnpackInt8Row(const PackedMatrix& w, int64_t row, float* out);
void GemmInt8(const GemmArgs& args);

}  // namespace swiftkv::kernels::ref

#endif  // SWIFTKV_KERNELS_REF_REF_INT8_H_
