#include "kernels/cpu/quantized_layout.h"

#include <cmath>
#include <cstring>

#include "base/bfloat16.h"
#include "base/float16.h"

namespace swiftkv::kernels::cpu {
namespace {

// The unit that holds input features from `block` * 32 of an output feature.
template <class Matrix>
auto* UnitOf(const PackedLayout& layout, Matrix* w, int64_t row, int64_t block) {
  const int64_t section = layout.SectionOf(block * kQuantizedBlock);
  const int64_t in_section = block * kQuantizedBlock - layout.SectionBegin(section);
  const int64_t element = layout.Offset(section, row / kPanelColumns) + in_section * kPanelColumns;
  return w->data.data() + element / kUnitElements * UnitBytes(w->dtype);
}

float Widen(float value) { return value; }
float Widen(uint16_t half) { return HalfToFloat(half); }
void Assign(float value, float* out) { *out = value; }
void Assign(float value, uint16_t* out) { *out = FloatToHalf(value); }

template <class Unit>
void PackRow(const QuantizedRows& rows, int64_t r, int64_t row, PackedMatrix* w) {
  constexpr uint32_t kMask = (uint64_t{1} << Unit::kBits) - 1;
  constexpr int64_t kScales = Unit::kHasSecondScales ? 2 : 1;
  const PackedLayout layout(*w);
  const int64_t blocks = w->k / kQuantizedBlock;
  const int64_t column = row % kPanelColumns;
  for (int64_t block = 0; block < blocks; ++block) {
    std::byte* unit = UnitOf(layout, w, row, block);
    auto* words = reinterpret_cast<uint32_t*>(unit);
    auto* scales = reinterpret_cast<typename Unit::Scale*>(unit + Unit::kCodeBytes) + column;
    const int8_t* codes = rows.codes + r * w->k + block * kQuantizedBlock;
    for (int64_t k = 0; k < kQuantizedBlock; ++k) {
      const uint32_t code = static_cast<uint32_t>(codes[k]) & kMask;
      words[Unit::WordIndex(column, k)] |= code << (k % Unit::kCodesPerWord * Unit::kBits);
    }
    const int64_t at = r * blocks + block;
    for (int64_t i = 0; i < kScales; ++i) Assign(rows.scales[at * kScales + i], scales + i * kPanelColumns);
    if (Unit::kHasMinima) Assign(rows.minima[at], scales + kPanelColumns);
  }
}

template <class Unit>
void UnpackRow(const PackedMatrix& w, int64_t row, float* out) {
  const PackedLayout layout(w);
  const int64_t column = row % kPanelColumns;
  for (int64_t block = 0; block < w.k / kQuantizedBlock; ++block) {
    const std::byte* unit = UnitOf(layout, &w, row, block);
    const auto* words = reinterpret_cast<const uint32_t*>(unit);
    const auto* scales = reinterpret_cast<const typename Unit::Scale*>(unit + Unit::kCodeBytes) + column;
    const float minimum = Unit::kHasMinima ? Widen(scales[kPanelColumns]) : 0;
    for (int64_t k = 0; k < kQuantizedBlock; ++k) {
      const float scale = Widen(scales[Unit::kHasSecondScales && k >= kQuantizedBlock / 2 ? kPanelColumns : 0]);
      const uint32_t word = words[Unit::WordIndex(column, k)] >> (k % Unit::kCodesPerWord * Unit::kBits);
      const int code = Unit::kBits == 4 ? static_cast<int>(word & 15) : static_cast<int8_t>(word & 255);
      out[block * kQuantizedBlock + k] = ToFloat(ToBFloat16(std::fma(static_cast<float>(code), scale, minimum)));
    }
  }
}

}  // namespace

void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  WithUnit(w->dtype, [&](auto unit) {
    for (int64_t r = 0; r < row_count; ++r) PackRow<decltype(unit)>(rows, r, row_begin + r, w);
  });
}

void UnpackQuantizedRow(const PackedMatrix& w, int64_t row, float* out) {
  WithUnit(w.dtype, [&](auto unit) { UnpackRow<decltype(unit)>(w, row, out); });
}

float UnpackCodes(const PackedMatrix& w, int64_t row, int8_t* codes) {
  const PackedLayout layout(w);
  const int64_t column = row % kPanelColumns;
  for (int64_t block = 0; block < w.k / kQuantizedBlock; ++block) {
    const std::byte* unit = UnitOf(layout, &w, row, block);
    for (int64_t k = 0; k < kQuantizedBlock; k += UnitQ8_K::kCodesPerWord) {
      std::memcpy(codes + block * kQuantizedBlock + k, unit + UnitQ8_K::WordIndex(column, k) * 4, 4);
    }
  }
  return reinterpret_cast<const float*>(UnitOf(layout, &w, row, 0) + UnitQ8_K::kCodeBytes)[column];
}

}  // namespace swiftkv::kernels::cpu

namespace swiftkv::kernels {

int64_t QuantizedBlockBytes(DType dtype) { return cpu::UnitBytes(dtype) / cpu::kPanelColumns; }

}  // namespace swiftkv::kernels
