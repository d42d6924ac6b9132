#include "engine/scheduler.h"

#include <algorithm>
#include <cassert>

namespace swiftkv {
namespace {

int64_t Blocks(int64_t tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; }

}  // namespace

int64_t Scheduler::BlocksNeeded(const Sequence& sequence) { return Blocks(sequence.max_length) * sequence.choices; }

std::vector<Scheduler::Chunk> Scheduler::Schedule() {
  std::vector<Chunk> chunks;
  int64_t budget = options_.max_num_batched_tokens;
  const auto take = [&](Sequence* sequence) {
    const int64_t tokens = std::min(sequence->length() - sequence->computed, budget);
    if (tokens == 0) return;
    Grow(sequence, sequence->computed + tokens);
    chunks.push_back({sequence, tokens});
    budget -= tokens;
  };
  for (Sequence* sequence : running_) {
    if (sequence->length() - sequence->computed == 1) take(sequence);
  }
  for (Sequence* sequence : running_) {
    if (sequence->length() - sequence->computed > 1) take(sequence);
  }
  while (budget > 0 && !waiting_.empty() && Admit(waiting_.front())) {
    take(waiting_.front());
    waiting_.pop_front();
  }
  return chunks;
}

bool Scheduler::Admit(Sequence* sequence) {
  const int64_t blocks = BlocksNeeded(*sequence);
  if (running_choices_ + sequence->choices > options_.max_num_seqs && running_choices_ > 0) return false;
  if (reserved_blocks_ + blocks > cache_->blocks()) return false;
  sequence->reserved_blocks = blocks;
  reserved_blocks_ += blocks;
  running_choices_ += sequence->choices;
  running_.push_back(sequence);
  SharePrefix(kept_token_ids_, kept_blocks_, sequence);
  return true;
}

void Scheduler::Fork(Sequence* parent, Sequence* child) {
  assert(parent->choices > 1);
  --parent->choices;
  child->choices = 1;
  child->reserved_blocks = BlocksNeeded(*child);
  parent->reserved_blocks -= child->reserved_blocks;
  running_.push_back(child);
  SharePrefix(parent->token_ids, parent->block_table, child);
}

// Whole blocks only: what follows in a shared block would be overwritten.
void Scheduler::SharePrefix(const std::vector<int32_t>& token_ids, const std::vector<int32_t>& blocks, Sequence* to) {
  const auto end = to->token_ids.begin() + std::min(to->shareable, to->length());
  const auto mismatch = std::mismatch(token_ids.begin(), token_ids.end(), to->token_ids.begin(), end);
  const int64_t common = mismatch.first - token_ids.begin();
  const int64_t shared = std::min(common / kKvBlockTokens, static_cast<int64_t>(blocks.size()));
  for (int64_t i = 0; i < shared; ++i) {
    cache_->AddReference(blocks[static_cast<size_t>(i)]);
    to->block_table.push_back(blocks[static_cast<size_t>(i)]);
  }
  to->computed = shared * kKvBlockTokens;
}

void Scheduler::Grow(Sequence* sequence, int64_t tokens) {
  while (static_cast<int64_t>(sequence->block_table.size()) < Blocks(tokens)) {
    std::optional<int32_t> block = cache_->Allocate();
    if (!block) {
      // The reservations of what runs fit by themselves, so the kept blocks make the difference.
      DropKept();
      block = cache_->Allocate();
    }
    assert(block.has_value());
    sequence->block_table.push_back(*block);
  }
}

void Scheduler::Remove(Sequence* sequence, bool keep) {
  if (std::erase(waiting_, sequence) > 0) return;
  if (std::erase(running_, sequence) == 0) return;
  running_choices_ -= sequence->choices;
  reserved_blocks_ -= sequence->reserved_blocks;
  if (keep) {
    DropKept();
    kept_token_ids_.assign(sequence->token_ids.begin(), sequence->token_ids.begin() + sequence->computed);
    kept_blocks_ = std::move(sequence->block_table);
  } else {
    for (const int32_t block : sequence->block_table) cache_->Release(block);
  }
  sequence->block_table.clear();
}

void Scheduler::DropKept() {
  for (const int32_t block : kept_blocks_) cache_->Release(block);
  kept_blocks_.clear();
  kept_token_ids_.clear();
}

}  // namespace swiftkv
