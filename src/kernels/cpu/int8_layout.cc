#include "kernels/cpu/int8_layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/cpu/quantized_layout.h"
#include "kernels/quantize.h"

namespace swiftkv::kernels::cpu {
namespace {

// Where the weight of exact feature `i` lies.
int64_t ExactIndex(int64_t row, int64_t i) {
  return row / kPanelColumns * kExactPanelElements + row % kPanelColumns * kAdjacent<BFloat16> +
         FeatureOffset<BFloat16>(i);
}

// Calls visit(k, where its code lies) for all input features of an output feature.
template <class Visit>
void ForEachCode(const PackedLayout& layout, int64_t row, const Visit& visit) {
  for (int64_t section = 0; section < layout.sections(); ++section) {
    const int64_t base = RowOffset<int8_t>(layout, section, row);
    const int64_t begin = layout.SectionBegin(section);
    const int64_t size = layout.SectionSize(section);
    for (int64_t k = 0; k < size; ++k) visit(begin + k, base + FeatureOffset<int8_t>(k));
  }
}

void StoreRow(const PackedLayout& layout, const Int8Parts<std::byte>& parts, int64_t row,
              const std::vector<int8_t>& codes, float scale) {
  parts.scales[row] = scale;
  ForEachCode(layout, row, [&](int64_t k, int64_t i) { parts.codes[i] = codes[static_cast<size_t>(k)]; });
  parts.excess[row] = 128 * std::accumulate(codes.begin(), codes.end(), int32_t{0});
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
    const float scale = QuantizeVector(values.data(), w->k, codes.data());
    StoreRow(layout, parts, row, codes, scale);
  }
}

void RepackInt8Rows(const PackedMatrix& from, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  const PackedLayout layout(*w);
  const Int8Parts parts(w->data.data(), layout);
  std::vector<int8_t> codes(static_cast<size_t>(w->k));
  for (int64_t row = row_begin; row < row_begin + row_count; ++row) {
    const float scale = UnpackCodes(from, row, codes.data());
    for (size_t i = 0; i < w->exact_features.size(); ++i) {
      const int8_t code = std::exchange(codes[static_cast<size_t>(w->exact_features[i])], int8_t{0});
      parts.exact[ExactIndex(row, static_cast<int64_t>(i))] = ToBFloat16(static_cast<float>(code) * scale);
    }
    StoreRow(layout, parts, row, codes, scale);
  }
}

void UnpackInt8Row(const PackedMatrix& w, int64_t row, float* out) {
  const PackedLayout layout(w);
  const Int8Parts parts(w.data.data(), layout);
  const float scale = parts.scales[row];
  ForEachCode(layout, row, [&](int64_t k, int64_t i) { out[k] = static_cast<float>(parts.codes[i]) * scale; });
  for (size_t i = 0; i < w.exact_features.size(); ++i) {
    out[w.exact_features[i]] = ToFloat(parts.exact[ExactIndex(row, static_cast<int64_t>(i))]);
  }
}

}  // namespace swiftkv::kernels::cpu
