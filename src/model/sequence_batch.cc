#include "model/sequence_batch.h"

#include <numeric>
#include <utility>

namespace swiftkv {

Status SequenceRunner::Run(std::span<const TokenSequence> sequences, ForwardObserver* observer,
                           std::optional<std::vector<int32_t>> logit_rows) {
  Step step;
  std::vector<std::vector<int32_t>> tables;
  int32_t next_block = 0;
  for (const TokenSequence& sequence : sequences) {
    const auto tokens = static_cast<int64_t>(sequence.size());
    std::vector<int32_t>& table = tables.emplace_back((tokens + kKvBlockTokens - 1) / kKvBlockTokens);
    std::iota(table.begin(), table.end(), next_block);
    next_block += static_cast<int32_t>(table.size());
    step.chunks.push_back({static_cast<int64_t>(step.token_ids.size()), tokens, 0, {}});
    step.token_ids.insert(step.token_ids.end(), sequence.begin(), sequence.end());
  }
  for (size_t i = 0; i < tables.size(); ++i) step.chunks[i].block_table = tables[i];
  if (logit_rows) {
    step.logit_rows = std::move(*logit_rows);
  } else {
    step.logit_rows.resize(step.token_ids.size());
    std::iota(step.logit_rows.begin(), step.logit_rows.end(), 0);
  }
  // Every batch starts at position 0 and writes each slot before it reads it, so blocks need no pool and no clearing.
  if (!cache_ || cache_->blocks() < next_block) {
    cache_.reset();
    SWIFTKV_ASSIGN_OR_RETURN(cache_, KvCache::Create(forward_.cache_layout(), next_block));
  }
  return forward_.Run(step, &*cache_, observer);
}

std::vector<std::span<const TokenSequence>> Batches(std::span<const TokenSequence> sequences, int64_t tokens) {
  std::vector<std::span<const TokenSequence>> batches;
  for (size_t begin = 0; begin < sequences.size();) {
    size_t end = begin;
    int64_t sum = 0;
    while (end < sequences.size() && (end == begin || sum + static_cast<int64_t>(sequences[end].size()) <= tokens)) {
      sum += static_cast<int64_t>(sequences[end++].size());
    }
    batches.push_back(sequences.subspan(begin, end - begin));
    begin = end;
  }
  return batches;
}

}  // namespace swiftkv
