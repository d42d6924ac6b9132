// The two products that a linear layer y = x wᵀ needs backwards, on the forward's own Gemm:
//   dx = dy w    with the weights packed the other way round, once for frozen weights, after each step for trained
//   ones; dw = dyᵀ x   with x packed in the place of the weights.
#ifndef SWIFTKV_DISTILL_GRADIENT_PRODUCTS_H_
#define SWIFTKV_DISTILL_GRADIENT_PRODUCTS_H_

#include <cstdint>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "kernels/ops.h"

namespace swiftkv {

// wᵀ: [k, n] of w [n, k]. Error kResourceExhausted.
Result<kernels::PackedMatrix> TransposePacked(const kernels::Backend& backend, const kernels::PackedMatrix& w);

// Gradients of weights that share an input: SetInput once, then Add for each of them. All of it in the backend's
// memory.
class WeightGradient {
 public:
  explicit WeightGradient(const kernels::Backend& backend, DType dtype) : backend_(backend), dtype_(dtype) {}

  // x: [m, k], the activation type, rows adjacent. Error kResourceExhausted.
  Status SetInput(const void* x, int64_t m, int64_t k);
  // dw [n, k] += dyᵀ x; dy: [m, n], the activation type, rows adjacent. Error kResourceExhausted.
  Status Add(const void* dy, int64_t n, float* dw);

 private:
  const kernels::Backend& backend_;
  DType dtype_;
  kernels::PackedMatrix input_;  // [k, m]
  AlignedBuffer dy_transposed_;  // [n, m]
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_GRADIENT_PRODUCTS_H_
