// The layout of block-quantized weights: that of packed_layout.h with 32 input features x 64 output features as the
// unit, which the products turn into bf16 just before they use it.
//
// A unit's codes are words of 8 codes of 4 bits or 4 of 8 bits, of adjacent input features of one output feature,
// lowest bits first: uint32 [4, words of a block, 16]. Behind them the scales [64] and, where there are any, the minima
// [64] or the scales of the second 16 input features [64], in float16 or float32.
#ifndef SWIFTKV_KERNELS_CPU_QUANTIZED_LAYOUT_H_
#define SWIFTKV_KERNELS_CPU_QUANTIZED_LAYOUT_H_

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/packed_layout.h"
#include "kernels/ops.h"

namespace swiftkv::kernels::cpu {

inline constexpr int64_t kUnitColumns = 16;  // output features whose words are adjacent
inline constexpr int64_t kUnitElements = kQuantizedBlock * kPanelColumns;

enum class BesideScales { kNothing, kMinima, kSecondScales };

// ScaleType: float, or uint16_t for float16.
template <int kCodeBits, class ScaleType, BesideScales kBeside>
struct BlockUnit {
  using Scale = ScaleType;
  static constexpr int kBits = kCodeBits;
  static constexpr bool kHasMinima = kBeside == BesideScales::kMinima;
  static constexpr bool kHasSecondScales = kBeside == BesideScales::kSecondScales;
  static constexpr int kCodesPerWord = 32 / kBits;
  static constexpr int64_t kWords = kQuantizedBlock / kCodesPerWord;  // of one output feature
  static constexpr int64_t kCodeBytes = kPanelColumns * kWords * 4;
  static constexpr int64_t kScaleBytes = kPanelColumns * static_cast<int64_t>(sizeof(Scale));
  static constexpr int64_t kBytes = kCodeBytes + (kBeside == BesideScales::kNothing ? 1 : 2) * kScaleBytes;
  // The word that holds code `k` of an output feature.
  static constexpr int64_t WordIndex(int64_t column, int64_t k) {
    return column % kUnitColumns + (column - column % kUnitColumns) * kWords + k / kCodesPerWord * kUnitColumns;
  }
};

using UnitQ4_1 = BlockUnit<4, uint16_t, BesideScales::kMinima>;
using UnitQ8_0 = BlockUnit<8, uint16_t, BesideScales::kNothing>;
using UnitQ4_K = BlockUnit<4, float, BesideScales::kMinima>;
using UnitQ5_K = BlockUnit<8, float, BesideScales::kMinima>;
using UnitQ6_K = BlockUnit<8, float, BesideScales::kSecondScales>;
using UnitQ8_K = BlockUnit<8, float, BesideScales::kNothing>;

// Calls visit(unit) with the unit of a block-quantized type.
template <class Visit>
auto WithUnit(DType dtype, const Visit& visit) {
  if (dtype == DType::kQ4_1) return visit(UnitQ4_1());
  if (dtype == DType::kQ4_K) return visit(UnitQ4_K());
  if (dtype == DType::kQ5_K) return visit(UnitQ5_K());
  if (dtype == DType::kQ6_K) return visit(UnitQ6_K());
  if (dtype == DType::kQ8_K) return visit(UnitQ8_K());
  return visit(UnitQ8_0());
}
inline int64_t UnitBytes(DType dtype) {
  return WithUnit(dtype, [](auto unit) { return decltype(unit)::kBytes; });
}

// The units that can be multiplied with int8 inputs.
template <int kBits>
using QuantizedUnit = std::conditional_t<kBits == 4, UnitQ4_1, UnitQ8_0>;

void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count, PackedMatrix* w);
// One row as bf16 values, widened.
void UnpackQuantizedRow(const PackedMatrix& w, int64_t row, float* out);
// A row's codes [k]; returns the scale of its first block. Of dtype kQ8_K.
float UnpackCodes(const PackedMatrix& w, int64_t row, int8_t* codes);

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_QUANTIZED_LAYOUT_H_
