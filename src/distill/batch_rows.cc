#include "distill/batch_rows.h"

namespace swiftkv {
namespace {

void AddDocument(TokenSequence tokens, BatchRows* batch) {
  const auto length = static_cast<int64_t>(tokens.size());
  batch->documents.push_back({batch->rows(), length});
  std::vector<int32_t>& table = batch->block_tables.emplace_back();
  for (int64_t t = 0; t < length; ++t) {
    if (t % kKvBlockTokens == 0) table.push_back(static_cast<int32_t>(batch->cache_blocks++));
    batch->slots.push_back((batch->cache_blocks - 1) * kKvBlockTokens + t % kKvBlockTokens);
    batch->positions.push_back(static_cast<int32_t>(t));
  }
  batch->sequences.push_back(std::move(tokens));
}

}  // namespace

BatchRows MakeBatchRows(std::span<const PackedSequence> packed) {
  BatchRows batch;
  for (const PackedSequence& sequence : packed) {
    for (size_t t = 0; t < sequence.in_loss.size(); ++t) {
      if (sequence.in_loss[t] != 0)
        batch.loss_rows.push_back(static_cast<int32_t>(batch.rows() + static_cast<int64_t>(t)));
    }
    for (size_t i = 0; i < sequence.document_begins.size(); ++i) {
      const int64_t begin = sequence.document_begins[i];
      const int64_t end = i + 1 < sequence.document_begins.size() ? sequence.document_begins[i + 1] : sequence.tokens();
      if (begin == end) continue;
      AddDocument(TokenSequence(sequence.token_ids.begin() + begin, sequence.token_ids.begin() + end), &batch);
    }
  }
  // Pointers into positions and tables are taken once these have stopped moving.
  for (size_t i = 0; i < batch.documents.size(); ++i) {
    const auto& [begin, rows] = batch.documents[i];
    batch.cached.push_back({begin, rows, batch.positions.data() + begin, batch.block_tables[i].data()});
  }
  return batch;
}

}  // namespace swiftkv
