#include "distill/batch_rows.h"

#include <utility>

namespace swiftkv {

void BatchRows::AddDocument(TokenSequence tokens, StepRows* rows) {
  const auto length = static_cast<int64_t>(tokens.size());
  documents_.push_back({rows->rows(), length});
  std::vector<int32_t>& table = block_tables_.emplace_back();
  for (int64_t t = 0; t < length; ++t) {
    if (t % kKvBlockTokens == 0) table.push_back(static_cast<int32_t>(cache_blocks_++));
    rows->slots.push_back((cache_blocks_ - 1) * kKvBlockTokens + t % kKvBlockTokens);
    rows->positions.push_back(static_cast<int32_t>(t));
  }
  sequences_.push_back(std::move(tokens));
}

Status BatchRows::Fill(std::span<const PackedSequence> packed) {
  sequences_.clear();
  loss_rows_.clear();
  documents_.clear();
  block_tables_.clear();
  cache_blocks_ = 0;
  StepRows rows;
  for (const PackedSequence& sequence : packed) {
    for (size_t t = 0; t < sequence.in_loss.size(); ++t) {
      if (sequence.in_loss[t] != 0) loss_rows_.push_back(static_cast<int32_t>(rows.rows() + static_cast<int64_t>(t)));
    }
    for (size_t i = 0; i < sequence.document_begins.size(); ++i) {
      const int64_t begin = sequence.document_begins[i];
      const int64_t end = i + 1 < sequence.document_begins.size() ? sequence.document_begins[i + 1] : sequence.tokens();
      if (begin == end) continue;
      AddDocument(TokenSequence(sequence.token_ids.begin() + begin, sequence.token_ids.begin() + end), &rows);
    }
  }
  // Pointers into positions and tables are taken once these have stopped moving.
  Tile& tile = rows.tiles.emplace_back();
  tile.rows = rows.rows();
  for (size_t i = 0; i < documents_.size(); ++i) {
    const auto& [begin, count] = documents_[i];
    tile.sequences.push_back({begin, count, rows.positions.data() + begin, block_tables_[i].data()});
  }
  const int64_t count = rows.rows();
  SWIFTKV_RETURN_IF_ERROR(resident_.Place(std::move(rows), loss_rows_, count));
  return Ok();
}

}  // namespace swiftkv
