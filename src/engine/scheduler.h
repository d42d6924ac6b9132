// Decides what the next step computes: which sequences, how many tokens of each, in which cache blocks. A state machine
// over numbers: it sees no tensor, no text and no clock.
//
// First come, first served. A sequence is admitted when the blocks that it may ever need are free, so nothing that runs
// is ever thrown out again. Every running sequence that waits for its next token gets it in every step; what is left of
// the token budget goes to prompts, in chunks.
#ifndef SWIFTKV_ENGINE_SCHEDULER_H_
#define SWIFTKV_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "cache/kv_cache.h"

namespace swiftkv {

// One sequence of tokens with its place in the cache. Its owner appends tokens and raises `computed`.
struct Sequence {
  std::vector<int32_t> token_ids;    // the prompt, then the output
  int64_t max_length = 0;            // token_ids never grows beyond
  int64_t shareable = 0;             // leading tokens whose K/V may come from another sequence
  int64_t choices = 1;               // sequences that Fork will make of it, itself included
  int64_t computed = 0;              // tokens whose K/V are in the cache
  std::vector<int32_t> block_table;  // covers `computed`
  int64_t reserved_blocks = 0;

  int64_t length() const { return static_cast<int64_t>(token_ids.size()); }
};

struct SchedulerOptions {
  int64_t max_num_batched_tokens = 2048;  // tokens of one step; at least max_num_seqs
  int64_t max_num_seqs = 256;             // sequences that run at once
};

class Scheduler {
 public:
  struct Chunk {
    Sequence* sequence;
    int64_t tokens;  // the next ones after `computed`; its blocks are in the table
  };

  Scheduler(const SchedulerOptions& options, KvCache* cache) : options_(options), cache_(cache) {}

  // Blocks that `sequence` reserves when it is admitted. More than KvCache::blocks(): it never can be.
  static int64_t BlocksNeeded(const Sequence& sequence);

  void Add(Sequence* sequence) { waiting_.push_back(sequence); }
  // Empty only when nothing waits and nothing runs.
  std::vector<Chunk> Schedule();
  // Starts `child` with the cache blocks of the tokens that it has in common with the running `parent`, and gives it
  // its share of the parent's reservation.
  void Fork(Sequence* parent, Sequence* child);
  // Ends a sequence, running or waiting. `keep`: its blocks stay until the next kept sequence, or until they are
  // needed.
  void Remove(Sequence* sequence, bool keep);

  bool idle() const { return waiting_.empty() && running_.empty(); }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }

 private:
  bool Admit(Sequence* sequence);
  void SharePrefix(const std::vector<int32_t>& token_ids, const std::vector<int32_t>& blocks, Sequence* to);
  void Grow(Sequence* sequence, int64_t tokens);
  void DropKept();

  SchedulerOptions options_;
  KvCache* cache_;
  std::deque<Sequence*> waiting_;
  std::vector<Sequence*> running_;  // in the order of admission
  int64_t running_choices_ = 0;     // with the choices that are still to be forked
  int64_t reserved_blocks_ = 0;
  std::vector<int32_t> kept_token_ids_;
  std::vector<int32_t> kept_blocks_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_SCHEDULER_H_
