// IEEE binary16 ("half"), by its bits.
#ifndef SWIFTKV_BASE_FLOAT16_H_
#define SWIFTKV_BASE_FLOAT16_H_

#include <bit>
#include <cstdint>

namespace swiftkv {

// Masks instead of branches, so that compilers vectorise it without F16C.
inline float HalfToFloat(uint16_t half) {
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  const uint32_t is_subnormal = -static_cast<uint32_t>(exponent == 0);
  const uint32_t is_special = -static_cast<uint32_t>(exponent == 0x0f800000u);  // infinity, NaN
  const uint32_t normal = magnitude + (112u << 23) + (is_special & (112u << 23));
  const auto subnormal = std::bit_cast<uint32_t>(static_cast<float>(half & 0x3ff) * 0x1p-24f);
  const uint32_t bits = (subnormal & is_subnormal) | (normal & ~is_subnormal);
  return std::bit_cast<float>(bits | (half & 0x8000u) << 16);
}

// Rounds to nearest even; infinity beyond 65,519.
inline uint16_t FloatToHalf(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
  if (magnitude != magnitude) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x1p-14f) {  // subnormal: adding 0.5 leaves a multiple of 2^-24 in the last bits
    const auto rounded = std::bit_cast<uint32_t>(magnitude + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    return static_cast<uint16_t>(sign | rounded);
  }
  const auto normal = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = normal - (112u << 23) + 0xfffu + (normal >> 13 & 1);
  return static_cast<uint16_t>(sign | rounded >> 13);
}

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_FLOAT16_H_
