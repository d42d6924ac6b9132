// Draws of tokens on the device (draw.cu).
#ifndef SWIFTKV_KERNELS_CUDA_DRAW_H_
#define SWIFTKV_KERNELS_CUDA_DRAW_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/kernel_args.h"

namespace swiftkv::kernels::cuda {

// tokens[r] drawn from logits[r] as TokenDraw says. All pointers on the device.
struct DrawLaunch {
  const float* logits = nullptr;  // [rows, vocab]
  int64_t rows = 0;
  int64_t vocab = 0;
  const LogitStats* stats = nullptr;  // [rows]
  const TokenDraw* draws = nullptr;   // [rows]
  int32_t* tokens = nullptr;          // [rows]
};
void Draw(const DrawLaunch& args, cudaStream_t stream);

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_DRAW_H_
