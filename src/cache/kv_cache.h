// The paged K/V cache: memory in blocks of 16 tokens per KV group, and the pool that lends block numbers out.
//
// A KV group is the set of layers that share one cache: n groups for layers < n, and (L - n) / g for the layers above
// (AcrossKV), so g > 1 is memory really saved. Block b of every group belongs to the same tokens of the same sequence:
// one block table a sequence serves all layers.
#ifndef SWIFTKV_CACHE_KV_CACHE_H_
#define SWIFTKV_CACHE_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"

namespace swiftkv {

inline constexpr int64_t kKvBlockTokens = 16;

struct KvLayout {
  int64_t groups = 0;       // n + (L - n) / g
  int64_t block_bytes = 0;  // one block of one group, K and V together (kernels::Backend::KvBlockBytes)
};

// Memory of `blocks` blocks for every group, and the free list with reference counts. Not thread-safe: one owner.
class KvCache {
 public:
  // Errors: kInvalidInput (a size below 1, or more than 2^31 - 1 blocks), kResourceExhausted (no memory).
  static Result<KvCache> Create(const KvLayout& layout, int64_t blocks);

  const KvLayout& layout() const { return layout_; }
  int64_t blocks() const { return static_cast<int64_t>(references_.size()); }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  // Bytes that one token occupies over all groups.
  int64_t bytes_per_token() const { return layout_.groups * layout_.block_bytes / kKvBlockTokens; }

  // First block of a group; its block b lies b * block_bytes further.
  std::byte* Group(int64_t group);
  const std::byte* Group(int64_t group) const;

  // A zeroed block with one reference, or nullopt when none is free. The lowest free number comes first.
  std::optional<int32_t> Allocate();
  void AddReference(int32_t block);
  // Drops one reference; the last one frees the block.
  void Release(int32_t block);

 private:
  KvLayout layout_;
  AlignedBuffer memory_;  // [groups, blocks, block_bytes]
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;  // a heap, lowest number on top
  int32_t never_used_ = 0;     // blocks from here on still hold the zeros that the system gave
};

}  // namespace swiftkv

#endif  // SWIFTKV_CACHE_KV_CACHE_H_
