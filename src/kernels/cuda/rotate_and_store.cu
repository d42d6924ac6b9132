// Rotary embedding of queries and keys, and the write of keys and values into the cache.
#include <algorithm>
#include <bit>

#include "kernels/cuda/device-inl.h"
#include "kernels/cuda/launch.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr int kBlockThreads = 256;
constexpr int kPairs = 4;  // of a thread: elements [i, i + 4) of a head's first half and of its second

// A row's heads are numbered: queries first, then keys of all groups, then values of all groups.
enum class Kind { kNone, kQuery, kKey, kValue };
struct Head {
  Kind kind;
  int index;  // among those of its kind
};

// Heads that a row has at a pointer of the launch, which may be null.
template <typename T>
__host__ __device__ int HeadsAt(const T* pointer, int64_t heads) {
  return pointer == nullptr ? 0 : static_cast<int>(heads);
}

__host__ __device__ inline int HeadsOfRow(const RotateAndStoreLaunch& args) {
  const int64_t kv_heads = args.groups * args.kv_heads;
  return HeadsAt(args.q, args.heads) + HeadsAt(args.k, kv_heads) + HeadsAt(args.v, kv_heads);
}

__device__ inline Head FindHead(const RotateAndStoreLaunch& args, int index) {
  const int queries = HeadsAt(args.q, args.heads);
  const int keys = HeadsAt(args.k, args.groups * args.kv_heads);
  if (index < queries) return {Kind::kQuery, index};
  if (index < queries + keys) return {Kind::kKey, index - queries};
  if (index < HeadsOfRow(args)) return {Kind::kValue, index - queries - keys};
  return {Kind::kNone, 0};
}

__device__ inline const float* InputOf(const RotateAndStoreLaunch& args, int64_t row, const Head& head) {
  const float* const heads = head.kind == Kind::kQuery
                                 ? args.q + row * args.q_stride
                                 : (head.kind == Kind::kValue ? args.v : args.k) + row * args.kv_stride;
  return heads + head.index * args.head_dim;
}

// Where a key or value is in the cache: [2, kv_heads, kBlockTokens, head_dim] of each block of its group.
template <typename Cache>
__device__ Cache* CacheOf(const RotateAndStoreLaunch& args, int64_t slot, const Head& head) {
  const int kv_heads = static_cast<int>(args.kv_heads);
  const int64_t group = head.index / kv_heads;
  const int64_t block = slot / kBlockTokens;
  const int64_t index = (2 * block + (head.kind == Kind::kValue ? 1 : 0)) * kv_heads + head.index % kv_heads;
  Cache* const cache = reinterpret_cast<Cache*>(args.cache + group * args.group_bytes);
  return cache + (index * kBlockTokens + slot % kBlockTokens) * args.head_dim;
}

// RMSNorm of a head, whose pairs are those of 2^lane_bits neighbouring threads. All threads of a warp call it; those
// of heads that have no norm change nothing.
template <bool kAligned>
__device__ void Normalize(const RotateAndStoreLaunch& args, Kind kind, int i, int half, int lane_bits,
                          Floats<kPairs>* first, Floats<kPairs>* second) {
  float squares = 0;
#pragma unroll
  for (int e = 0; e < kPairs; ++e) squares += (*first)[e] * (*first)[e] + (*second)[e] * (*second)[e];
  for (int distance = (1 << lane_bits) / 2; distance > 0; distance /= 2) {
    squares += __shfl_xor_sync(0xffffffffu, squares, distance);
  }
  const float* const weight = kind == Kind::kQuery ? args.q_norm : args.k_norm;
  if (weight == nullptr || kind == Kind::kValue) return;
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(args.head_dim) + args.norm_eps);
  const Floats<kPairs> first_weight = LoadFloats<kAligned, kPairs>(weight, i, half);
  const Floats<kPairs> second_weight = LoadFloats<kAligned, kPairs>(weight + half, i, half);
#pragma unroll
  for (int e = 0; e < kPairs; ++e) {
    (*first)[e] *= inverse * first_weight[e];
    (*second)[e] *= inverse * second_weight[e];
  }
}

__device__ inline void Rotate(const Floats<kPairs>& cos, const Floats<kPairs>& sin, Floats<kPairs>* first,
                              Floats<kPairs>* second) {
#pragma unroll
  for (int e = 0; e < kPairs; ++e) {
    const float x1 = (*first)[e];
    const float x2 = (*second)[e];
    (*first)[e] = x1 * cos[e] - x2 * sin[e];
    (*second)[e] = x2 * cos[e] + x1 * sin[e];
  }
}

// Block (r, b) has heads of row r, each of which has 2^lane_bits threads. Threads without a head stay for the exchange.
template <bool kAligned, typename Cache>
__global__ void __launch_bounds__(kBlockThreads) RotateAndStoreKernel(RotateAndStoreLaunch args, int lane_bits) {
  const int64_t row = blockIdx.x;
  // Neither depends on the other or on the head: all reads of memory but those of the angles start at once.
  const int64_t slot = args.slots == nullptr ? -1 : args.slots[row];
  const int64_t position = args.positions == nullptr ? 0 : args.positions[row];
  const int thread = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  const int i = (thread & ((1 << lane_bits) - 1)) * kPairs;
  const Head head = FindHead(args, thread >> lane_bits);
  const int half = head.kind == Kind::kNone ? 0 : static_cast<int>(args.head_dim / 2);  // 0: nothing to read or write

  const float* const in = InputOf(args, row, head);
  Floats<kPairs> first = LoadFloats<kAligned, kPairs>(in, i, half);
  Floats<kPairs> second = LoadFloats<kAligned, kPairs>(in + half, i, half);
  const bool turns = head.kind != Kind::kValue && args.cos != nullptr;
  const int turned = turns ? half : 0;  // 0: no angles to read
  const Floats<kPairs> cos = LoadFloats<kAligned, kPairs>(args.cos + position * half, i, turned);
  const Floats<kPairs> sin = LoadFloats<kAligned, kPairs>(args.sin + position * half, i, turned);
  if (args.q_norm != nullptr || args.k_norm != nullptr) {
    Normalize<kAligned>(args, head.kind, i, half, lane_bits, &first, &second);
  }
  if (turns) Rotate(cos, sin, &first, &second);
  if (head.kind == Kind::kQuery) {
    float* const query = args.q + row * args.q_stride + head.index * args.head_dim;
    StoreFloats<kAligned>(first, query, i, half);
    StoreFloats<kAligned>(second, query + half, i, half);
  } else if (head.kind != Kind::kNone && slot >= 0) {
    Cache* const cached = CacheOf<Cache>(args, slot, head);
    StoreFloats<kAligned>(first, cached, i, half);
    StoreFloats<kAligned>(second, cached + half, i, half);
  }
}

// Whether each thread's pairs are two vectors, in all that is read and written.
bool HasAlignedPairs(const RotateAndStoreLaunch& args) {
  if (args.head_dim % (2 * kPairs) != 0) return false;
  return IsAligned<kPairs>(args.q, args.q_stride) && IsAligned<kPairs>(args.k, args.kv_stride) &&
         IsAligned<kPairs>(args.v, args.kv_stride) && IsAligned<kPairs>(args.cos, 0) &&
         IsAligned<kPairs>(args.sin, 0) && IsAligned<kPairs>(args.q_norm, 0) && IsAligned<kPairs>(args.k_norm, 0) &&
         IsAligned<kVectorBytes>(reinterpret_cast<const uint8_t*>(args.cache), args.group_bytes);
}

}  // namespace

void RotateAndStore(const RotateAndStoreLaunch& args, cudaStream_t stream) {
  const int heads = HeadsOfRow(args);
  if (args.rows == 0 || heads == 0) return;
  const auto lanes = std::bit_ceil(static_cast<uint64_t>(CeilDiv(args.head_dim / 2, kPairs)));
  const int64_t threads = CeilDiv(heads * static_cast<int64_t>(lanes), kWarpSize) * kWarpSize;
  const auto block = static_cast<unsigned>(std::min<int64_t>(threads, kBlockThreads));
  const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>(CeilDiv(threads, block)));
  WithElement(args.cache_dtype, [&](auto element) {
    using Cache = typename decltype(element)::type;
    WithBool(HasAlignedPairs(args), [&](auto aligned) {
      RotateAndStoreKernel<decltype(aligned)::value, Cache><<<grid, block, 0, stream>>>(args, std::countr_zero(lanes));
    });
  });
}

void Rope(const RopeArgs& args, cudaStream_t stream) {
  RotateAndStore({.q = args.x,
                  .q_stride = args.x_stride,
                  .heads = args.heads,
                  .q_norm = args.norm_weight,
                  .head_dim = args.head_dim,
                  .rows = args.rows,
                  .positions = args.positions,
                  .cos = args.cos,
                  .sin = args.sin,
                  .norm_eps = args.norm_eps},
                 stream);
}

}  // namespace swiftkv::kernels::cuda
