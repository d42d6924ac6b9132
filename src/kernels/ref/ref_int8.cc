#include "kernels/ref/ref_int8.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/quantize.h"
#include "kernels/ref/ref_math.h"
#include "kernels/ref/ref_quantized.h"

namespace swiftkv::kernels::ref {
namespace {

int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class Byte>
struct Parts {
  Parts(Byte* data, const PackedMatrix& w)
      : codes(data), scales(codes + Aligned(w.n * w.k)), exact(scales + Aligned(w.n * 4)) {}
  Byte* codes;
  Byte* scales;
  Byte* exact;
};

// Takes the exact features out of a vector, and quantizes what is left; returns the scale.
float Quantize(const PackedMatrix& w, std::vector<float>* values, std::vector<float>* exact,
               std::vector<int8_t>* codes) {
  exact->clear();
  for (const int32_t feature : w.exact_features) {
    exact->push_back(ToFloat(ToBFloat16(std::exchange((*values)[static_cast<size_t>(feature)], 0.0f))));
  }
  codes->resize(values->size());
  return QuantizeVector(values->data(), static_cast<int64_t>(values->size()), codes->data());
}

}  // namespace

Result<PackedMatrix> AllocateInt8(int64_t n, int64_t k, std::vector<int32_t> exact_features) {
  PackedMatrix w{.n = n, .k = k, .dtype = DType::kI8, .exact_features = std::move(exact_features)};
  const int64_t bytes = Aligned(n * k) + Aligned(n * 4) + n * kMaxExactFeatures * 2;
  SWIFTKV_ASSIGN_OR_RETURN(w.data, AlignedBuffer::Allocate(bytes, "packed weights"));
  return w;
}

void PackInt8Rows(const float* rows, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  const Parts parts(w->data.data(), *w);
  std::vector<float> exact;
  std::vector<int8_t> codes;
  for (int64_t r = 0; r < row_count; ++r) {
    const int64_t row = row_begin + r;
    std::vector<float> values(rows + r * w->k, rows + (r + 1) * w->k);
    Store(parts.scales, row, DType::kF32, Quantize(*w, &values, &exact, &codes));
    std::copy_n(reinterpret_cast<const std::byte*>(codes.data()), w->k, parts.codes + row * w->k);
    for (size_t i = 0; i < exact.size(); ++i) {
      Store(parts.exact, row * kMaxExactFeatures + static_cast<int64_t>(i), DType::kBF16, exact[i]);
    }
  }
}

void RepackInt8Rows(const PackedMatrix& from, int64_t row_begin, int64_t row_count, PackedMatrix* w) {
  const Parts parts(w->data.data(), *w);
  for (int64_t row = row_begin; row < row_begin + row_count; ++row) {
    const float scale = QuantizedScale(from, row, 0);
    Store(parts.scales, row, DType::kF32, scale);
    for (int64_t k = 0; k < w->k; ++k)
      parts.codes[row * w->k + k] = static_cast<std::byte>(QuantizedCode(from, row, k));
    for (size_t i = 0; i < w->exact_features.size(); ++i) {
      const int64_t k = w->exact_features[i];
      const float value = static_cast<float>(QuantizedCode(from, row, k)) * scale;
      Store(parts.exact, row * kMaxExactFeatures + static_cast<int64_t>(i), DType::kBF16, value);
      parts.codes[row * w->k + k] = std::byte{0};
    }
  }
}

void UnpackInt8Row(const PackedMatrix& w, int64_t row, float* out) {
  const Parts parts(w.data.data(), w);
  const float scale = Load(parts.scales, row, DType::kF32);
  for (int64_t k = 0; k < w.k; ++k)
    out[k] = static_cast<float>(static_cast<int8_t>(parts.codes[row * w.k + k])) * scale;
  for (size_t i = 0; i < w.exact_features.size(); ++i) {
    out[w.exact_features[i]] = Load(parts.exact, row * kMaxExactFeatures + static_cast<int64_t>(i), DType::kBF16);
  }
}

void GemmInt8(const GemmArgs& args) {
  const PackedMatrix& w = *args.w;
  const Parts parts(w.data.data(), w);
  std::vector<float> exact;
  std::vector<int8_t> codes;
  for (int64_t r = 0; r < args.m; ++r) {
    std::vector<float> x(static_cast<size_t>(w.k));
    for (int64_t k = 0; k < w.k; ++k) x[static_cast<size_t>(k)] = Load(args.x, r * args.x_stride + k, DType::kBF16);
    const float row_scale = Quantize(w, &x, &exact, &codes);
    for (int64_t j = 0; j < w.n; ++j) {
      int64_t sum = 0;
      for (int64_t k = 0; k < w.k; ++k) {
        sum += static_cast<int64_t>(codes[static_cast<size_t>(k)]) * static_cast<int8_t>(parts.codes[j * w.k + k]);
      }
      double exact_sum = 0;
      for (size_t i = 0; i < exact.size(); ++i) {
        const int64_t place = j * kMaxExactFeatures + static_cast<int64_t>(i);
        exact_sum += static_cast<double>(exact[i]) * Load(parts.exact, place, DType::kBF16);
      }
      const float scaled = static_cast<float>(sum) * Load(parts.scales, j, DType::kF32);
      float value = std::fma(scaled, row_scale, static_cast<float>(exact_sum));
      if (args.bias != nullptr) value += args.bias[j];
      const int64_t y = r * args.y_stride + j;
      if (args.accumulate) value += Load(args.y, y, args.y_dtype);
      Store(args.y, y, args.y_dtype, value);
    }
  }
}

}  // namespace swiftkv::kernels::ref
