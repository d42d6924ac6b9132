#include "cache/block_pool.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <numeric>

namespace swiftkv {

BlockPool::BlockPool(int64_t blocks) : states_(static_cast<size_t>(blocks)), free_(static_cast<size_t>(blocks)) {
  std::iota(free_.begin(), free_.end(), 0);  // ascending, so a heap already
}

size_t BlockPool::KeyHash::operator()(const Key& key) const {
  uint64_t hash = static_cast<uint64_t>(key.prefix);
  for (const int32_t token : key.tokens) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 32;
  }
  return hash;
}

BlockPool::Key BlockPool::MakeKey(Prefix prefix, Tokens tokens) {
  Key key{.prefix = prefix, .tokens = {}};
  std::copy(tokens.begin(), tokens.end(), key.tokens.begin());
  return key;
}

bool BlockPool::writable(int32_t block) const {
  const State& state = states_[static_cast<size_t>(block)];
  return state.references == 1 && !state.key;
}

std::optional<int32_t> BlockPool::Allocate() {
  int32_t block = 0;
  if (!free_.empty()) {
    std::pop_heap(free_.begin(), free_.end(), std::greater<>());
    block = free_.back();
    free_.pop_back();
  } else if (!remembered_.empty()) {
    block = remembered_.front();
    remembered_.pop_front();
    State& state = states_[static_cast<size_t>(block)];
    published_.erase(*state.key);
    state.key.reset();
  } else {
    return std::nullopt;
  }
  states_[static_cast<size_t>(block)].references = 1;
  return block;
}

void BlockPool::AddReference(int32_t block) {
  State& state = states_[static_cast<size_t>(block)];
  assert(state.references > 0 || state.key);
  if (state.references++ == 0) remembered_.erase(state.remembered);
}

void BlockPool::Release(int32_t block) {
  State& state = states_[static_cast<size_t>(block)];
  assert(state.references > 0);
  if (--state.references > 0) return;
  if (state.key) {
    state.remembered = remembered_.insert(remembered_.end(), block);
    return;
  }
  free_.push_back(block);
  std::push_heap(free_.begin(), free_.end(), std::greater<>());
}

std::optional<BlockPool::Match> BlockPool::Find(Prefix prefix, Tokens tokens) const {
  const auto found = published_.find(MakeKey(prefix, tokens));
  if (found == published_.end()) return std::nullopt;
  return found->second;
}

BlockPool::Prefix BlockPool::Publish(Prefix prefix, Tokens tokens, int32_t block) {
  State& state = states_[static_cast<size_t>(block)];
  assert(state.references > 0 && !state.key);
  const Key key = MakeKey(prefix, tokens);
  const auto [place, is_new] = published_.try_emplace(key, Match{.block = block, .prefix = next_prefix_});
  if (!is_new) return place->second.prefix;
  state.key = key;
  return next_prefix_++;
}

}  // namespace swiftkv
