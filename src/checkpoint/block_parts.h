// Parts of ggml's blocks that more than one decoder reads.
#ifndef SWIFTKV_CHECKPOINT_BLOCK_PARTS_H_
#define SWIFTKV_CHECKPOINT_BLOCK_PARTS_H_

#include <cstdint>
#include <cstring>

#include "base/float16.h"

namespace swiftkv {

template <class T>
T Load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

inline float LoadHalf(const uint8_t* from) { return HalfToFloat(Load<uint16_t>(from)); }

// Element i of a 5-bit block: four bits in the nibbles, the fifth is bit i of `high`.
inline void Unpack5(const uint8_t* nibbles, uint32_t high, int* q) {
  for (int i = 0; i < 16; ++i) q[i] = (nibbles[i] & 15) | static_cast<int>(high >> i & 1) << 4;
  for (int i = 0; i < 16; ++i) q[16 + i] = nibbles[i] >> 4 | static_cast<int>(high >> (16 + i) & 1) << 4;
}

// The eight 6-bit scales and minima of a Q4_K or Q5_K block, packed in 12 bytes: the first four of each in the low six
// bits of bytes 0-3 and 4-7, the last four in the nibbles of bytes 8-11 with their upper two bits in bytes 0-7.
struct KScales {
  float scale[8];
  float minimum[8];
};
inline KScales UnpackKScales(const uint8_t* in) {
  const float d = LoadHalf(in);
  const float dmin = LoadHalf(in + 2);
  const uint8_t* packed = in + 4;
  KScales result;
  for (int i = 0; i < 4; ++i) {
    const uint8_t scale = packed[i];
    const uint8_t minimum = packed[4 + i];
    const uint8_t last = packed[8 + i];
    result.scale[i] = d * static_cast<float>(scale & 63);
    result.minimum[i] = dmin * static_cast<float>(minimum & 63);
    result.scale[4 + i] = d * static_cast<float>((last & 15) | (scale >> 6) << 4);
    result.minimum[4 + i] = dmin * static_cast<float>(last >> 4 | (minimum >> 6) << 4);
  }
  return result;
}

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_BLOCK_PARTS_H_
