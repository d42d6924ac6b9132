// Symmetric 8-bit quantization of one vector: value i is about scale * out[i].
#ifndef SWIFTKV_KERNELS_QUANTIZE_H_
#define SWIFTKV_KERNELS_QUANTIZE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace swiftkv::kernels {

// Below this, vectors are zeros: 127 over their largest magnitude might be infinite.
inline constexpr float kLeastMagnitude = 0x1p-100f;

// Returns the scale: the largest magnitude over 127. Where a value is NaN or infinite, zeros and a scale that makes all
// of the vector NaN.
inline float QuantizeVector(const float* values, int64_t size, int8_t* out) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < size; ++i) {
    largest = std::max(largest, std::fabs(values[i]));
    finite &= std::isfinite(values[i]);
  }
  if (!finite || largest < kLeastMagnitude) {
    std::fill_n(out, size, int8_t{0});
    return finite ? 0.0f : NAN;
  }
  const float scale = largest / 127;
  const float inverse = 127 / largest;
  for (int64_t i = 0; i < size; ++i) {
    const float rounded = std::nearbyint(std::clamp(values[i] * inverse, -127.0f, 127.0f));
    out[i] = static_cast<int8_t>(rounded);
  }
  return scale;
}

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_QUANTIZE_H_
