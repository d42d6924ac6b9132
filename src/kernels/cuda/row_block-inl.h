// Rows that a block of threads reads once: its size, and the chunks that each thread keeps. For .cu files alone.
//
// A source says what a row's chunks are. Load(row, i) only reads memory, so that the reads of all chunks are under way
// before Values computes on the first; beyond the row's end Values gives zeros.
#ifndef SWIFTKV_KERNELS_CUDA_ROW_BLOCK_INL_H_
#define SWIFTKV_KERNELS_CUDA_ROW_BLOCK_INL_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/device-inl.h"

namespace swiftkv::kernels::cuda {

inline constexpr int kCachedChunks = 4;  // of one thread, in registers

// The chunks of one row that a thread of its block has. kCached: they are at most so many and stay in registers; 0: any
// number, and each walk reads them anew.
template <typename Source, int kCached>
class BlockRow {
 public:
  using Raw = decltype(std::declval<Source>().Load(0, 0));
  using Chunk = std::decay_t<decltype(std::declval<Source>().Values(std::declval<Raw>()))>;

  __device__ BlockRow(const Source& source, int64_t row) : source_(source), row_(row) {
    if constexpr (kCached > 0) {
      Raw raw[kCached];
#pragma unroll
      for (int c = 0; c < kCached; ++c) raw[c] = source.Load(row, Begin(c));
#pragma unroll
      for (int c = 0; c < kCached; ++c) chunks_[c] = source.Values(raw[c]);
    }
  }

  __device__ int size() const { return source_.size; }

  // visit(index of the first element, chunk); chunks beyond the row's end are zeros.
  template <typename Visit>
  __device__ void ForEach(const Visit& visit) const {
    if constexpr (kCached > 0) {
#pragma unroll
      for (int c = 0; c < kCached; ++c) visit(Begin(c), chunks_[c]);
    } else {
      for (int c = 0; Begin(c) < size(); ++c) visit(Begin(c), source_.Values(source_.Load(row_, Begin(c))));
    }
  }

 private:
  __device__ int Begin(int c) const {
    return (c * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * Source::kChunk;
  }

  Source source_;
  int64_t row_;
  Chunk chunks_[kCached > 0 ? kCached : 1];
};

// The block of a row, of its size alone: sums must not depend on how many rows there are.
struct RowBlock {
  RowBlock(int64_t size, int chunk) {
    const int64_t chunks = CeilDiv(size, chunk);
    cached = chunks <= kCachedChunks * kMaxThreads;
    const int64_t warps = CeilDiv(chunks, kCachedChunks * kWarpSize);
    threads = static_cast<unsigned>(std::min<int64_t>(warps * kWarpSize, kMaxThreads));
  }
  bool cached;
  unsigned threads;
};

}  // namespace swiftkv::kernels::cuda

#endif  // SWIFTKV_KERNELS_CUDA_ROW_BLOCK_INL_H_
