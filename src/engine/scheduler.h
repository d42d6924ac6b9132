// Decides what the next step computes: which sequences, how many tokens of each, in which cache blocks. A state machine
// over numbers: it sees no tensor, no text and no clock.
//
//   scheduler.Add(&sequence);
//   auto chunks = scheduler.Schedule();   // compute them, then
//   scheduler.Complete(chunks);
//
// Sequences are ranked by (priority, arrival). A step takes them in that order: those that wait for their next token
// get it, what is left of the budget goes to prompts, in chunks, those of a better priority first. Prompts find blocks
// that earlier sequences computed. Blocks are taken as they are needed; when none is left, the sequence of the last
// rank gives all of its own back and is computed again later (preemption), so that the first in rank always goes on.
#ifndef SWIFTKV_ENGINE_SCHEDULER_H_
#define SWIFTKV_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <vector>

#include "cache/kv_cache.h"

namespace swiftkv {

// What a token costs that runs through all layers: the unit of a step's budget.
inline constexpr int64_t kFullTokenCost = 1024;

// One sequence of tokens with its place in the cache. Its owner appends tokens; the scheduler does the rest.
struct Sequence {
  std::vector<int32_t> token_ids;  // the prompt, then the output
  int64_t max_length = 0;          // token_ids never grows beyond
  // Leading tokens whose K/V may come from the prefix cache; the last token of all is computed in any case.
  int64_t shareable = std::numeric_limits<int64_t>::max();
  int64_t choices = 1;                           // sequences that Fork will make of it, itself included
  int32_t priority = 0;                          // lower goes first
  int64_t skipping_token_cost = kFullTokenCost;  // of a token whose logits nobody wants: less where it skips layers

  // The scheduler's.
  int64_t arrival = 0;
  int64_t computed = 0;                       // tokens whose K/V are in the cache
  std::optional<int64_t> cached_tokens = {};  // found in the cache when it was first admitted
  std::vector<int32_t> block_table;           // covers `computed`
  std::vector<BlockPool::Prefix> prefixes;    // of the first blocks of block_table, those that are published

  int64_t length() const { return static_cast<int64_t>(token_ids.size()); }
};

struct SchedulerOptions {
  int64_t max_num_batched_tokens = 2048;  // of one step, in tokens that run through all layers
  int64_t max_num_seqs = 256;             // sequences that run at once
  bool enable_prefix_caching = true;
};

// The sequences of a step that wait for their next token.
struct DecodeLoad {
  int64_t sequences = 0;
  int64_t cached_tokens = 0;  // in the cache, of all of them
};

// Since the start.
struct SchedulerCounters {
  int64_t prefix_cache_queries = 0;  // tokens of sequences when they were first admitted
  int64_t prefix_cache_hits = 0;     // of them found in the cache
  int64_t preemptions = 0;
};

class Scheduler {
 public:
  struct Chunk {
    Sequence* sequence;
    int64_t tokens;  // the next ones after `computed`; its blocks are in the table
  };
  static constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

  Scheduler(const SchedulerOptions& options, KvCache* cache) : options_(options), cache_(cache) {}

  // Blocks that `sequence` fills at its longest. More than KvCache::blocks(): it can never end.
  static int64_t BlocksNeeded(const Sequence& sequence);

  void Add(Sequence* sequence);
  // `prompt_cost_limit`: what prompts may cost in this step, where that is less than the budget leaves them; one
  // block's worth is always allowed. Empty only when nothing waits and nothing runs.
  std::vector<Chunk> Schedule(int64_t prompt_cost_limit = kNoLimit);
  // The chunks' K/V are in the cache now.
  void Complete(const std::vector<Chunk>& chunks);
  // Starts `child` on the cache blocks of `parent`, whose whole prompt is computed. The last, partly filled block is
  // copied by whoever writes to it first.
  void Fork(Sequence* parent, Sequence* child);
  // Ends a sequence, running or waiting. Its full blocks stay in the prefix cache until their place is needed.
  void Remove(Sequence* sequence);

  static int64_t Cost(const Chunk& chunk);

  // Of the sequences that wait for their next token; each gets it in the next step if the blocks suffice.
  DecodeLoad decode_load() const;
  bool idle() const { return waiting_.empty() && running_.empty(); }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  const SchedulerCounters& counters() const { return counters_; }
  // Error kInternal where blocks, references or seats do not add up: for tests.
  Status Audit() const;

 private:
  struct Rank {
    bool operator()(const Sequence* a, const Sequence* b) const {
      return a->priority != b->priority ? a->priority < b->priority : a->arrival < b->arrival;
    }
  };
  using Queue = std::set<Sequence*, Rank>;

  int64_t NextTokens(const Sequence& sequence, int64_t budget) const;
  void MakeWay();
  bool CanAdmit(Sequence* sequence);
  bool Fits(const Sequence& sequence) const;
  bool Admit(Sequence* sequence);
  void FindPrefix(Sequence* sequence);
  bool Grow(Sequence* sequence, int64_t tokens);
  bool PreemptLast(const Sequence* sequence);
  void Preempt(Sequence* sequence);
  void ReleaseBlocks(Sequence* sequence);

  SchedulerOptions options_;
  KvCache* cache_;
  Queue waiting_;
  Queue running_;
  int64_t running_choices_ = 0;  // with the choices that are still to be forked
  int64_t next_arrival_ = 0;
  SchedulerCounters counters_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_SCHEDULER_H_
