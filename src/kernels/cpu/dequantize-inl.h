// Block-quantized weights (quantized_layout.h) as the bf16 panels that products read. Every element is rounded as when
// it is packed in bf16 at once, so the products are the same, to the last bit.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kUnitsAhead = 3;

// One unit into out [32 / 2, 64, 2].
template <int kBits>
void DequantizeUnit(const std::byte* unit, BFloat16* out) {
  using Layout = QuantizedUnit<kBits>;
  const auto* words = reinterpret_cast<const uint32_t*>(unit);
  const auto* scales = reinterpret_cast<const uint16_t*>(unit + Layout::kCodeBytes);
  for (int64_t column = 0; column < kPanelColumns; column += kLanes) {
    // The arithmetic is too long for the processor to look far enough ahead by itself.
    const std::byte* ahead = unit + kUnitsAhead * Layout::kBytes + column * Layout::kBytes / kPanelColumns;
    for (int64_t line = 0; line < Layout::kBytes * kLanes / kPanelColumns; line += 64) Prefetch(ahead + line);
    const Vec scale = LoadHalf(scales + column);
    const Vec minimum = kBits == 4 ? LoadHalf(scales + kPanelColumns + column) : Zero();
    SWIFTKV_UNROLL
    for (int64_t k = 0; k < kQuantizedBlock; k += Layout::kCodesPerWord) {
      const WordVec word = LoadWords(words + Layout::WordIndex(column, k));
      SWIFTKV_UNROLL
      for (int i = 0; i < Layout::kCodesPerWord; i += 2) {
        const Vec even = MulAdd(kBits == 4 ? Nibble(word, i) : Byte(word, i), scale, minimum);
        const Vec odd = MulAdd(kBits == 4 ? Nibble(word, i + 1) : Byte(word, i + 1), scale, minimum);
        StoreSteps(out + (k + i) * kPanelColumns + 2 * column, 0, even, odd);
      }
    }
  }
}

// Input features k to k + 31 of a section of a panel into out [32 / 2, 64, 2].
inline void DequantizeStep(const PackedMatrix& w, const PackedLayout& layout, int64_t section, int64_t panel, int64_t k,
                           BFloat16* out) {
  const int64_t units = (layout.Offset(section, panel) + k * kPanelColumns) / kUnitElements;
  const std::byte* unit = w.data.data() + units * UnitBytes(w.dtype);
  if (w.dtype == DType::kQ4_1) {
    DequantizeUnit<4>(unit, out);
  } else {
    DequantizeUnit<8>(unit, out);
  }
}

// One section of a panel into out [section / 2, 64, 2].
inline void DequantizePanel(const PackedMatrix& w, const PackedLayout& layout, int64_t section, int64_t panel,
                            BFloat16* out) {
  for (int64_t k = 0; k < layout.SectionSize(section); k += kQuantizedBlock) {
    DequantizeStep(w, layout, section, panel, k, out + k * kPanelColumns);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
