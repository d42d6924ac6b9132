// Matrix products of the CUDA twin, by cuBLASLt: BF16, F32 (without TF32), and E4M3 with a scale for each row of inputs
// and for each output feature.
#ifndef SWIFTKV_KERNELS_CUDA_GEMM_H_
#define SWIFTKV_KERNELS_CUDA_GEMM_H_

#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>

#include "base/aligned_buffer.h"
#include "base/dtype.h"
#include "kernels/cuda/device.h"

namespace swiftkv::kernels::cuda {

// y = x wᵀ, or y += x wᵀ. All pointers on the device.
struct Product {
  const void* x = nullptr;          // [m, k] of the weights' type
  const float* x_scales = nullptr;  // [m], of E4M3
  int64_t x_stride = 0;
  int64_t m = 0;
  const void* w = nullptr;          // [n, k], w_dtype
  const float* w_scales = nullptr;  // [n], of E4M3
  DType w_dtype = DType::kBF16;     // kBF16, kF32 or kF8E4M3
  int64_t n = 0;
  int64_t k = 0;
  void* y = nullptr;  // [m, n], y_dtype
  int64_t y_stride = 0;
  DType y_dtype = DType::kF32;  // kF32 or kBF16
  bool accumulate = false;
};

class Gemm {
 public:
  explicit Gemm(Device* device) : device_(device) {}
  ~Gemm();
  Status Init();

  // What goes wrong is told to the device.
  void Run(const Product& product);

 private:
  // What cuBLASLt's choice of a kernel depends on.
  struct Shape {
    int64_t m, n, k, x_stride, y_stride;
    DType w_dtype, y_dtype;
    bool accumulate;
    int64_t x_alignment, y_alignment;
    auto operator<=>(const Shape&) const = default;
  };
  struct Plan;

  std::shared_ptr<Plan> Find(const Shape& shape);
  cublasStatus_t MakePlan(const Shape& shape, Plan* plan);

  Device* device_;
  cublasLtHandle_t handle_ = nullptr;
  AlignedBuffer workspace_;
  std::map<Shape, std::shared_ptr<Plan>> plans_;
};

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_GEMM_H_
