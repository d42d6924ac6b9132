// Random inputs for the kernels' tests.
#ifndef SWIFTKV_KERNELS_TEST_DATA_H_
#define SWIFTKV_KERNELS_TEST_DATA_H_

#include <cstdint>
#include <random>
#include <vector>

#include "base/bfloat16.h"

namespace swiftkv::kernels {

// Normal values times `scale`; every 97th is a hundred times larger, as activations have it.
inline std::vector<float> RandomFloats(int64_t size, unsigned seed, float scale = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) values[i] = normal(engine) * (i % 97 == 13 ? 100.0f : 1.0f);
  return values;
}

inline std::vector<BFloat16> ToBFloat16(const std::vector<float>& values) {
  std::vector<BFloat16> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = swiftkv::ToBFloat16(values[i]);
  return out;
}

}  // namespace swiftkv::kernels

#endif  // SWIFTKV_KERNELS_TEST_DATA_H_
