// The layout of packed weights, one for every instruction set and every m.
//
// Output features are cut into panels of 64, input features into sections of at most 576, so that in a section one
// panel stays in the L2 cache while many rows pass over it, and 32 rows of inputs in the L1 cache while many panels do.
// float32: [sections, panels, section_k, 64]; bf16: [sections, panels, section_k / 2, 64, 2], pairs of input features
// adjacent as VDPBF16PS and the AMX tiles want them; int8 in fours (int8_layout.h). Features beyond n and k are zero.
#ifndef SWIFTKV_KERNELS_CPU_PACKED_LAYOUT_H_
#define SWIFTKV_KERNELS_CPU_PACKED_LAYOUT_H_

#include <algorithm>
#include <cstdint>

#include "kernels/ops.h"

namespace swiftkv::kernels::cpu {

inline constexpr int64_t kPanelColumns = 64;
inline constexpr int64_t kMaxSectionK = 576;

// K of one AMX tile, which sections are a multiple of.
inline int64_t SectionMultiple(DType dtype) { return dtype == DType::kI8 ? 64 : 32; }

class PackedLayout {
 public:
  PackedLayout(int64_t n, int64_t k, DType dtype);
  explicit PackedLayout(const PackedMatrix& w) : PackedLayout(w.n, w.k, w.dtype) {}

  int64_t panels() const { return panels_; }
  int64_t sections() const { return sections_; }
  int64_t SectionOf(int64_t k) const { return k / section_k_; }
  // First input feature of a section, and how many of the real k it holds.
  int64_t SectionBegin(int64_t section) const { return section * section_k_; }
  int64_t SectionSize(int64_t section) const { return std::min(section_k_, k_ - SectionBegin(section)); }
  // The same with padding.
  int64_t PaddedSectionSize(int64_t section) const { return std::min(section_k_, padded_k_ - SectionBegin(section)); }
  // Elements before a section of a panel.
  int64_t Offset(int64_t section, int64_t panel) const {
    return (SectionBegin(section) * panels_ + PaddedSectionSize(section) * panel) * kPanelColumns;
  }
  int64_t Elements() const { return panels_ * kPanelColumns * padded_k_; }
  int64_t PaddedColumns() const { return panels_ * kPanelColumns; }
  int64_t padded_k() const { return padded_k_; }

 private:
  int64_t k_;
  int64_t padded_k_;
  int64_t panels_;
  int64_t sections_;
  int64_t section_k_;
};

// Input features of one output feature that lie side by side: as many as fill four bytes.
template <class T>
inline constexpr int64_t kAdjacent = 4 / static_cast<int64_t>(sizeof(T));
// Where input feature `k` of a section lies behind the section's first of the same output feature, and where output
// feature `row` begins in its section.
template <class T>
constexpr int64_t FeatureOffset(int64_t k) {
  return k / kAdjacent<T> * kAdjacent<T> * kPanelColumns + k % kAdjacent<T>;
}
template <class T>
int64_t RowOffset(const PackedLayout& layout, int64_t section, int64_t row) {
  return layout.Offset(section, row / kPanelColumns) + row % kPanelColumns * kAdjacent<T>;
}

Result<PackedMatrix> AllocatePacked(int64_t n, int64_t k, DType dtype);
void PackRows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w);
void UnpackRows(const PackedMatrix& w, const int32_t* ids, int64_t count, float* out);

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_PACKED_LAYOUT_H_
