// Element access for the reference kernels: one value at a time, whatever its type.
#ifndef SWIFTKV_KERNELS_REF_REF_MATH_H_
#define SWIFTKV_KERNELS_REF_REF_MATH_H_

#include <cstdint>

#include "base/bfloat16.h"
#include "base/dtype.h"

namespace swiftkv::kernels::ref {

inline float Load(const void* data, int64_t index, DType dtype) {
  if (dtype == DType::kBF16) return ToFloat(static_cast<const BFloat16*>(data)[index]);
  return static_cast<const float*>(data)[index];
}

inline void Store(void* data, int64_t index, DType dtype, float value) {
  if (dtype == DType::kBF16) {
    static_cast<BFloat16*>(data)[index] = ToBFloat16(value);
  } else {
    static_cast<float*>(data)[index] = value;
  }
}

inline int64_t ElementBytes(DType dtype) { return BlockBytes(dtype); }

}  // namespace swiftkv::kernels::ref

#endif  // SWIFTKV_KERNELS_REF_REF_MATH_H_
