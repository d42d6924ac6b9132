// Gradients of row-wise operations, and what moves and sums rows of gradients.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/backward.h"
#include "kernels/cuda/device-inl.h"
#include "kernels/cuda/row_block-inl.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumnThreads = 128;  // of column sums: a thread has one column
constexpr int64_t kMaxSlices = 256;  // of rows that are summed apart
constexpr int kTransposeSide = 64;

// Calls body(row, i) for each chunk, i being its first element. A row has blocks_per_row blocks.
template <typename Body>
__global__ void __launch_bounds__(kThreads) ChunkKernel(Body body, unsigned blocks_per_row) {
  const int64_t row = blockIdx.x / blocks_per_row;
  const int i = static_cast<int>(blockIdx.x % blocks_per_row * kThreads + threadIdx.x) * Body::kChunk;
  if (i < body.size) body(row, i);
}

template <typename Body>
void ForEachChunk(int64_t rows, const Body& body, cudaStream_t stream) {
  if (rows == 0) return;
  const auto blocks_per_row = static_cast<unsigned>(CeilDiv(body.size, Body::kChunk * kThreads));
  ChunkKernel<<<static_cast<unsigned>(rows * blocks_per_row), kThreads, 0, stream>>>(body, blocks_per_row);
}

// ---- RMSNorm. A vector is one of rows * heads.

// The vectors' values and dy * weight.
template <bool kAlignedRows>
struct RmsNormSource {
  static constexpr bool kAligned = kAlignedRows;
  static constexpr int kChunk = kChunkOf<float>;
  RmsNormBackwardArgs args;
  int size;

  struct Raw {
    Floats<kChunk> x;
    Floats<kChunk> dy;
    Floats<kChunk> weight;
  };
  struct Chunk {
    Floats<kChunk> x;
    Floats<kChunk> g;
  };
  __device__ Raw Load(int64_t vector, int i) const {
    const int64_t row = vector / args.heads;
    const int64_t begin = vector % args.heads * args.size;
    return {LoadFloats<kAligned, kChunk>(args.x + row * args.x_stride + begin, i, size),
            LoadFloats<kAligned, kChunk>(args.dy + row * args.dy_stride + begin, i, size),
            LoadFloats<kAligned, kChunk>(args.weight, i, size)};
  }
  __device__ Chunk Values(const Raw& raw) const {
    Chunk chunk{.x = raw.x, .g = raw.dy};
#pragma unroll
    for (int e = 0; e < kChunk; ++e) chunk.g[e] *= raw.weight[e];
    return chunk;
  }
};

// dx, which may be dy: a thread has read of a chunk what it needs before it writes there.
template <int kCached, bool kAligned>
__global__ void __launch_bounds__(kMaxThreads) RmsNormBackwardKernel(RmsNormSource<kAligned> source) {
  constexpr int kChunk = RmsNormSource<kAligned>::kChunk;
  const RmsNormBackwardArgs& args = source.args;
  const int64_t vector = blockIdx.x;
  const BlockRow<RmsNormSource<kAligned>, kCached> row(source, vector);
  float squares = 0;
  float products = 0;
  row.ForEach([&](int, const auto& chunk) {
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      squares += chunk.x[e] * chunk.x[e];
      products += chunk.x[e] * chunk.g[e];
    }
  });
  const auto size = static_cast<float>(source.size);
  const float inverse = 1.0f / sqrtf(BlockSum(squares) / size + args.eps);
  // x̂ mean(g x̂) = x of_x
  const float of_x = BlockSum(products) / size * inverse * inverse;
  float* const dx = args.dx + vector / args.heads * args.dx_stride + vector % args.heads * args.size;
  row.ForEach([&](int i, const auto& chunk) {
    Floats<kChunk> gradient;
#pragma unroll
    for (int e = 0; e < kChunk; ++e) gradient[e] = inverse * (chunk.g[e] - chunk.x[e] * of_x);
    if (args.accumulate) {
      const Floats<kChunk> before = LoadFloats<kAligned, kChunk>(dx, i, source.size);
#pragma unroll
      for (int e = 0; e < kChunk; ++e) gradient[e] += before[e];
    }
    StoreFloats<kAligned>(gradient, dx, i, source.size);
  });
}

// inverses[vector] = 1 / rms. A warp has a vector.
__global__ void __launch_bounds__(kThreads) InverseRmsKernel(const RmsNormBackwardArgs args, float* inverses) {
  const int64_t vector = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarpSize;
  if (vector >= args.rows * args.heads) return;
  const float* const x = args.x + vector / args.heads * args.x_stride + vector % args.heads * args.size;
  float squares = 0;
  for (int64_t i = threadIdx.x % kWarpSize; i < args.size; i += kWarpSize) squares += x[i] * x[i];
  squares = WarpReduce(squares, [](float a, float b) { return a + b; });
  if (threadIdx.x % kWarpSize == 0) inverses[vector] = 1.0f / sqrtf(squares / static_cast<float>(args.size) + args.eps);
}

// ---- Sums over rows: of slices of them first, then of the slices, both in double.

struct PlainColumns {
  const float* x;  // [rows, size]
  int64_t stride;
  __device__ float Value(int64_t row, int64_t i) const { return x[row * stride + i]; }
};

// dy x̂, whose sum is dweight.
struct RmsNormColumns {
  RmsNormBackwardArgs args;
  const float* inverses;  // [rows * heads]
  __device__ float Value(int64_t vector, int64_t i) const {
    const auto heads = static_cast<unsigned>(args.heads);  // a division of 64 bits for each element would take longest
    const int64_t row = static_cast<unsigned>(vector) / heads;
    const int64_t at = static_cast<unsigned>(vector) % heads * args.size + i;
    return args.dy[row * args.dy_stride + at] * (args.x[row * args.x_stride + at] * inverses[vector]);
  }
};

// partials [slices, size]; grid: slices, columns
template <typename Columns>
__global__ void __launch_bounds__(kColumnThreads)
    SliceSumsKernel(Columns columns, int64_t rows, int64_t slice_rows, int64_t size, double* partials) {
  const int64_t i = int64_t{blockIdx.y} * kColumnThreads + threadIdx.x;
  if (i >= size) return;
  const int64_t begin = blockIdx.x * slice_rows;
  const int64_t end = begin + slice_rows < rows ? begin + slice_rows : rows;
  double sum = 0;
#pragma unroll 8
  for (int64_t row = begin; row < end; ++row) sum += columns.Value(row, i);
  partials[blockIdx.x * size + i] = sum;
}

__global__ void __launch_bounds__(kColumnThreads)
    AddSlicesKernel(const double* partials, int64_t slices, int64_t size, float* sums) {
  const int64_t i = int64_t{blockIdx.x} * kColumnThreads + threadIdx.x;
  if (i >= size) return;
  double sum = 0;
  for (int64_t slice = 0; slice < slices; ++slice) sum += partials[slice * size + i];
  sums[i] += static_cast<float>(sum);
}

int64_t SliceRows(int64_t rows) { return std::max<int64_t>(32, CeilDiv(rows, kMaxSlices)); }

template <typename Columns>
void AddSums(const Columns& columns, int64_t rows, int64_t size, std::byte* workspace, float* sums,
             cudaStream_t stream) {
  if (rows == 0 || size == 0) return;
  auto* const partials = reinterpret_cast<double*>(workspace);
  const int64_t slices = CeilDiv(rows, SliceRows(rows));
  const auto column_blocks = static_cast<unsigned>(CeilDiv(size, kColumnThreads));
  SliceSumsKernel<<<dim3(static_cast<unsigned>(slices), column_blocks), kColumnThreads, 0, stream>>>(
      columns, rows, SliceRows(rows), size, partials);
  AddSlicesKernel<<<column_blocks, kColumnThreads, 0, stream>>>(partials, slices, size, sums);
}

// ---- Elements.

struct RopeBody {
  static constexpr int kChunk = 1;
  RopeBackwardArgs args;
  int size;  // heads * half
  __device__ void operator()(int64_t row, int i) const {
    const int half = static_cast<int>(args.head_dim / 2);
    const int64_t angle = static_cast<int64_t>(args.positions[row]) * half + i % half;
    const float cos = args.cos[angle];
    const float sin = args.sin[angle];
    float* const d = args.dx + row * args.dx_stride + i / half * args.head_dim + i % half;
    const float d1 = d[0];
    const float d2 = d[half];
    d[0] = d1 * cos + d2 * sin;
    d[half] = d2 * cos - d1 * sin;
  }
};

template <typename T, bool kAligned>
struct SiluMulBody {
  static constexpr int kChunk = kChunkOf<T>;
  SiluMulBackwardArgs args;
  int size;
  __device__ void operator()(int64_t row, int i) const {
    const T* const gates = static_cast<const T*>(args.gate_up) + row * args.gate_up_stride;
    const Floats<kChunk> gate = LoadFloats<kAligned, kChunk>(gates, i, size);
    const Floats<kChunk> up = LoadFloats<kAligned, kChunk>(gates + size, i, size);
    const Floats<kChunk> dy =
        LoadFloats<kAligned, kChunk>(static_cast<const T*>(args.dy) + row * args.dy_stride, i, size);
    Floats<kChunk> dgate;
    Floats<kChunk> dup;
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      const float sigmoid = Sigmoid(gate[e]);
      dgate[e] = dy[e] * up[e] * sigmoid * (1.0f + gate[e] * (1.0f - sigmoid));
      dup[e] = dy[e] * gate[e] * sigmoid;
    }
    T* const out = static_cast<T*>(args.dgate_up) + row * args.dgate_up_stride;
    StoreFloats<kAligned>(dgate, out, i, size);
    StoreFloats<kAligned>(dup, out + size, i, size);
  }
  // The fast one is exact to far more digits than bf16 has.
  static __device__ float Sigmoid(float x) {
    if constexpr (std::is_same_v<T, float>) return 1.0f / (1.0f + expf(-x));
    return __fdividef(1.0f, 1.0f + FastExp(-x));
  }
};

// Rows of x to rows of out, as they are or those that `rows` names.
template <typename T, bool kAligned>
struct CopyBody {
  static constexpr int kChunk = kChunkOf<float>;
  const float* x;
  int64_t x_stride;
  const int32_t* rows;  // or null
  T* out;
  int64_t out_stride;
  int size;
  __device__ void operator()(int64_t row, int i) const {
    const int64_t to = rows == nullptr ? row : rows[row];
    StoreFloats<kAligned>(LoadFloats<kAligned, kChunk>(x + row * x_stride, i, size), out + to * out_stride, i, size);
  }
};

template <typename T>
void CopyRows(const float* x, int64_t x_stride, int64_t count, int64_t size, const int32_t* rows, T* out,
              int64_t out_stride, cudaStream_t stream) {
  constexpr int kChunk = kChunkOf<float>;
  WithBool(
      size % kChunk == 0 && IsAligned<kChunk>(x, x_stride) && IsAligned<kChunk>(out, out_stride), [&](auto aligned) {
        ForEachChunk(count,
                     CopyBody<T, decltype(aligned)::value>{x, x_stride, rows, out, out_stride, static_cast<int>(size)},
                     stream);
      });
}

// A block has a square; a thread its column, of every few rows.
template <typename T>
__global__ void __launch_bounds__(kThreads) TransposeKernel(const TransposeArgs args) {
  // So far apart that neither rows nor columns meet in a bank.
  __shared__ T square[kTransposeSide][kTransposeSide + 4 / sizeof(T)];
  constexpr int kRowStep = kThreads / kTransposeSide;
  const int64_t row_begin = int64_t{blockIdx.y} * kTransposeSide;
  const int64_t column_begin = int64_t{blockIdx.x} * kTransposeSide;
  const int x = static_cast<int>(threadIdx.x) % kTransposeSide;
  const int y = static_cast<int>(threadIdx.x) / kTransposeSide;
  const T* const in = static_cast<const T*>(args.x);
  T* const out = static_cast<T*>(args.out);
#pragma unroll
  for (int i = y; i < kTransposeSide; i += kRowStep) {
    if (row_begin + i < args.rows && column_begin + x < args.columns) {
      square[i][x] = in[(row_begin + i) * args.x_stride + column_begin + x];
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = y; i < kTransposeSide; i += kRowStep) {
    if (column_begin + i < args.columns && row_begin + x < args.rows) {
      out[(column_begin + i) * args.out_stride + row_begin + x] = square[x][i];
    }
  }
}

}  // namespace

void RmsNormBackward(const RmsNormBackwardArgs& args, std::byte* workspace, cudaStream_t stream) {
  const int64_t vectors = args.rows * args.heads;
  if (vectors == 0) return;
  if (args.dweight != nullptr) {  // first: dx may be dy
    auto* const inverses = reinterpret_cast<float*>(workspace + ColumnSumsWorkspaceBytes(vectors, args.size));
    const auto blocks = static_cast<unsigned>(CeilDiv(vectors, kThreads / kWarpSize));
    InverseRmsKernel<<<blocks, kThreads, 0, stream>>>(args, inverses);
    AddSums(RmsNormColumns{args, inverses}, vectors, args.size, workspace, args.dweight, stream);
  }
  if (args.dx == nullptr) return;
  constexpr int kChunk = kChunkOf<float>;
  const bool aligned_rows = args.size % kChunk == 0 && IsAligned<kChunk>(args.x, args.x_stride) &&
                            IsAligned<kChunk>(args.dy, args.dy_stride) && IsAligned<kChunk>(args.dx, args.dx_stride) &&
                            IsAligned<kChunk>(args.weight, 0);
  const RowBlock block(args.size, kChunk);
  WithBool(aligned_rows, [&](auto aligned) {
    const RmsNormSource<decltype(aligned)::value> source{args, static_cast<int>(args.size)};
    WithBool(block.cached, [&](auto cached) {
      constexpr int kCached = decltype(cached)::value ? kCachedChunks : 0;
      RmsNormBackwardKernel<kCached><<<static_cast<unsigned>(vectors), block.threads, 0, stream>>>(source);
    });
  });
}

int64_t RmsNormBackwardWorkspaceBytes(const RmsNormBackwardArgs& args) {
  if (args.dweight == nullptr) return 0;
  const int64_t vectors = args.rows * args.heads;
  return ColumnSumsWorkspaceBytes(vectors, args.size) + vectors * int64_t{sizeof(float)};
}

void RopeBackward(const RopeBackwardArgs& args, cudaStream_t stream) {
  ForEachChunk(args.rows, RopeBody{args, static_cast<int>(args.heads * (args.head_dim / 2))}, stream);
}

void SiluMulBackward(const SiluMulBackwardArgs& args, cudaStream_t stream) {
  WithBool(args.dtype == DType::kBF16, [&](auto is_bf16) {
    using T = std::conditional_t<decltype(is_bf16)::value, BF16, float>;
    constexpr int kChunk = kChunkOf<T>;
    const bool vectors = args.size % kChunk == 0 &&
                         IsAligned<kChunk>(static_cast<const T*>(args.gate_up), args.gate_up_stride) &&
                         IsAligned<kChunk>(static_cast<const T*>(args.dy), args.dy_stride) &&
                         IsAligned<kChunk>(static_cast<const T*>(args.dgate_up), args.dgate_up_stride);
    WithBool(vectors, [&](auto aligned) {
      ForEachChunk(args.rows, SiluMulBody<T, decltype(aligned)::value>{args, static_cast<int>(args.size)}, stream);
    });
  });
}

void Round(const RoundArgs& args, cudaStream_t stream) {
  WithBool(args.dtype == DType::kBF16, [&](auto is_bf16) {
    using T = std::conditional_t<decltype(is_bf16)::value, BF16, float>;
    CopyRows(args.x, args.x_stride, args.rows, args.size, nullptr, static_cast<T*>(args.out), args.out_stride, stream);
  });
}

void ScatterRows(const ScatterRowsArgs& args, cudaStream_t stream) {
  CopyRows(args.x, args.size, args.count, args.size, args.rows, args.out, args.size, stream);
}

void Transpose(const TransposeArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.columns == 0) return;
  const dim3 grid(static_cast<unsigned>(CeilDiv(args.columns, kTransposeSide)),
                  static_cast<unsigned>(CeilDiv(args.rows, kTransposeSide)));
  WithBool(args.dtype == DType::kBF16, [&](auto is_bf16) {
    using T = std::conditional_t<decltype(is_bf16)::value, uint16_t, float>;
    TransposeKernel<T><<<grid, kThreads, 0, stream>>>(args);
  });
}

void AddColumnSums(const ColumnSumsArgs& args, std::byte* workspace, cudaStream_t stream) {
  AddSums(PlainColumns{args.x, args.x_stride}, args.rows, args.size, workspace, args.sums, stream);
}

int64_t ColumnSumsWorkspaceBytes(int64_t rows, int64_t size) {
  return CeilDiv(rows, SliceRows(rows)) * size * int64_t{sizeof(double)};
}

}  // namespace swiftkv::kernels::cuda
