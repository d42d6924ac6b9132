// Lends the numbers of cache blocks out, and remembers what finished sequences left in them: the prefix cache.
//
//   BlockPool pool(100);
//   int32_t block = *pool.Allocate();
//   BlockPool::Prefix prefix = pool.Publish(BlockPool::kNoPrefix, tokens_of_the_block, block);
//   pool.Release(block);                                  // remembered until its place is needed
//   if (auto found = pool.Find(BlockPool::kNoPrefix, tokens)) pool.AddReference(found->block);
//
// A full block is known by the prefix before it and its own 16 tokens. Tokens are compared, not hashes alone, so that
// no request can ever see another's keys and values through a collision. A pool belongs to one model, adapter and cache
// type; none of them is part of the key. Pure numbers; not thread-safe.
#ifndef SWIFTKV_CACHE_BLOCK_POOL_H_
#define SWIFTKV_CACHE_BLOCK_POOL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace swiftkv {

inline constexpr int64_t kKvBlockTokens = 16;

class BlockPool {
 public:
  using Tokens = std::span<const int32_t, static_cast<size_t>(kKvBlockTokens)>;
  // Names a published chain of full blocks from the first token on. Never used twice.
  using Prefix = int64_t;
  static constexpr Prefix kNoPrefix = 0;
  struct Match {
    int32_t block;
    Prefix prefix;  // the chain with this block at its end
  };

  explicit BlockPool(int64_t blocks);

  int64_t blocks() const { return static_cast<int64_t>(states_.size()); }
  // Blocks without a reference; those that are remembered count, for they give way.
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size() + remembered_.size()); }
  int64_t remembered_blocks() const { return static_cast<int64_t>(remembered_.size()); }
  int32_t references(int32_t block) const { return states_[static_cast<size_t>(block)].references; }
  // True when nobody else reads the block: one reference, and not published.
  bool writable(int32_t block) const;

  // A block with one reference: the lowest number that holds nothing, or else the remembered one that has gone unused
  // for longest. Nullopt: every block has a reference.
  std::optional<int32_t> Allocate();
  void AddReference(int32_t block);
  // Of a sequence's blocks release the last first: the longest prefixes are then forgotten first.
  void Release(int32_t block);

  std::optional<Match> Find(Prefix prefix, Tokens tokens) const;
  // Says what a full block holds. Where the same is published already, that chain is returned and `block` stays
  // private.
  Prefix Publish(Prefix prefix, Tokens tokens, int32_t block);

 private:
  struct Key {
    Prefix prefix;
    std::array<int32_t, static_cast<size_t>(kKvBlockTokens)> tokens;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  using Published = std::unordered_map<Key, Match, KeyHash>;
  struct State {
    int32_t references = 0;
    std::optional<Key> key;                   // set: published
    std::list<int32_t>::iterator remembered;  // valid where published and without reference
  };

  static Key MakeKey(Prefix prefix, Tokens tokens);

  std::vector<State> states_;
  std::vector<int32_t> free_;      // a heap, lowest number on top
  std::list<int32_t> remembered_;  // published, without reference; the longest unused in front
  Published published_;
  Prefix next_prefix_ = kNoPrefix + 1;
};

}  // namespace swiftkv

#endif  // SWIFTKV_CACHE_BLOCK_POOL_H_
