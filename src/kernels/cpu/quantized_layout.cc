#include "kernels/cpu/quantized_layout.h"

#include "base/bfloat16.h"
#include "base/float16.h"

namespace swiftkv::kernels::cpu {
namespace {

// The unit that holds input features from `block` * 32 of an output feature.
std::byte* Unit(const PackedLayout& layout, PackedMatrix* w, int64_t row, int64_t block) {
  const int64_t section = layout.SectionOf(block * kQuantizedBlock);
  const int64_t in_section = block * kQuantizedBlock - layout.SectionBegin(section);
  const int64_t element = layout.Offset(section, row / kPanelColumns) + in_section * kPanelColumns;
  return w->data.data() + element / kUnitElements * UnitBytes(w->dtype);
}

template <int kBits>
void PackRow(const QuantizedRows& rows, int64_t r, int64_t row, PackedMatrix* w) {
  using Layout = QuantizedUnit<kBits>;
  constexpr uint32_t kMask = (uint64_t{1} << kBits) - 1;
  const PackedLayout layout(*w);
  const int64_t blocks = w->k / kQuantizedBlock;
  const int64_t column = row % kPanelColumns;
  for (int64_t block = 0; block < blocks; ++block) {
    std::byte* unit = Unit(layout, w, row, block);
    auto* words = reinterpret_cast<uint32_t*>(unit);
    auto* scales = reinterpret_cast<uint16_t*>(unit + Layout::kCodeBytes);
    const int8_t* codes = rows.codes + r * w->k + block * kQuantizedBlock;
    for (int64_t k = 0; k < kQuantizedBlock; ++k) {
      const uint32_t code = static_cast<uint32_t>(codes[k]) & kMask;
      words[Layout::WordIndex(column, k)] |= code << (k % Layout::kCodesPerWord * kBits);
    }
    scales[column] = rows.scales[r * blocks + block];
    if (kBits == 4) scales[kPanelColumns + column] = rows.minima[r * blocks + block];
  }
}

template <int kBits>
void UnpackRow(const PackedMatrix& w, int64_t row, float* out) {
  using Layout = QuantizedUnit<kBits>;
  const PackedLayout layout(w);
  const int64_t column = row % kPanelColumns;
  for (int64_t block = 0; block < w.k / kQuantizedBlock; ++block) {
    // Only read from here on.
    const std::byte* unit = Unit(layout, const_cast<PackedMatrix*>(&w), row, block);
    const auto* words = reinterpret_cast<const uint32_t*>(unit);
    const auto* scales = reinterpret_cast<const uint16_t*>(unit + Layout::kCodeBytes);
    const float scale = HalfToFloat(scales[column]);
    const float minimum = kBits == 4 ? HalfToFloat(scales[kPanelColumns + column]) : 0;
    for (int64_t k = 0; k < kQuantizedBlock; ++k) {
      const uint32_t word = words[Layout::WordIndex(column, k)] >> (k % Layout::kCodesPerWord * kBits);
      const int code = kBits == 4 ? static_cast<int>(word & 15) : static_cast<int8_t>(word & 255);
      out[block * kQuantizedBlock + k] = ToFloat(ToBFloat16(static_cast<float>(code) * scale + minimum));
    }
  }
}

}  // namespace

void PackQuantizedRows(const QuantizedRows& rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  for (int64_t r = 0; r < row_count; ++r) {
    if (w->dtype == DType::kQ4_1) {
      PackRow<4>(rows, r, row_begin + r, w);
    } else {
      PackRow<8>(rows, r, row_begin + r, w);
    }
  }
}

void UnpackQuantizedRow(const PackedMatrix& w, int64_t row, float* out) {
  if (w.dtype == DType::kQ4_1) {
    UnpackRow<4>(w, row, out);
  } else {
    UnpackRow<8>(w, row, out);
  }
}

}  // namespace swiftkv::kernels::cpu
