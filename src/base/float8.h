// FP8 E4M3 (OCP's E4M3FN: four bits of exponent, three of mantissa, no infinities), by its bits.
#ifndef SWIFTKV_BASE_FLOAT8_H_
#define SWIFTKV_BASE_FLOAT8_H_

#include <bit>
#include <cstdint>

namespace swiftkv {

inline constexpr float kMaxE4M3 = 448;

inline float E4M3ToFloat(uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const int mantissa = bits & 7;
  float value = 0.0f;
  if (exponent == 15 && mantissa == 7) {
    value = std::bit_cast<float>(0x7fc00000u);
  } else if (exponent == 0) {
    value = static_cast<float>(mantissa) * 0x1p-9f;
  } else {
    value = std::bit_cast<float>(static_cast<uint32_t>(exponent + 120) << 23 | static_cast<uint32_t>(mantissa) << 20);
  }
  return bits & 0x80 ? -value : value;
}

// Rounds to nearest even; what is larger becomes kMaxE4M3, NaN stays NaN.
inline uint8_t FloatToE4M3(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 24 & 0x80u;
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
  if (magnitude != magnitude) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude >= kMaxE4M3) return static_cast<uint8_t>(sign | 0x7eu);
  if (magnitude < 0x1p-6f) {  // subnormal: adding 2^14 leaves a multiple of 2^-9 in the last bits
    const auto rounded = std::bit_cast<uint32_t>(magnitude + 0x1p14f) - std::bit_cast<uint32_t>(0x1p14f);
    return static_cast<uint8_t>(sign | rounded);
  }
  const auto normal = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = normal - (120u << 23) + 0x7ffffu + (normal >> 20 & 1);
  return static_cast<uint8_t>(sign | rounded >> 20);
}

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_FLOAT8_H_
