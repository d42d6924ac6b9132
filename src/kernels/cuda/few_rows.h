// Products of the CUDA twin for a few rows (few_rows.cu).
#ifndef SWIFTKV_KERNELS_CUDA_FEW_ROWS_H_
#define SWIFTKV_KERNELS_CUDA_FEW_ROWS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "base/dtype.h"

namespace swiftkv::kernels::cuda {

inline constexpr int64_t kMostFewRows = 8;

// y = x wᵀ or y += x wᵀ. Inputs are bf16 with weights of E4M3, too: nothing is gained from rounding so few of them.
struct FewRowsLaunch {
  const void* x = nullptr;  // [m, k] bf16
  int64_t x_stride = 0;
  int64_t m = 0;                    // 1 .. kMostFewRows
  const void* w = nullptr;          // [n, k]
  const float* w_scales = nullptr;  // [n], of kF8E4M3
  DType w_dtype = DType::kBF16;     // kBF16 or kF8E4M3
  int64_t n = 0;
  int64_t k = 0;
  void* y = nullptr;  // [m, n]
  int64_t y_stride = 0;
  DType y_dtype = DType::kF32;  // kF32 or kBF16
  bool accumulate = false;      // of kF32
};
// False: not for that many rows, that type or that alignment, and nothing was launched.
bool FewRows(const FewRowsLaunch& args, cudaStream_t stream);

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_FEW_ROWS_H_
