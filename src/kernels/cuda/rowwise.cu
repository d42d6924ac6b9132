// Norms, quantization, gated activations and copies of rows. Kernels that need a sum or a maximum of a row have a block
// for each row and read it once; the others have a thread for each chunk.
#include "kernels/cuda/device-inl.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_block-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kElementwiseThreads = 256;

// Sources say what a row's chunks are. Load only reads memory, so that the reads of all chunks are under way before
// Values computes on the first; beyond the row's end Values gives zeros.

template <typename T, bool kAlignedRows>
struct PlainSource {
  static constexpr bool kAligned = kAlignedRows;
  static constexpr int kChunk = kChunkOf<T>;
  const T* x;  // [rows, size]
  int64_t stride;
  int size;

  __device__ auto Load(int64_t row, int i) const { return LoadWords<kAligned, kChunk>(x + row * stride, i, size); }
  __device__ Floats<kChunk> Values(const Words<kChunk * sizeof(T)>& words) const { return Unpack<T>(words); }
};

// Values and the weights that they will be multiplied by.
template <bool kAlignedRows>
struct NormSource {
  static constexpr bool kAligned = kAlignedRows;
  static constexpr int kChunk = kChunkOf<float>;
  const float* x;  // [rows, size]
  int64_t stride;
  const float* weight;  // [size]
  int size;

  struct Chunk {
    Floats<kChunk> x;
    Floats<kChunk> weight;
  };
  __device__ Chunk Load(int64_t row, int i) const {
    return {LoadFloats<kAligned, kChunk>(x + row * stride, i, size), LoadFloats<kAligned, kChunk>(weight, i, size)};
  }
  __device__ const Chunk& Values(const Chunk& chunk) const { return chunk; }
};

template <typename T, bool kAlignedRows>
struct SiluMulSource {
  static constexpr bool kAligned = kAlignedRows;
  static constexpr int kChunk = kChunkOf<T>;
  const T* gate_up;  // [rows, 2 * size]
  int64_t stride;
  int size;

  struct Raw {
    Words<kChunk * sizeof(T)> gate;
    Words<kChunk * sizeof(T)> up;
  };
  __device__ Raw Load(int64_t row, int i) const {
    const T* gate = gate_up + row * stride;
    return {LoadWords<kAligned, kChunk>(gate, i, size), LoadWords<kAligned, kChunk>(gate + size, i, size)};
  }
  __device__ Floats<kChunk> Values(const Raw& raw) const {
    const Floats<kChunk> gate = Unpack<T>(raw.gate);
    const Floats<kChunk> up = Unpack<T>(raw.up);
    Floats<kChunk> products;
#pragma unroll
    for (int e = 0; e < kChunk; ++e) products[e] = Silu(gate[e]) * up[e];
    return products;
  }
  // The fast one is exact to far more digits than bf16 has.
  static __device__ float Silu(float gate) {
    if constexpr (std::is_same_v<T, float>) return gate / (1.0f + expf(-gate));
    return __fdividef(gate, 1.0f + FastExp(-gate));
  }
};

// Rows ids[row] of a matrix, times their scales if there are any.
template <typename T, bool kAlignedRows>
struct GatherSource {
  static constexpr bool kAligned = kAlignedRows;
  static constexpr int kChunk = kChunkOf<T>;
  const T* matrix;      // [n, size]
  const float* scales;  // [n] or null
  const int32_t* ids;
  int size;

  struct Raw {
    Words<kChunk * sizeof(T)> words;
    float scale;
  };
  __device__ Raw Load(int64_t row, int i) const {
    const int64_t id = ids[row];
    return {LoadWords<kAligned, kChunk>(matrix + id * size, i, size), scales == nullptr ? 1.0f : scales[id]};
  }
  __device__ Floats<kChunk> Values(const Raw& raw) const {
    Floats<kChunk> values = Unpack<T>(raw.words);
#pragma unroll
    for (int e = 0; e < kChunk; ++e) values[e] *= raw.scale;
    return values;
  }
};

template <typename T, bool kAlignedRows>
struct AddBiasSource {
  static constexpr bool kAligned = kAlignedRows;
  static constexpr int kChunk = kChunkOf<T>;
  const T* y;  // [rows, size]
  int64_t stride;
  const float* bias;  // [size]
  int size;

  struct Raw {
    Words<kChunk * sizeof(T)> y;
    Floats<kChunk> bias;
  };
  __device__ Raw Load(int64_t row, int i) const {
    return {LoadWords<kAligned, kChunk>(y + row * stride, i, size), LoadFloats<kAligned, kChunk>(bias, i, size)};
  }
  __device__ Floats<kChunk> Values(const Raw& raw) const {
    Floats<kChunk> sums = Unpack<T>(raw.y);
#pragma unroll
    for (int e = 0; e < kChunk; ++e) sums[e] += raw.bias[e];
    return sums;
  }
};

// Divides by one scale. A product with the reciprocal, corrected by its remainder, is what a division rounds to (but
// that -0 becomes 0), without a division for each value.
class Quotient {
 public:
  // `largest`: bits of the largest magnitude of a row. Bits of magnitudes are ordered as the magnitudes, with NaN last.
  __device__ explicit Quotient(uint32_t largest) {
    constexpr uint32_t kInfinity = 0x7f800000u;
    scale_ = largest >= kInfinity ? __uint_as_float(0x7fffffffu) : __uint_as_float(largest) / kMaxE4M3;
    if (scale_ == 0) scale_ = 1;
    // Keeps the reciprocal of tiny scales finite.
    shift_ = scale_ < 0x1p-60f ? 0x1p64f : 1.0f;
    divisor_ = scale_ * shift_;
    reciprocal_ = 1.0f / divisor_;
  }
  __device__ float scale() const { return scale_; }
  __device__ float operator()(float value) const {
    const float shifted = value * shift_;
    const float quotient = shifted * reciprocal_;
    return fmaf(fmaf(-quotient, divisor_, shifted), reciprocal_, quotient);
  }

 private:
  float scale_;
  float shift_;
  float divisor_;
  float reciprocal_;
};

// Writes value(chunk) of each chunk to out [size]; of E4M3 the quotients, and *scale.
template <bool kAligned, typename Row, typename Value, typename Out>
__device__ void WriteRow(const Row& row, const Value& value, Out* out, [[maybe_unused]] float* scale) {
  if constexpr (!std::is_same_v<Out, E4M3>) {
    row.ForEach([&](int i, const auto& chunk) { StoreFloats<kAligned>(value(chunk), out, i, row.size()); });
  } else {
    uint32_t largest = 0;
    row.ForEach([&](int, const auto& chunk) {
      for (const float x : value(chunk).values) largest = max(largest, __float_as_uint(x) & 0x7fffffffu);
    });
    const Quotient quotient(BlockMax(largest, 0u));
    row.ForEach([&](int i, const auto& chunk) {
      auto values = value(chunk);
      for (float& x : values.values) x = quotient(x);
      StoreFloats<kAligned>(values, out, i, row.size());
    });
    if (threadIdx.x == 0) *scale = quotient.scale();
  }
}

template <int kCached, typename Out, bool kAligned>
__global__ void __launch_bounds__(kMaxThreads)
    RmsNormKernel(NormSource<kAligned> source, float eps, Out* out, int64_t out_stride, float* scales) {
  const int64_t r = blockIdx.x;
  const BlockRow<NormSource<kAligned>, kCached> row(source, r);
  float squares = 0;
  row.ForEach([&](int, const auto& chunk) {
    for (const float x : chunk.x.values) squares += x * x;
  });
  const float inverse = 1.0f / sqrtf(BlockSum(squares) / static_cast<float>(source.size) + eps);
  const auto value = [inverse](const auto& chunk) {
    Floats<NormSource<kAligned>::kChunk> values;
#pragma unroll
    for (int e = 0; e < NormSource<kAligned>::kChunk; ++e) values[e] = chunk.x[e] * inverse * chunk.weight[e];
    return values;
  };
  WriteRow<kAligned>(row, value, out + r * out_stride, scales + r);
}

template <int kCached, typename Source>
__global__ void __launch_bounds__(kMaxThreads)
    QuantizeKernel(Source source, E4M3* out, int64_t out_stride, float* scales) {
  const int64_t r = blockIdx.x;
  const BlockRow<Source, kCached> row(source, r);
  WriteRow<Source::kAligned>(
      row, [](const auto& chunk) { return chunk; }, out + r * out_stride, scales + r);
}

// A row has blocks_per_row blocks.
template <typename Source, typename Out>
__global__ void __launch_bounds__(kElementwiseThreads)
    ElementwiseKernel(Source source, Out* out, int64_t out_stride, unsigned blocks_per_row) {
  const int64_t row = blockIdx.x / blocks_per_row;
  const int chunk = static_cast<int>(blockIdx.x % blocks_per_row * kElementwiseThreads + threadIdx.x);
  const int i = chunk * Source::kChunk;
  StoreFloats<Source::kAligned>(source.Values(source.Load(row, i)), out + row * out_stride, i, source.size);
}

template <typename Source, typename Out>
void LaunchElementwise(const Source& source, int64_t rows, Out* out, int64_t out_stride, cudaStream_t stream) {
  const auto blocks_per_row = static_cast<unsigned>(CeilDiv(source.size, Source::kChunk * kElementwiseThreads));
  const auto blocks = static_cast<unsigned>(rows * blocks_per_row);
  ElementwiseKernel<<<blocks, kElementwiseThreads, 0, stream>>>(source, out, out_stride, blocks_per_row);
}

template <typename Source>
void LaunchQuantize(const Source& source, int64_t rows, E4M3* out, int64_t out_stride, float* scales,
                    cudaStream_t stream) {
  const RowBlock block(source.size, Source::kChunk);
  WithBool(block.cached, [&](auto cached) {
    constexpr int kCached = decltype(cached)::value ? kCachedChunks : 0;
    QuantizeKernel<kCached><<<static_cast<unsigned>(rows), block.threads, 0, stream>>>(source, out, out_stride, scales);
  });
}

}  // namespace

void RmsNorm(const RmsNormLaunch& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  constexpr int kChunk = kChunkOf<float>;
  const RowBlock block(args.size, kChunk);
  WithElement(args.out_dtype, [&](auto element) {
    using Out = typename decltype(element)::type;
    Out* const out = static_cast<Out*>(args.out);
    const bool vectors = args.size % kChunk == 0 && IsAligned<kChunk>(args.x, args.x_stride) &&
                         IsAligned<kChunk>(args.weight, 0) && IsAligned<kChunk>(out, args.out_stride);
    WithBool(vectors, [&](auto aligned) {
      const NormSource<decltype(aligned)::value> source{args.x, args.x_stride, args.weight,
                                                        static_cast<int>(args.size)};
      WithBool(block.cached, [&](auto cached) {
        constexpr int kCached = decltype(cached)::value ? kCachedChunks : 0;
        RmsNormKernel<kCached><<<static_cast<unsigned>(args.rows), block.threads, 0, stream>>>(
            source, args.eps, out, args.out_stride, args.scales);
      });
    });
  });
}

void QuantizeRows(const QuantizeRowsLaunch& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  WithBool(args.x_dtype == DType::kBF16, [&](auto is_bf16) {
    using T = std::conditional_t<decltype(is_bf16)::value, BF16, float>;
    constexpr int kChunk = kChunkOf<T>;
    const T* const x = static_cast<const T*>(args.x);
    E4M3* const out = reinterpret_cast<E4M3*>(args.out);
    const bool vectors =
        args.size % kChunk == 0 && IsAligned<kChunk>(x, args.x_stride) && IsAligned<kChunk>(out, args.size);
    WithBool(vectors, [&](auto aligned) {
      const PlainSource<T, decltype(aligned)::value> source{x, args.x_stride, static_cast<int>(args.size)};
      LaunchQuantize(source, args.rows, out, args.size, args.scales, stream);
    });
  });
}

void SiluMul(const SiluMulLaunch& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  WithBool(args.dtype == DType::kBF16, [&](auto is_bf16) {
    using T = std::conditional_t<decltype(is_bf16)::value, BF16, float>;
    WithBool(args.out_dtype == DType::kF8E4M3, [&](auto quantized) {
      using Out = std::conditional_t<decltype(quantized)::value, E4M3, T>;
      constexpr int kChunk = kChunkOf<T>;
      const T* const gate_up = static_cast<const T*>(args.gate_up);
      Out* const out = static_cast<Out*>(args.out);
      const bool vectors = args.size % kChunk == 0 && IsAligned<kChunk>(gate_up, args.gate_up_stride) &&
                           IsAligned<kChunk>(out, args.out_stride);
      WithBool(vectors, [&](auto aligned) {
        const SiluMulSource<T, decltype(aligned)::value> source{gate_up, args.gate_up_stride,
                                                                static_cast<int>(args.size)};
        if constexpr (decltype(quantized)::value) {
          LaunchQuantize(source, args.rows, out, args.out_stride, args.scales, stream);
        } else {
          LaunchElementwise(source, args.rows, out, args.out_stride, stream);
        }
      });
    });
  });
}

void UnpackRows(const void* matrix, DType dtype, const float* scales, int64_t k, const int32_t* ids, int64_t count,
                float* out, cudaStream_t stream) {
  if (count == 0) return;
  WithElement(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    constexpr int kChunk = kChunkOf<T>;
    const T* const rows = static_cast<const T*>(matrix);
    WithBool(k % kChunk == 0 && IsAligned<kChunk>(rows, k) && IsAligned<kChunk>(out, k), [&](auto aligned) {
      const GatherSource<T, decltype(aligned)::value> source{rows, scales, ids, static_cast<int>(k)};
      LaunchElementwise(source, count, out, k, stream);
    });
  });
}

void GatherRows(const float* x, int64_t size, const int32_t* ids, int64_t count, float* out, cudaStream_t stream) {
  UnpackRows(x, DType::kF32, nullptr, size, ids, count, out, stream);
}

void AddBias(void* y, DType dtype, int64_t y_stride, const float* bias, int64_t rows, int64_t size,
             cudaStream_t stream) {
  if (rows == 0) return;
  WithBool(dtype == DType::kBF16, [&](auto is_bf16) {
    using T = std::conditional_t<decltype(is_bf16)::value, BF16, float>;
    constexpr int kChunk = kChunkOf<T>;
    T* const sums = static_cast<T*>(y);
    const bool vectors = size % kChunk == 0 && IsAligned<kChunk>(sums, y_stride) && IsAligned<kChunk>(bias, 0);
    WithBool(vectors, [&](auto aligned) {
      const AddBiasSource<T, decltype(aligned)::value> source{sums, y_stride, bias, static_cast<int>(size)};
      LaunchElementwise(source, rows, sums, y_stride, stream);
    });
  });
}

}  // namespace swiftkv::kernels::cuda
