// Random numbers without state: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), the
// generator of PyTorch and cuRAND. A number follows from (seed, counter) alone, so a request draws the same tokens
// whatever else runs beside it.
#ifndef SWIFTKV_ENGINE_RANDOM_H_
#define SWIFTKV_ENGINE_RANDOM_H_

#include <array>
#include <cstdint>

namespace swiftkv {

inline std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

// 64 random bits: number `position` of stream `stream`.
inline uint64_t RandomBits(uint64_t seed, uint64_t position, uint32_t stream) {
  const auto bits = Philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), stream, 0},
                               {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return (uint64_t{bits[1]} << 32) | bits[0];
}

// Uniform in [0, 1), 53 bits.
inline double UniformDraw(uint64_t seed, uint64_t position, uint32_t stream) {
  return static_cast<double>(RandomBits(seed, position, stream) >> 11) * 0x1.0p-53;
}

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_RANDOM_H_
