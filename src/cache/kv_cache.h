// The paged K/V cache: memory in blocks of 16 tokens per KV group; BlockPool lends the block numbers out.
//
// A KV group is the set of layers that share one cache: n groups for layers < n, and (L - n) / g for the layers above
// (AcrossKV), so g > 1 is memory really saved. Block b of every group belongs to the same tokens of the same sequence:
// one block table a sequence serves all layers.
#ifndef SWIFTKV_CACHE_KV_CACHE_H_
#define SWIFTKV_CACHE_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "cache/block_pool.h"

namespace swiftkv {

struct KvLayout {
  int64_t groups = 0;                   // n + (L - n) / g
  int64_t block_bytes = 0;              // one block of one group, K and V together (kernels::Backend::KvBlockBytes)
  MemorySpace* memory = &HostMemory();  // where the blocks live (kernels::Backend::memory)
  // Over all groups.
  int64_t bytes_per_token() const { return groups * block_bytes / kKvBlockTokens; }
};

// Memory of `blocks` blocks for every group. Not thread-safe: one owner.
class KvCache {
 public:
  // Errors: kInvalidInput (a size below 1, or more than 2^31 - 1 blocks), kResourceExhausted (no memory).
  static Result<KvCache> Create(const KvLayout& layout, int64_t blocks);

  const KvLayout& layout() const { return layout_; }
  int64_t blocks() const { return pool_.blocks(); }
  int64_t free_blocks() const { return pool_.free_blocks(); }
  int64_t bytes_per_token() const { return layout_.bytes_per_token(); }

  BlockPool& pool() { return pool_; }
  const BlockPool& pool() const { return pool_; }

  // First block of a group, in the layout's memory; its block b lies b * block_bytes further.
  std::byte* Group(int64_t group);
  const std::byte* Group(int64_t group) const;

  // Zeros a block that a step will fill in part: the CPUs' kernels read whole blocks and multiply what is not there by
  // zero, which must not meet a NaN that another sequence left. A device's kernels don't, so nothing is done there.
  void Clear(int32_t block);
  void Copy(int32_t from, int32_t to);

 private:
  KvCache(const KvLayout& layout, int64_t blocks, AlignedBuffer memory)
      : layout_(layout), memory_(std::move(memory)), pool_(blocks) {}

  KvLayout layout_;
  AlignedBuffer memory_;  // [groups, blocks, block_bytes]
  BlockPool pool_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_CACHE_KV_CACHE_H_
