// Statistics of rows of logits, each read once by one block. A thread keeps the sum of e^(logit - its maximum so far).
#include <cfloat>
#include <climits>

#include "kernels/cuda/device-inl.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/logits-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

// Sum of e^(logit - max). The maximum begins at a finite value, so that -infinity less it is -infinity, not NaN.
struct ExpSum {
  float max = -FLT_MAX;
  float sum = 0;

  // Returns what sums over weights e^(logit - max) must be multiplied by.
  // The product is never fused with an addition, so that equal rows have equal sums whatever else is computed.
  __device__ float RaiseMax(float other) {
    const float raised = fmaxf(max, other);
    const float factor = FastExp(max - raised);
    max = raised;
    sum = __fmul_rn(sum, factor);
    return factor;
  }
};

template <bool kAligned>
__global__ void __launch_bounds__(kMaxThreads) LogitStatsKernel(const float* logits, int vocab, LogitStats* stats) {
  const float* const row = logits + static_cast<int64_t>(blockIdx.x) * vocab;
  ExpSum exps;
  int argmax = INT_MAX;
  for (int begin = 0; begin < vocab; begin += kBatch) {
    const Batch batch = LoadBatch<kAligned>(row, begin, vocab);
    const float max = MaxOf(batch);
    if (max > exps.max) {
      argmax = begin + FirstOf(batch, max);
      exps.RaiseMax(max);
    }
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int e = 0; e < kVector; ++e) exps.sum += FastExp(batch.values[v][e] - exps.max);
    }
  }
  const float max = BlockMax(exps.max, -FLT_MAX);
  argmax = BlockMin(exps.max == max ? argmax : INT_MAX, INT_MAX);
  exps.RaiseMax(max);
  const float sum = BlockSum(exps.sum);
  if (threadIdx.x != 0) return;
  const bool has_max = argmax != INT_MAX;  // not if all are NaN or -infinity
  stats[blockIdx.x] = {.argmax = has_max ? argmax : 0, .max = has_max ? max : row[0], .log_sum_exp = max + logf(sum)};
}

// With weights w = e^(p - max): sum of w (p - q) / sum of w is the mean of p - q, and the rest of the divergence is the
// difference of log-sum-exps. Both are differences, so that equal rows give 0 exactly.
template <bool kAligned>
__global__ void __launch_bounds__(kMaxThreads)
    KlDivergenceKernel(const float* p_logits, const float* q_logits, int vocab, float* kl) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * vocab;
  ExpSum p_exps;
  ExpSum q_exps;
  float differences = 0;
  for (int begin = 0; begin < vocab; begin += kBatch) {
    const Batch p = LoadBatch<kAligned>(p_logits + row, begin, vocab);
    const Batch q = LoadBatch<kAligned>(q_logits + row, begin, vocab);
    differences *= p_exps.RaiseMax(MaxOf(p));
    q_exps.RaiseMax(MaxOf(q));
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const float weight = FastExp(p.values[v][e] - p_exps.max);
        p_exps.sum += weight;
        // Where p is -infinity, the difference may be anything.
        if (weight > 0) differences += weight * (p.values[v][e] - q.values[v][e]);
        q_exps.sum += FastExp(q.values[v][e] - q_exps.max);
      }
    }
  }
  differences *= p_exps.RaiseMax(BlockMax(p_exps.max, -FLT_MAX));
  q_exps.RaiseMax(BlockMax(q_exps.max, -FLT_MAX));
  const float p_sum = BlockSum(p_exps.sum);
  const float q_sum = BlockSum(q_exps.sum);
  const float mean = BlockSum(differences) / p_sum;
  if (threadIdx.x == 0) kl[blockIdx.x] = mean + ((q_exps.max - p_exps.max) + logf(q_sum / p_sum));
}

}  // namespace

cudaError_t FindKernels() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, LogitStatsKernel<true>);
}

void ComputeLogitStats(const float* logits, int64_t rows, int64_t vocab, LogitStats* stats, cudaStream_t stream) {
  if (rows == 0) return;
  WithBool(IsAligned<kVector>(logits, vocab), [&](auto aligned) {
    LogitStatsKernel<decltype(aligned)::value>
        <<<static_cast<unsigned>(rows), kMaxThreads, 0, stream>>>(logits, static_cast<int>(vocab), stats);
  });
}

void KlDivergence(const float* p_logits, const float* q_logits, int64_t rows, int64_t vocab, float* kl,
                  cudaStream_t stream) {
  if (rows == 0) return;
  WithBool(IsAligned<kVector>(p_logits, vocab) && IsAligned<kVector>(q_logits, vocab), [&](auto aligned) {
    KlDivergenceKernel<decltype(aligned)::value>
        <<<static_cast<unsigned>(rows), kMaxThreads, 0, stream>>>(p_logits, q_logits, static_cast<int>(vocab), kl);
  });
}

}  // namespace swiftkv::kernels::cuda
