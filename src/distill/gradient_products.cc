#include "distill/gradient_products.h"

namespace swiftkv {

using kernels::PackedMatrix;

Result<PackedMatrix> TransposePacked(const kernels::Backend& backend, const PackedMatrix& w) {
  SWIFTKV_ASSIGN_OR_RETURN(PackedMatrix out, backend.AllocatePacked(w.k, w.n, w.dtype));
  SWIFTKV_RETURN_IF_ERROR(backend.TransposePacked(w, &out));
  out.data.UseHugePages();
  return out;
}

Status WeightGradient::SetInput(const void* x, int64_t m, int64_t k) {
  if (input_.n != k || input_.k != m) {
    SWIFTKV_ASSIGN_OR_RETURN(input_, backend_.AllocatePacked(k, m, dtype_));
  }
  backend_.PackTransposed(x, dtype_, m, k, &input_);
  return Ok();
}

Status WeightGradient::Add(const void* dy, int64_t n, float* dw) {
  const int64_t m = input_.k;
  const int64_t bytes = n * m * (dtype_ == DType::kBF16 ? 2 : 4);
  SWIFTKV_RETURN_IF_ERROR(dy_transposed_.Grow(bytes, "transposed gradients", backend_.memory()));
  backend_.backward().Transpose({.x = dy,
                                 .x_stride = n,
                                 .rows = m,
                                 .columns = n,
                                 .out = dy_transposed_.data(),
                                 .out_stride = m,
                                 .dtype = dtype_});
  backend_.Gemm({.x = dy_transposed_.data(),
                 .x_stride = m,
                 .m = n,
                 .w = &input_,
                 .y = dw,
                 .y_stride = input_.n,
                 .y_dtype = DType::kF32,
                 .accumulate = true});
  return Ok();
}

}  // namespace swiftkv
