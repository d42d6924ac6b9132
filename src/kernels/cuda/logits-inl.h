// Rows of logits, each read by one block of kMaxThreads threads in batches. For .cu files alone.
#ifndef SWIFTKV_KERNELS_CUDA_LOGITS_INL_H_
#define SWIFTKV_KERNELS_CUDA_LOGITS_INL_H_

#include "kernels/cuda/device-inl.h"

namespace swiftkv::kernels::cuda {

inline constexpr int kVector = kChunkOf<float>;
inline constexpr int kVectors = 4;  // that a thread reads at once
inline constexpr int kBatch = kMaxThreads * kVectors * kVector;

// A thread's logits of kBatch neighbours, -infinity beyond the row's end. Indices rise with v and with e.
struct Batch {
  float values[kVectors][kVector];
};

__device__ inline int IndexInBatch(int v, int e) {
  return (v * kMaxThreads + static_cast<int>(threadIdx.x)) * kVector + e;
}

template <bool kAligned>
__device__ inline Batch LoadBatch(const float* row, int begin, int vocab) {
  Batch batch;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int e = 0; e < kVector; ++e) batch.values[v][e] = -INFINITY;
    const int i = begin + IndexInBatch(v, 0);
    if constexpr (kAligned) {
      if (i < vocab) {
        const float4 vector = *reinterpret_cast<const float4*>(row + i);
        batch.values[v][0] = vector.x;
        batch.values[v][1] = vector.y;
        batch.values[v][2] = vector.z;
        batch.values[v][3] = vector.w;
      }
    } else {
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        if (i + e < vocab) batch.values[v][e] = row[i + e];
      }
    }
  }
  return batch;
}

// NaN left out.
__device__ inline float MaxOf(const Batch& batch) {
  float max = -INFINITY;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int e = 0; e < kVector; ++e) max = fmaxf(max, batch.values[v][e]);
  }
  return max;
}

// Index in the batch of the first element that equals `value`, which there is.
__device__ inline int FirstOf(const Batch& batch, float value) {
  int index = 0;
#pragma unroll
  for (int v = kVectors - 1; v >= 0; --v) {
#pragma unroll
    for (int e = kVector - 1; e >= 0; --e) {
      if (batch.values[v][e] == value) index = IndexInBatch(v, e);
    }
  }
  return index;
}

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_LOGITS_INL_H_
