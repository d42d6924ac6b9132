// Random tensors in GGUF's block types, for tests of this room and of those above.
#ifndef SWIFTKV_CHECKPOINT_TEST_BLOCKS_H_
#define SWIFTKV_CHECKPOINT_TEST_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/dtype.h"
#include "base/float16.h"

namespace swiftkv {

// Random bytes, with scales (and minima) that are small numbers.
inline std::vector<std::byte> RandomBlocks(DType dtype, int64_t elements, uint32_t seed = 3) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(static_cast<size_t>(*BytesFor(dtype, elements)));
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  const bool has_minima =
      dtype == DType::kQ4_1 || dtype == DType::kQ5_1 || dtype == DType::kQ4_K || dtype == DType::kQ5_K;
  const size_t place = dtype == DType::kQ6_K ? 208 : 0;
  for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(BlockBytes(dtype))) {
    const uint16_t halves[2] = {FloatToHalf(0.0001f * static_cast<float>(random() % 100)),
                                FloatToHalf(-0.001f * static_cast<float>(random() % 100))};
    std::memcpy(&bytes[block + place], halves, has_minima ? 4 : 2);
  }
  return bytes;
}

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_TEST_BLOCKS_H_
