// Attention in plain float32 for every head dimension and cache type that the tensor core kernels don't take.
#ifndef SWIFTKV_KERNELS_CUDA_ATTENTION_PLAIN_H_
#define SWIFTKV_KERNELS_CUDA_ATTENTION_PLAIN_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {

// Of sequences of at most `max_rows` rows. The workspace isn't used.
void PlainAttention(const AttentionLaunch& args, int64_t max_rows, cudaStream_t stream);

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_ATTENTION_PLAIN_H_
