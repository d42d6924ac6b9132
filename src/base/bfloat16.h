// bfloat16: the upper half of an IEEE float32. Conversions round to nearest even, NaN stays NaN.
#ifndef SWIFTKV_BASE_BFLOAT16_H_
#define SWIFTKV_BASE_BFLOAT16_H_

#include <bit>
#include <cstdint>

namespace swiftkv {

struct BFloat16 {
  uint16_t bits = 0;
};

inline float ToFloat(BFloat16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

inline BFloat16 ToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_BFLOAT16_H_
