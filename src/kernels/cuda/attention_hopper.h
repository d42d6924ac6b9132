// Prefill attention with Hopper's instructions for whole warpgroups (wgmma).
#ifndef SWIFTKV_KERNELS_CUDA_ATTENTION_HOPPER_H_
#define SWIFTKV_KERNELS_CUDA_ATTENTION_HOPPER_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {

// Attention like PrefillAttention, where it can: on a device of compute capability 9.0, for a bf16 cache and head_dim
// 64 or 128, unless it has been switched off. False: nothing was launched.
bool HopperPrefillAttention(const AttentionLaunch& args, cudaStream_t stream);

// Switches it off (true) or on again. At first it is off if the environment has SWIFTKV_CUDA_ATTENTION=mma.
void ForceMmaAttention(bool force);

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_ATTENTION_HOPPER_H_
