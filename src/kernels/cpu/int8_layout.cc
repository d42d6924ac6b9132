#include "kernels/cpu/int8_layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/quantize.h"

namespace swiftkv::kernels::cpu {
namespace {

// Where the code of an input feature of an output feature lies.
int64_t CodeIndex(const PackedLayout& layout, int64_t row, int64_t k) {
  constexpr int64_t kDepth = 4;
  const int64_t section = layout.SectionOf(k);
  const int64_t in_section = k - layout.SectionBegin(section);
  return layout.Offset(section, row / kPanelColumns) + in_section / kDepth * kDepth * kPanelColumns +
         row % kPanelColumns * kDepth + in_section % kDepth;
}

// Where the weight of exact feature `i` lies.
int64_t ExactIndex(int64_t row, int64_t i) {
  return row / kPanelColumns * kExactPanelElements + i / 2 * 2 * kPanelColumns + row % kPanelColumns * 2 + i % 2;
}

}  // namespace

Result<PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact_features) {
  PackedMatrix w{.n = n, .k = k, .dtype = DType::kI8, .exact_features = std::move(exact_features)};
  const PackedLayout layout(w);
  int64_t bytes = layout.Elements() + layout.PaddedColumns() * static_cast<int64_t>(sizeof(float) + sizeof(int32_t));
  if (!w.exact_features.empty()) {
    bytes += layout.panels() * kExactPanelElements * static_cast<int64_t>(sizeof(BFloat16));
  }
  SWIFTKV_ASSIGN_OR_RETURN(w.data, AlignedBuffer::Allocate(bytes, "packed weights"));
  return w;
}

void PackInt8Rows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  const PackedLayout layout(*w);
  const Int8Parts parts(w->data.data(), layout);
  std::vector<float> values(static_cast<size_t>(w->k));
  std::vector<int8_t> codes(values.size());
  for (int64_t row = row_begin; row < row_begin + row_count; ++row) {
    std::copy_n(rows + (row - row_begin) * w->k, w->k, values.begin());
    for (size_t i = 0; i < w->exact_features.size(); ++i) {
      float& value = values[static_cast<size_t>(w->exact_features[i])];
      parts.exact[ExactIndex(row, static_cast<int64_t>(i))] = ToBFloat16(std::exchange(value, 0.0f));
    }
    parts.scales[row] = QuantizeVector(values.data(), w->k, codes.data());
    for (int64_t k = 0; k < w->k; ++k) parts.codes[CodeIndex(layout, row, k)] = codes[static_cast<size_t>(k)];
    parts.excess[row] = 128 * std::accumulate(codes.begin(), codes.end(), int32_t{0});
  }
}

void UnpackInt8Row(const PackedMatrix& w, int64_t row, float* out) {
  const PackedLayout layout(w);
  const Int8Parts parts(w.data.data(), layout);
  for (int64_t k = 0; k < w.k; ++k) {
    out[k] = static_cast<float>(parts.codes[CodeIndex(layout, row, k)]) * parts.scales[row];
  }
  for (size_t i = 0; i < w.exact_features.size(); ++i) {
    out[w.exact_features[i]] = ToFloat(parts.exact[ExactIndex(row, static_cast<int64_t>(i))]);
  }
}

}  // namespace swiftkv::kernels::cpu
