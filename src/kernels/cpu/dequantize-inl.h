// Block-quantized weights (quantized_layout.h) as the bf16 panels that products read. Every element is rounded as when
// it is packed in bf16 at once, so the products are the same, to the last bit.
namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE {

inline constexpr int64_t kUnitsAhead = 3;

inline Vec LoadScales(const uint16_t* halves) { return LoadHalf(halves); }
inline Vec LoadScales(const float* scales) { return Load(scales); }

// Calls use(k, even, odd) with the values of input features k and k + 1, in order, of the vector of output features
// from `column`.
template <class Unit, class Use>
[[gnu::always_inline]] inline void ForPairs(const std::byte* unit, int64_t column, const Use& use) {
  const auto* words = reinterpret_cast<const uint32_t*>(unit);
  const auto* scales = reinterpret_cast<const typename Unit::Scale*>(unit + Unit::kCodeBytes) + column;
  const auto code = [](WordVec word, int i) { return Unit::kBits == 4 ? Nibble(word, i) : Byte(word, i); };
  // The arithmetic is too long for the processor to look far enough ahead by itself.
  const std::byte* ahead = unit + kUnitsAhead * Unit::kBytes + column * Unit::kBytes / kPanelColumns;
  FetchLines<_MM_HINT_T0>(ahead, Unit::kBytes * kLanes / kPanelColumns);
  const Vec first_scale = LoadScales(scales);
  const Vec second_scale = Unit::kHasSecondScales ? LoadScales(scales + kPanelColumns) : first_scale;
  const Vec minimum = Unit::kHasMinima ? LoadScales(scales + kPanelColumns) : Zero();
  SWIFTKV_UNROLL
  for (int64_t k = 0; k < kQuantizedBlock; k += Unit::kCodesPerWord) {
    const WordVec word = LoadWords(words + Unit::WordIndex(column, k));
    const Vec scale = k < kQuantizedBlock / 2 ? first_scale : second_scale;
    SWIFTKV_UNROLL
    for (int i = 0; i < Unit::kCodesPerWord; i += 2) {
      use(k + i, MulAdd(code(word, i), scale, minimum), MulAdd(code(word, i + 1), scale, minimum));
    }
  }
}

// One unit into out [32 / 2, 64, 2].
template <class Unit>
void DequantizeUnit(const std::byte* unit, BFloat16* out) {
  for (int64_t column = 0; column < kPanelColumns; column += kLanes) {
    ForPairs<Unit>(unit, column, [&](int64_t k, Vec even, Vec odd) {
      StoreSteps(out + k * kPanelColumns + 2 * column, 0, even, odd);
    });
  }
}

// Calls visit(unit) with the unit of a block-quantized type. Not WithUnit, which is compiled for any processor.
template <class Visit>
void VisitUnit(DType dtype, const Visit& visit) {
  if (dtype == DType::kQ4_1) return visit(UnitQ4_1());
  if (dtype == DType::kQ4_K) return visit(UnitQ4_K());
  if (dtype == DType::kQ5_K) return visit(UnitQ5_K());
  if (dtype == DType::kQ6_K) return visit(UnitQ6_K());
  if (dtype == DType::kQ8_K) return visit(UnitQ8_K());
  visit(UnitQ8_0());
}

// Input features k to k + 31 of a section of a panel into out [32 / 2, 64, 2].
inline void DequantizeStep(const PackedMatrix& w, const PackedLayout& layout, int64_t section, int64_t panel, int64_t k,
                           BFloat16* out) {
  const int64_t units = (layout.Offset(section, panel) + k * kPanelColumns) / kUnitElements;
  const std::byte* unit = w.data.data() + units * UnitBytes(w.dtype);
  VisitUnit(w.dtype, [&](auto type) { DequantizeUnit<decltype(type)>(unit, out); });
}

// One section of a panel into out [section / 2, 64, 2].
inline void DequantizePanel(const PackedMatrix& w, const PackedLayout& layout, int64_t section, int64_t panel,
                            BFloat16* out) {
  for (int64_t k = 0; k < layout.SectionSize(section); k += kQuantizedBlock) {
    DequantizeStep(w, layout, section, panel, k, out + k * kPanelColumns);
  }
}

}  // namespace swiftkv::kernels::cpu::SWIFTKV_SIMD_NAMESPACE
