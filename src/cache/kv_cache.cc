#include "cache/kv_cache.h"

#include <limits>
#include <new>

namespace swiftkv {

Result<KvCache> KvCache::Create(const KvLayout& layout, int64_t blocks) {
  constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();
  if (layout.groups < 1 || layout.block_bytes < 1 || blocks < 1 || blocks > kMaxBlocks) {
    return InvalidInput("K/V cache: {} groups of {} blocks of {} bytes; each must be at least 1, blocks at most {}",
                        layout.groups, blocks, layout.block_bytes, kMaxBlocks);
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(layout.groups, layout.block_bytes, &bytes) ||
      __builtin_mul_overflow(bytes, blocks, &bytes)) {
    return ResourceExhausted("K/V cache: no memory for {} groups of {} blocks of {} bytes", layout.groups, blocks,
                             layout.block_bytes);
  }
  SWIFTKV_ASSIGN_OR_RETURN(AlignedBuffer memory, AlignedBuffer::Allocate(bytes, "K/V cache", *layout.memory));
  try {
    return KvCache(layout, blocks, std::move(memory));
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("K/V cache: no memory for the list of {} blocks", blocks);
  }
}

std::byte* KvCache::Group(int64_t group) { return memory_.data() + group * blocks() * layout_.block_bytes; }
const std::byte* KvCache::Group(int64_t group) const { return memory_.data() + group * blocks() * layout_.block_bytes; }

void KvCache::Clear(int32_t block) {
  if (!layout_.memory->is_host()) return;
  for (int64_t group = 0; group < layout_.groups; ++group) {
    layout_.memory->Zero(Group(group) + block * layout_.block_bytes, layout_.block_bytes);
  }
}

void KvCache::Copy(int32_t from, int32_t to) {
  for (int64_t group = 0; group < layout_.groups; ++group) {
    layout_.memory->Copy(Group(group) + to * layout_.block_bytes, Group(group) + from * layout_.block_bytes,
                         layout_.block_bytes);
  }
}

}  // namespace swiftkv
