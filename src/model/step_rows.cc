#include "model/step_rows.h"

#include <algorithm>
#include <limits>

namespace swiftkv {
namespace {

Status CheckChunk(const SequenceChunk& chunk, const ModelConfig& config, int64_t cache_blocks) {
  const int64_t end = int64_t{chunk.position} + chunk.tokens;
  if (chunk.position < 0 || end > config.max_position_embeddings) {
    return InvalidInput("step: positions {} to {} of a sequence, the model has {}", chunk.position, end - 1,
                        config.max_position_embeddings);
  }
  const int64_t blocks = (end + kKvBlockTokens - 1) / kKvBlockTokens;
  if (static_cast<int64_t>(chunk.block_table.size()) < blocks) {
    return InvalidInput("step: a block table of {} blocks for {} tokens", chunk.block_table.size(), end);
  }
  for (const int32_t block : chunk.block_table.first(static_cast<size_t>(blocks))) {
    if (block < 0 || block >= cache_blocks) {
      return InvalidInput("step: block {} in a block table, the cache has {}", block, cache_blocks);
    }
  }
  return Ok();
}

// Tiles of at most tile_rows rows, cut across the sequences; sequences are runs of rows in order.
std::vector<Tile> CutTiles(const std::vector<kernels::AttentionSequence>& sequences, int64_t tile_rows) {
  std::vector<Tile> tiles;
  for (const kernels::AttentionSequence& sequence : sequences) {
    for (int64_t done = 0; done < sequence.rows;) {
      const int64_t row = sequence.row_begin + done;
      if (tiles.empty() || tiles.back().rows == tile_rows) tiles.push_back({.begin = row, .rows = 0, .sequences = {}});
      Tile& tile = tiles.back();
      const int64_t rows = std::min(sequence.rows - done, tile_rows - tile.rows);
      tile.sequences.push_back({.row_begin = tile.rows,
                                .rows = rows,
                                .positions = sequence.positions + done,
                                .block_table = sequence.block_table});
      tile.rows += rows;
      done += rows;
    }
  }
  return tiles;
}

}  // namespace

Status CheckStep(const Step& step, const ModelConfig& config, int64_t cache_blocks) {
  const auto tokens = static_cast<int64_t>(step.token_ids.size());
  if (tokens == 0 || tokens > std::numeric_limits<int32_t>::max()) {
    return InvalidInput("step: {} tokens; it needs 1 to {}", tokens, std::numeric_limits<int32_t>::max());
  }
  for (const int32_t id : step.token_ids) {
    if (id < 0 || id >= config.vocab_size) {
      return InvalidInput("token id {} is outside of the vocabulary of {}", id, config.vocab_size);
    }
  }
  int64_t next = 0;
  for (const SequenceChunk& chunk : step.chunks) {
    if (chunk.token_begin != next || chunk.tokens < 1 || chunk.tokens > tokens - next) {
      return InvalidInput("step: a chunk of {} tokens from token {}, after {} of {} tokens", chunk.tokens,
                          chunk.token_begin, next, tokens);
    }
    SWIFTKV_RETURN_IF_ERROR(CheckChunk(chunk, config, cache_blocks));
    next += chunk.tokens;
  }
  if (next != tokens) return InvalidInput("step: the chunks cover {} of {} tokens", next, tokens);
  int64_t previous = -1;
  for (const int32_t row : step.logit_rows) {
    if (row <= previous || row >= tokens) {
      return InvalidInput("step: logit row {} after {}, rows must ascend and be below {}", row, previous, tokens);
    }
    previous = row;
  }
  return Ok();
}

StepRows SelectRows(const Step& step, std::span<const int32_t> selected, int64_t tile_rows) {
  StepRows out;
  out.positions.reserve(selected.size());  // pointers into it must stay
  out.slots.reserve(selected.size());
  std::vector<kernels::AttentionSequence> sequences;
  size_t next = 0;
  for (const SequenceChunk& chunk : step.chunks) {
    const size_t first = next;
    for (; next < selected.size() && selected[next] < chunk.token_begin + chunk.tokens; ++next) {
      const auto position = static_cast<int32_t>(chunk.position + selected[next] - chunk.token_begin);
      const int32_t block = chunk.block_table[static_cast<size_t>(position / kKvBlockTokens)];
      out.positions.push_back(position);
      out.slots.push_back(int64_t{block} * kKvBlockTokens + position % kKvBlockTokens);
    }
    if (next == first) continue;
    sequences.push_back({.row_begin = static_cast<int64_t>(first),
                         .rows = static_cast<int64_t>(next - first),
                         .positions = out.positions.data() + first,
                         .block_table = chunk.block_table.data()});
  }
  out.tiles = CutTiles(sequences, tile_rows);
  return out;
}

}  // namespace swiftkv
