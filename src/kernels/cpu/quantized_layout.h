// The layout of block-quantized weights: that of packed_layout.h with 32 input features x 64 output features as the
// unit, which the products turn into bf16 just before they use it.
//
// A unit's codes are words of 8 codes of 4 bits or 4 of 8 bits, of adjacent input features of one output feature,
// lowest bits first: uint32 [4, words of a block, 16]. Behind them the float16 scales [64] and, for 4 bits, the minima
// [64].
#ifndef SWIFTKV_KERNELS_CPU_QUANTIZED_LAYOUT_H_
#define SWIFTKV_KERNELS_CPU_QUANTIZED_LAYOUT_H_

#include <cstdint>

#include "kernels/cpu/packed_layout.h"
#include "kernels/ops.h"

namespace swiftkv::kernels::cpu {

inline constexpr int64_t kUnitColumns = 16;  // output features whose words are adjacent
inline constexpr int64_t kUnitElements = kQuantizedBlock * kPanelColumns;

template <int kBits>
struct QuantizedUnit {
  static constexpr int kCodesPerWord = 32 / kBits;
  static constexpr int64_t kWords = kQuantizedBlock / kCodesPerWord;  // of one output feature
  static constexpr int64_t kCodeBytes = kPanelColumns * kWords * 4;
  static constexpr int64_t kScaleBytes = kPanelColumns * 2;
  static constexpr int64_t kBytes = kCodeBytes + (kBits == 4 ? 2 : 1) * kScaleBytes;
  // The word that holds code `k` of an output feature.
  static constexpr int64_t WordIndex(int64_t column, int64_t k) {
    return column % kUnitColumns + (column - column % kUnitColumns) * kWords + k / kCodesPerWord * kUnitColumns;
  }
};

inline bool IsQuantized(DType dtype) { return dtype == DType::kQ4_1 || dtype == DType::kQ8_0; }
inline int64_t UnitBytes(DType dtype) {
  return dtype == DType::kQ4_1 ? QuantizedUnit<4>::kBytes : QuantizedUnit<8>::kBytes;
}

void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count, PackedMatrix* w);
// One row as bf16 values, widened.
void UnpackQuantizedRow(const PackedMatrix& w, int64_t row, float* out);

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_QUANTIZED_LAYOUT_H_
