// The layout of weights in int8: that of packed_layout.h with fours of adjacent input features, as VPDPBUSD and the AMX
// tiles want them: int8 [sections, panels, section_k / 4, 64, 4]. Behind them, without gaps:
//   scales   float32 [padded n]
//   excess   int32 [padded n]: 128 times the sum of an output feature's codes, which is what products of inputs that
//            were moved up by 128 have too much
//   exact    bf16 [panels, 32 / 2, 64, 2]: the weights of the exact features, if there are any
#ifndef SWIFTKV_KERNELS_CPU_INT8_LAYOUT_H_
#define SWIFTKV_KERNELS_CPU_INT8_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "base/bfloat16.h"
#include "kernels/cpu/packed_layout.h"
#include "kernels/ops.h"

namespace swiftkv::kernels::cpu {

inline constexpr int64_t kExactPanelElements = kMaxExactFeatures * kPanelColumns;

// The parts of a matrix.
template <class Byte>
struct Int8Parts {
  template <class T>
  using As = std::conditional_t<std::is_const_v<Byte>, const T, T>;

  Int8Parts(Byte* data, const PackedLayout& layout)
      : codes(reinterpret_cast<As<int8_t>*>(data)),
        scales(reinterpret_cast<As<float>*>(data + layout.Elements())),
        excess(reinterpret_cast<As<int32_t>*>(scales + layout.PaddedColumns())),
        exact(reinterpret_cast<As<BFloat16>*>(excess + layout.PaddedColumns())) {}

  As<int8_t>* codes;
  As<float>* scales;
  As<int32_t>* excess;
  As<BFloat16>* exact;
};

Result<PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact_features);
void PackInt8Rows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w);
// `from`: kQ8_K, one scale a row.
void RepackInt8Rows(const PackedMatrix& from, int64_t row_begin, int64_t row_count, PackedMatrix* w);
void UnpackInt8Row(const PackedMatrix& w, int64_t row, float* out);

}  // namespace swiftkv::kernels::cpu

#endif  // SWIFTKV_KERNELS_CPU_INT8_LAYOUT_H_
