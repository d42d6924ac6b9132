#include "kernels/cpu/packed_layout.h"

#include "base/bfloat16.h"
#include "base/parallel.h"
#include "kernels/cpu/int8_layout.h"
#include "kernels/cpu/quantized_layout.h"
#include "kernels/cpu/scratch.h"

namespace swiftkv::kernels::cpu {
namespace {

float Widen(float value) { return value; }
float Widen(BFloat16 value) { return ToFloat(value); }
void Assign(float value, float* out) { *out = value; }
void Assign(float value, BFloat16* out) { *out = ToBFloat16(value); }

template <class T>
void Pack(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  const PackedLayout layout(*w);
  for (int64_t section = 0; section < layout.sections(); ++section) {
    const int64_t size = layout.SectionSize(section);
    for (int64_t r = 0; r < row_count; ++r) {
      T* out = w->data.as<T>() + RowOffset<T>(layout, section, row_begin + r);
      const float* in = rows + r * w->k + layout.SectionBegin(section);
      for (int64_t k = 0; k < size; ++k) Assign(in[k], out + FeatureOffset<T>(k));
    }
  }
}

template <class T>
void UnpackRow(const PackedMatrix& w, const PackedLayout& layout, int64_t row, float* out) {
  for (int64_t section = 0; section < layout.sections(); ++section) {
    const T* in = w.data.as<T>() + RowOffset<T>(layout, section, row);
    float* section_out = out + layout.SectionBegin(section);
    const int64_t size = layout.SectionSize(section);
    for (int64_t k = 0; k < size; ++k) section_out[k] = Widen(in[FeatureOffset<T>(k)]);
  }
}

}  // namespace

PackedLayout::PackedLayout(int64_t n, int64_t k, DType dtype)
    : k_(k),
      padded_k_(RoundUp(k, SectionMultiple(dtype))),
      panels_(RoundUp(n, kPanelColumns) / kPanelColumns),
      sections_(std::max<int64_t>(1, RoundUp(k, kMaxSectionK) / kMaxSectionK)),
      section_k_(RoundUp((k + sections_ - 1) / sections_, SectionMultiple(dtype))) {
  // Rounding a section up may leave nothing for the last one.
  if (section_k_ > 0) sections_ = std::max<int64_t>(1, RoundUp(k, section_k_) / section_k_);
}

Result<PackedMatrix> AllocatePacked(int64_t n, int64_t k, DType dtype) {
  PackedMatrix w{.n = n, .k = k, .dtype = dtype};
  const PackedLayout layout(n, k, dtype);
  int64_t bytes = layout.Elements() * BlockBytes(dtype);
  if (IsQuantized(dtype)) bytes = layout.Elements() / kUnitElements * UnitBytes(dtype);
  SWIFTKV_ASSIGN_OR_RETURN(w.data, AlignedBuffer::Allocate(bytes, "packed weights"));
  return w;
}

void PackRows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  if (w->dtype == DType::kBF16) {
    Pack<BFloat16>(rows, row_begin, row_count, w);
  } else if (w->dtype == DType::kI8) {
    PackInt8Rows(rows, row_begin, row_count, w);
  } else {
    Pack<float>(rows, row_begin, row_count, w);
  }
}

void UnpackRows(const PackedMatrix& w, const int32_t* ids, int64_t count, float* out) {
  const PackedLayout layout(w);
  ParallelFor(count, [&](int64_t r) {
    if (IsQuantized(w.dtype)) {
      UnpackQuantizedRow(w, ids[r], out + r * w.k);
    } else if (w.dtype == DType::kI8) {
      UnpackInt8Row(w, ids[r], out + r * w.k);
    } else if (w.dtype == DType::kBF16) {
      UnpackRow<BFloat16>(w, layout, ids[r], out + r * w.k);
    } else {
      UnpackRow<float>(w, layout, ids[r], out + r * w.k);
    }
  });
}

}  // namespace swiftkv::kernels::cpu
