// Products for a few rows of inputs, which are as fast as the weights can be read: a warp makes two output features for
// all rows, its lanes side by side along the input features. cuBLASLt reaches 1.6 to 2.4 TB/s with one row where an
// H100 copies at 3.0.
#include "kernels/cuda/device-inl.h"
#include "kernels/cuda/few_rows.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kWarps = 4;     // of a block
constexpr int kFeatures = 2;  // of a warp
constexpr int kUnroll = 4;    // vectors of each feature's weights on their way at once

// Weights that are one vector.
template <typename W>
constexpr int kWeights = kVectorBytes / sizeof(W);

// sums[feature][row] += of one vector of weights, for input features [i, i + kWeights).
template <typename W, int kRows>
__device__ void MultiplyAdd(const Words<kVectorBytes> (&w)[kFeatures], const FewRowsLaunch& args, int i,
                            float (&sums)[kFeatures][kRows]) {
  constexpr int kHalf = 8;  // inputs of one vector
#pragma unroll
  for (int part = 0; part < kWeights<W>; part += kHalf) {
    Floats<kHalf> weights[kFeatures];
#pragma unroll
    for (int feature = 0; feature < kFeatures; ++feature) {
      const Floats<kWeights<W>> all = Unpack<W>(w[feature]);
#pragma unroll
      for (int e = 0; e < kHalf; ++e) weights[feature][e] = all[part + e];
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const BF16* x = static_cast<const BF16*>(args.x) + row * args.x_stride;
      const Floats<kHalf> inputs = LoadFloats<true, kHalf>(x, i + part, static_cast<int>(args.k));
#pragma unroll
      for (int feature = 0; feature < kFeatures; ++feature) {
#pragma unroll
        for (int e = 0; e < kHalf; ++e) sums[feature][row] += weights[feature][e] * inputs[e];
      }
    }
  }
}

template <typename W>
__device__ Words<kVectorBytes> LoadWeights(const W* row, int i) {
  const uint4 words = __ldcs(reinterpret_cast<const uint4*>(row + i));  // read once
  return {{words.x, words.y, words.z, words.w}};
}

template <typename Y>
__device__ void Store(const FewRowsLaunch& args, int64_t row, int64_t feature, float sum) {
  Y* y = static_cast<Y*>(args.y) + row * args.y_stride + feature;
  if constexpr (sizeof(Y) == 4) {
    *y = args.accumulate ? *y + sum : sum;
  } else {
    *y = __float2bfloat16_rn(sum);
  }
}

template <typename W, typename Y, int kRows>
__global__ void __launch_bounds__(kWarps* kWarpSize) FewRowsKernel(const FewRowsLaunch args) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
  const int64_t first = warp * kFeatures;
  if (first >= args.n) return;
  const auto k = static_cast<int>(args.k);
  const W* w[kFeatures];
#pragma unroll
  for (int feature = 0; feature < kFeatures; ++feature) {
    const int64_t at = first + feature < args.n ? first + feature : args.n - 1;
    w[feature] = static_cast<const W*>(args.w) + at * args.k;
  }
  float sums[kFeatures][kRows] = {};
  constexpr int kStep = kWarpSize * kWeights<W>;
  for (int i = lane * kWeights<W>; i < k; i += kUnroll * kStep) {
    Words<kVectorBytes> weights[kUnroll][kFeatures];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int feature = 0; feature < kFeatures; ++feature) {
        const int at = i + u * kStep;
        weights[u][feature] = at < k ? LoadWeights(w[feature], at) : Words<kVectorBytes>{};
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u * kStep < k) MultiplyAdd<W>(weights[u], args, i + u * kStep, sums);
    }
  }
#pragma unroll
  for (int feature = 0; feature < kFeatures; ++feature) {
    const float scale = args.w_scales != nullptr && first + feature < args.n ? args.w_scales[first + feature] : 1.0f;
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const float sum = WarpReduce(sums[feature][row], [](float a, float b) { return a + b; });
      if (lane == 0 && first + feature < args.n) Store<Y>(args, row, first + feature, sum * scale);
    }
  }
}

template <typename W, typename Y>
void Launch(const FewRowsLaunch& args, cudaStream_t stream) {
  const int64_t per_block = kWarps * kFeatures;
  const auto blocks = static_cast<unsigned>((args.n + per_block - 1) / per_block);
  const dim3 threads(kWarps * kWarpSize);
  const auto launch = [&](auto rows) {
    FewRowsKernel<W, Y, decltype(rows)::value><<<blocks, threads, 0, stream>>>(args);
  };
  switch (args.m) {
    case 1:
      return launch(std::integral_constant<int, 1>());
    case 2:
      return launch(std::integral_constant<int, 2>());
    case 3:
      return launch(std::integral_constant<int, 3>());
    case 4:
      return launch(std::integral_constant<int, 4>());
    case 5:
      return launch(std::integral_constant<int, 5>());
    case 6:
      return launch(std::integral_constant<int, 6>());
    case 7:
      return launch(std::integral_constant<int, 7>());
    default:
      return launch(std::integral_constant<int, 8>());
  }
}

bool Aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % kVectorBytes == 0; }

}  // namespace

bool FewRows(const FewRowsLaunch& args, cudaStream_t stream) {
  const bool is_fp8 = args.w_dtype == DType::kF8E4M3;
  if (args.m < 1 || args.m > kMostFewRows || (!is_fp8 && args.w_dtype != DType::kBF16)) return false;
  if (args.k % (is_fp8 ? kWeights<E4M3> : kWeights<BF16>) != 0 || args.x_stride % 8 != 0) return false;
  if (!Aligned(args.x) || !Aligned(args.w)) return false;
  WithElement(args.y_dtype, [&](auto y) {
    using Y = typename decltype(y)::type;
    if constexpr (sizeof(Y) >= 2) is_fp8 ? Launch<E4M3, Y>(args, stream) : Launch<BF16, Y>(args, stream);
  });
  return true;
}

}  // namespace swiftkv::kernels::cuda
