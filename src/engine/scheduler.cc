#include "engine/scheduler.h"

#include <algorithm>
#include <cassert>

namespace swiftkv {
namespace {

int64_t Blocks(int64_t tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; }

BlockPool::Tokens BlockTokens(const Sequence& sequence, int64_t block) {
  return BlockPool::Tokens(sequence.token_ids.data() + block * kKvBlockTokens, static_cast<size_t>(kKvBlockTokens));
}

BlockPool::Prefix LastPrefix(const Sequence& sequence) {
  return sequence.prefixes.empty() ? BlockPool::kNoPrefix : sequence.prefixes.back();
}

}  // namespace

int64_t Scheduler::BlocksNeeded(const Sequence& sequence) { return Blocks(sequence.max_length); }

int64_t Scheduler::Cost(const Chunk& chunk) {
  const Sequence& sequence = *chunk.sequence;
  const int64_t last = sequence.computed + chunk.tokens == sequence.length() ? 1 : 0;
  return (chunk.tokens - last) * sequence.skipping_token_cost + last * kFullTokenCost;
}

void Scheduler::Add(Sequence* sequence) {
  sequence->arrival = next_arrival_;
  next_arrival_ += sequence->choices;  // the choices rank right behind it
  waiting_.insert(sequence);
}

std::vector<Scheduler::Chunk> Scheduler::Schedule(int64_t prompt_cost_limit) {
  MakeWay();
  const int64_t preemptions = counters_.preemptions;
  int64_t budget = options_.max_num_batched_tokens * kFullTokenCost;
  int64_t prompt_budget = std::min(std::max(prompt_cost_limit, kKvBlockTokens * kFullTokenCost),
                                   std::max<int64_t>(budget - decode_load().sequences * kFullTokenCost, 0));
  std::vector<Chunk> chunks;
  const auto is_prompt = [](const Sequence& sequence) { return sequence.length() - sequence.computed > 1; };
  // False: the sequence was the last in rank and had to give its blocks back.
  const auto take = [&](Sequence* sequence) {
    const int64_t tokens = NextTokens(*sequence, is_prompt(*sequence) ? std::min(budget, prompt_budget) : budget);
    if (tokens == 0) return true;
    if (!Grow(sequence, sequence->computed + tokens)) return false;
    chunks.push_back({sequence, tokens});
    const int64_t cost = Cost(chunks.back());
    budget -= cost;
    if (is_prompt(*sequence)) prompt_budget -= cost;
    return true;
  };
  const auto admit_first = [&] {
    Sequence* const sequence = *waiting_.begin();
    const bool may_begin = std::min(budget, prompt_budget) >= kFullTokenCost && counters_.preemptions == preemptions;
    return may_begin && Admit(sequence) && take(sequence);
  };
  for (auto at = running_.begin(); at != running_.end(); ++at) {
    // Prompts of a better priority begin before this one goes on; they stand before it in rank.
    while (is_prompt(**at) && !waiting_.empty() && (*waiting_.begin())->priority < (*at)->priority && admit_first()) {
    }
    if (!take(*at)) break;
  }
  while (!waiting_.empty() && admit_first()) {
  }
  return chunks;
}

DecodeLoad Scheduler::decode_load() const {
  DecodeLoad load;
  for (const Sequence* const sequence : running_) {
    if (sequence->length() - sequence->computed != 1) continue;
    ++load.sequences;
    load.cached_tokens += sequence->length();
  }
  return load;
}

// Tokens of one sequence that `budget` pays for.
int64_t Scheduler::NextTokens(const Sequence& sequence, int64_t budget) const {
  const int64_t remaining = sequence.length() - sequence.computed;
  if ((remaining - 1) * sequence.skipping_token_cost + kFullTokenCost <= budget) return remaining;
  return std::min(remaining - 1, budget / sequence.skipping_token_cost);
}

// A sequence of a better priority does not wait for the end of worse ones.
void Scheduler::MakeWay() {
  while (!waiting_.empty() && !running_.empty() && (*waiting_.begin())->priority < (*running_.rbegin())->priority &&
         !CanAdmit(*waiting_.begin())) {
    Preempt(*running_.rbegin());
  }
}

// Whether Admit would take it.
bool Scheduler::CanAdmit(Sequence* sequence) {
  FindPrefix(sequence);
  const bool fits = Fits(*sequence);
  ReleaseBlocks(sequence);
  return fits;
}

// Each running sequence may want its next block soon: what is admitted leaves them one. Blocks that were found are
// held already.
bool Scheduler::Fits(const Sequence& sequence) const {
  if (running_.empty()) return true;
  const int64_t blocks = Blocks(sequence.length()) - static_cast<int64_t>(sequence.block_table.size());
  return running_choices_ + sequence.choices <= options_.max_num_seqs && cache_->free_blocks() >= blocks + running();
}

bool Scheduler::Admit(Sequence* sequence) {
  FindPrefix(sequence);
  if (!Fits(*sequence)) {
    ReleaseBlocks(sequence);
    return false;
  }
  waiting_.erase(sequence);
  running_.insert(sequence);
  running_choices_ += sequence->choices;
  if (sequence->cached_tokens) return true;  // preempted before: counted then
  sequence->cached_tokens = sequence->computed;
  if (!options_.enable_prefix_caching) return true;
  counters_.prefix_cache_queries += sequence->length();
  counters_.prefix_cache_hits += sequence->computed;
  return true;
}

void Scheduler::FindPrefix(Sequence* sequence) {
  if (!options_.enable_prefix_caching) return;
  const int64_t blocks = std::min(sequence->shareable, sequence->length() - 1) / kKvBlockTokens;
  for (int64_t block = 0; block < blocks; ++block) {
    const auto match = cache_->pool().Find(LastPrefix(*sequence), BlockTokens(*sequence, block));
    if (!match) break;
    cache_->pool().AddReference(match->block);
    sequence->block_table.push_back(match->block);
    sequence->prefixes.push_back(match->prefix);
  }
  sequence->computed = static_cast<int64_t>(sequence->block_table.size()) * kKvBlockTokens;
}

void Scheduler::Complete(const std::vector<Chunk>& chunks) {
  for (const auto& [sequence, tokens] : chunks) {
    sequence->computed += tokens;
    if (!options_.enable_prefix_caching) continue;
    for (auto block = static_cast<int64_t>(sequence->prefixes.size());
         (block + 1) * kKvBlockTokens <= sequence->computed; ++block) {
      sequence->prefixes.push_back(cache_->pool().Publish(LastPrefix(*sequence), BlockTokens(*sequence, block),
                                                          sequence->block_table[static_cast<size_t>(block)]));
    }
  }
}

void Scheduler::Fork(Sequence* parent, Sequence* child) {
  assert(parent->choices > 1);
  child->arrival = parent->arrival + --parent->choices;
  child->choices = 1;
  child->cached_tokens = parent->cached_tokens;
  child->computed = std::min(parent->computed, child->length() - 1);
  child->block_table.assign(parent->block_table.begin(), parent->block_table.begin() + Blocks(child->computed));
  for (const int32_t block : child->block_table) cache_->pool().AddReference(block);
  const int64_t full_blocks = child->computed / kKvBlockTokens;
  const int64_t prefixes = std::min(full_blocks, static_cast<int64_t>(parent->prefixes.size()));
  child->prefixes.assign(parent->prefixes.begin(), parent->prefixes.begin() + prefixes);
  running_.insert(child);
}

// Makes the blocks ready that the step writes to. False: there were none, and the sequence was preempted itself.
bool Scheduler::Grow(Sequence* sequence, int64_t tokens) {
  std::vector<int32_t>& table = sequence->block_table;
  // Preempting those who share the block may leave nobody to copy it for.
  while (sequence->computed % kKvBlockTokens != 0 && !cache_->pool().writable(table.back())) {
    const std::optional<int32_t> copy = cache_->pool().Allocate();
    if (copy) {
      cache_->Copy(table.back(), *copy);
      cache_->pool().Release(table.back());
      table.back() = *copy;
    } else if (!PreemptLast(sequence)) {
      return false;
    }
  }
  while (static_cast<int64_t>(table.size()) < Blocks(tokens)) {
    const std::optional<int32_t> block = cache_->pool().Allocate();
    if (block) {
      table.push_back(*block);
      if (static_cast<int64_t>(table.size()) * kKvBlockTokens > tokens) cache_->Clear(*block);
    } else if (!PreemptLast(sequence)) {
      return false;
    }
  }
  return true;
}

// Makes room for `sequence`. False: it was the last in rank itself.
bool Scheduler::PreemptLast(const Sequence* sequence) {
  Sequence* const last = *running_.rbegin();
  Preempt(last);
  return last != sequence;
}

void Scheduler::Preempt(Sequence* sequence) {
  running_.erase(sequence);
  running_choices_ -= sequence->choices;
  ReleaseBlocks(sequence);
  waiting_.insert(sequence);
  ++counters_.preemptions;
}

void Scheduler::Remove(Sequence* sequence) {
  if (waiting_.erase(sequence) > 0) return;
  if (running_.erase(sequence) == 0) return;
  running_choices_ -= sequence->choices;
  ReleaseBlocks(sequence);
}

Status Scheduler::Audit() const {
  std::vector<int32_t> references(static_cast<size_t>(cache_->blocks()));
  int64_t choices = 0;
  for (const Sequence* sequence : running_) {
    choices += sequence->choices;
    if (static_cast<int64_t>(sequence->block_table.size()) < Blocks(sequence->computed)) {
      return MakeError(ErrorCode::kInternal, "{} tokens are computed, but there are {} blocks", sequence->computed,
                       sequence->block_table.size());
    }
    for (const int32_t block : sequence->block_table) ++references[static_cast<size_t>(block)];
  }
  for (const Sequence* sequence : waiting_) {
    if (!sequence->block_table.empty()) return MakeError(ErrorCode::kInternal, "a waiting sequence holds blocks");
  }
  int64_t held = 0;
  for (int32_t block = 0; block < cache_->blocks(); ++block) {
    const int32_t counted = references[static_cast<size_t>(block)];
    if (counted > 0) ++held;
    if (counted != cache_->pool().references(block)) {
      return MakeError(ErrorCode::kInternal, "block {} has {} readers and {} references", block, counted,
                       cache_->pool().references(block));
    }
  }
  if (held + cache_->free_blocks() != cache_->blocks() || choices != running_choices_) {
    return MakeError(ErrorCode::kInternal, "{} blocks held, {} free of {}; {} choices counted, {} booked", held,
                     cache_->free_blocks(), cache_->blocks(), choices, running_choices_);
  }
  return Ok();
}

void Scheduler::ReleaseBlocks(Sequence* sequence) {
  for (auto block = sequence->block_table.rbegin(); block != sequence->block_table.rend(); ++block) {
    cache_->pool().Release(*block);
  }
  sequence->block_table.clear();
  sequence->prefixes.clear();
  sequence->computed = 0;
}

}  // namespace swiftkv
