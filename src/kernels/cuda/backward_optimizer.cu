// What the optimizer does to each element of a parameter: as fast as memory.
#include "kernels/cuda/backward.h"
#include "kernels/cuda/device-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChunk = kChunkOf<float>;
constexpr int kSumBlocks = 1024;  // of SumOfSquares: a constant, so that sums don't depend on the device

__device__ double BlockSumOfDoubles(double value) {
  return BlockReduce(value, 0.0, [](double a, double b) { return a + b; });
}

// partials[block]
template <bool kAligned>
__global__ void __launch_bounds__(kThreads) SquaresKernel(const float* x, int64_t size, double* partials) {
  constexpr int64_t kStep = int64_t{kSumBlocks} * kThreads * kChunk;
  double sum = 0;
#pragma unroll 4
  for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kChunk; i < size; i += kStep) {
    const Floats<kChunk> values = LoadFloats<kAligned, kChunk>(x + i, 0, static_cast<int>(min(size - i, kStep)));
#pragma unroll
    for (int e = 0; e < kChunk; ++e) sum += static_cast<double>(values[e]) * static_cast<double>(values[e]);
  }
  sum = BlockSumOfDoubles(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kSumBlocks) AddPartialsKernel(const double* partials, double* sum) {
  const double total = BlockSumOfDoubles(partials[threadIdx.x]);
  if (threadIdx.x == 0) *sum += total;
}

// Operations are rounded one by one, never fused, so that a CPU's twin gives the same.
__device__ __forceinline__ float Moment(float beta, float moment, float addend) {
  return __fadd_rn(__fmul_rn(beta, moment), addend);
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads) AdamWKernel(const AdamWArgs args) {
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kChunk;
  if (begin >= args.size) return;
  const int count = static_cast<int>(min(args.size - begin, int64_t{kChunk}));
  const auto load = [&](const float* x) { return LoadFloats<kAligned, kChunk>(x + begin, 0, count); };
  const Floats<kChunk> gradient = load(args.gradient);
  Floats<kChunk> m = load(args.first_moment);
  Floats<kChunk> v = load(args.second_moment);
  Floats<kChunk> value = load(args.value);
#pragma unroll
  for (int e = 0; e < kChunk; ++e) {
    const float g = __fmul_rn(gradient[e], args.gradient_scale);
    m[e] = Moment(args.beta1, m[e], __fmul_rn(args.rest1, g));
    v[e] = Moment(args.beta2, v[e], __fmul_rn(__fmul_rn(args.rest2, g), g));
    const float root = __fadd_rn(__fmul_rn(__fsqrt_rn(v[e]), args.root), args.epsilon);
    value[e] = __fsub_rn(__fmul_rn(value[e], args.keep), __fdiv_rn(__fmul_rn(args.step_size, m[e]), root));
  }
  StoreFloats<kAligned>(m, args.first_moment + begin, 0, count);
  StoreFloats<kAligned>(v, args.second_moment + begin, 0, count);
  StoreFloats<kAligned>(value, args.value + begin, 0, count);
  if (args.rounded != nullptr) StoreFloats<kAligned>(value, static_cast<BF16*>(args.rounded) + begin, 0, count);
}

}  // namespace

void SumOfSquares(const SumOfSquaresArgs& args, std::byte* workspace, cudaStream_t stream) {
  if (args.size == 0) return;
  auto* const partials = reinterpret_cast<double*>(workspace);
  WithBool(args.size % kChunk == 0 && IsAligned<kChunk>(args.x, 0), [&](auto aligned) {
    SquaresKernel<decltype(aligned)::value><<<kSumBlocks, kThreads, 0, stream>>>(args.x, args.size, partials);
  });
  AddPartialsKernel<<<1, kSumBlocks, 0, stream>>>(partials, args.sum);
}

int64_t SumOfSquaresWorkspaceBytes() { return kSumBlocks * int64_t{sizeof(double)}; }

void AdamW(const AdamWArgs& args, cudaStream_t stream) {
  if (args.size == 0) return;
  const bool vectors = args.size % kChunk == 0 && IsAligned<kChunk>(args.value, 0) &&
                       IsAligned<kChunk>(args.first_moment, 0) && IsAligned<kChunk>(args.second_moment, 0) &&
                       IsAligned<kChunk>(args.gradient, 0) &&
                       IsAligned<kChunk>(static_cast<const BF16*>(args.rounded), 0);
  WithBool(vectors, [&](auto aligned) {
    const auto blocks = static_cast<unsigned>(CeilDiv(args.size, kChunk * kThreads));
    AdamWKernel<decltype(aligned)::value><<<blocks, kThreads, 0, stream>>>(args);
  });
}

}  // namespace swiftkv::kernels::cuda
