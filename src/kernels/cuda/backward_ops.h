// The CUDA twin of kernels/backward_ops.h. Not for recordings: the documents of Attention come from the host.
#ifndef SWIFTKV_KERNELS_CUDA_BACKWARD_OPS_H_
#define SWIFTKV_KERNELS_CUDA_BACKWARD_OPS_H_

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"
#include "kernels/backward_ops.h"
#include "kernels/cuda/device.h"

namespace swiftkv::kernels::cuda {

// Operations run in order on the device's stream, and are called by one thread at a time.
class CudaBackwardOps final : public BackwardOps {
 public:
  // `device` outlives it.
  explicit CudaBackwardOps(Device* device) : device_(device) {}

  void RmsNorm(const RmsNormBackwardArgs& args) const override;
  void Rope(const RopeBackwardArgs& args) const override;
  void SiluMul(const SiluMulBackwardArgs& args) const override;
  void Attention(const AttentionBackwardArgs& args) const override;
  void KlLoss(const KlLossArgs& args) const override;
  void Round(const RoundArgs& args) const override;
  void Transpose(const TransposeArgs& args) const override;
  void AddColumnSums(const ColumnSumsArgs& args) const override;
  void ScatterRows(const ScatterRowsArgs& args) const override;
  void HiddenLoss(const HiddenLossArgs& args) const override;
  void SumOfSquares(const SumOfSquaresArgs& args) const override;
  void AdamW(const AdamWArgs& args) const override;

 private:
  // At least that much memory for the operation that follows; null where there is none, which the device then tells.
  std::byte* Workspace(int64_t bytes) const;

  Device* device_;
  mutable AlignedBuffer workspace_;
};

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_BACKWARD_OPS_H_
