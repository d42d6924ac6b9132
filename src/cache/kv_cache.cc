#include "cache/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <numeric>

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
  KvCache cache;
  cache.layout_ = layout;
  SWIFTKV_ASSIGN_OR_RETURN(cache.memory_, AlignedBuffer::Allocate(bytes, "K/V cache"));
  try {
    cache.references_.resize(static_cast<size_t>(blocks));
    cache.free_.resize(static_cast<size_t>(blocks));
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("K/V cache: no memory for the list of {} blocks", blocks);
  }
  std::iota(cache.free_.begin(), cache.free_.end(), 0);  // ascending, so a heap already
  return cache;
}

std::byte* KvCache::Group(int64_t group) { return memory_.data() + group * blocks() * layout_.block_bytes; }
const std::byte* KvCache::Group(int64_t group) const { return memory_.data() + group * blocks() * layout_.block_bytes; }

std::optional<int32_t> KvCache::Allocate() {
  if (free_.empty()) return std::nullopt;
  std::pop_heap(free_.begin(), free_.end(), std::greater<>());
  const int32_t block = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(block)] = 1;
  if (block < never_used_) {
    for (int64_t group = 0; group < layout_.groups; ++group) {
      std::memset(Group(group) + block * layout_.block_bytes, 0, static_cast<size_t>(layout_.block_bytes));
    }
  }
  never_used_ = std::max(never_used_, block + 1);
  return block;
}

void KvCache::AddReference(int32_t block) {
  assert(block >= 0 && block < blocks() && references_[static_cast<size_t>(block)] > 0);
  ++references_[static_cast<size_t>(block)];
}

void KvCache::Release(int32_t block) {
  assert(block >= 0 && block < blocks() && references_[static_cast<size_t>(block)] > 0);
  if (--references_[static_cast<size_t>(block)] > 0) return;
  free_.push_back(block);
  std::push_heap(free_.begin(), free_.end(), std::greater<>());
}

}  // namespace swiftkv
