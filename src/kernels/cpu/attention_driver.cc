#include "kernels/cpu/attention_driver.h"

#include <vector>

namespace swiftkv::kernels::cpu {
namespace {

// Queries that share the cache's loads; their states fit in the L1 cache.
constexpr int64_t kTileQueries = 96;
// The same for an INT8 cache, of which a tile first makes a copy: the more queries, the less that costs each.
constexpr int64_t kInt8TileQueries = 192;

// Every (sequence, rows, K/V head), with the partitions it sees. Later rows see more, so they come first.
std::vector<AttentionTile> MakeTiles(const AttentionArgs& args) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t tile_queries = args.cache_dtype == DType::kI8 ? kInt8TileQueries : kTileQueries;
  const int64_t rows_per_tile = std::max<int64_t>(1, tile_queries / group);
  std::vector<AttentionTile> tiles;
  for (const AttentionSequence& sequence : args.sequences) {
    const int64_t row_tiles = (sequence.rows + rows_per_tile - 1) / rows_per_tile;
    for (int64_t i = row_tiles - 1; i >= 0; --i) {
      AttentionTile tile{.sequence = &sequence, .row = i * rows_per_tile};
      tile.rows = std::min(rows_per_tile, sequence.rows - tile.row);
      const int64_t first = sequence.positions[tile.row];
      const int64_t last = sequence.positions[tile.row + tile.rows - 1];
      const int64_t begin = args.window > 0 ? std::max<int64_t>(0, first - args.window + 1) : 0;
      tile.partition_begin = begin / kAttentionPartition;
      tile.partition_end = last / kAttentionPartition + 1;
      for (tile.kv_head = 0; tile.kv_head < args.kv_heads; ++tile.kv_head) tiles.push_back(tile);
    }
  }
  return tiles;
}

// A core per tile: for prompts and for many sequences.
void RunTiles(const AttentionArgs& args, const CpuKernels& kernels, const std::vector<AttentionTile>& tiles) {
  const int64_t group = args.heads / args.kv_heads;
  ParallelFor(static_cast<int64_t>(tiles.size()), [&](int64_t i) {
    thread_local std::vector<float> states;
    states.resize(static_cast<size_t>(tiles[i].rows * group * AttentionStateFloats(args.head_dim)));
    kernels.attend(args, tiles[i], states.data());
    kernels.finish_attention(args, tiles[i], states.data(), 1);
  });
}

// A core per partition of a tile, then a core per tile to merge: for few rows over a long cache.
void RunPartitions(const AttentionArgs& args, const CpuKernels& kernels, const std::vector<AttentionTile>& tiles) {
  struct Part {
    AttentionTile tile;
    int64_t state;  // first float
  };
  const int64_t query_floats = args.heads / args.kv_heads * AttentionStateFloats(args.head_dim);
  std::vector<Part> parts;
  std::vector<int64_t> tile_states;
  int64_t floats = 0;
  for (const AttentionTile& tile : tiles) {
    tile_states.push_back(floats);
    for (int64_t p = tile.partition_begin; p < tile.partition_end; ++p) {
      parts.push_back({tile, floats});
      parts.back().tile.partition_begin = p;
      parts.back().tile.partition_end = p + 1;
      floats += tile.rows * query_floats;
    }
  }
  std::vector<float> states(static_cast<size_t>(floats));
  ParallelFor(static_cast<int64_t>(parts.size()),
              [&](int64_t i) { kernels.attend(args, parts[i].tile, states.data() + parts[i].state); });
  ParallelFor(static_cast<int64_t>(tiles.size()), [&](int64_t i) {
    const int64_t count = tiles[i].partition_end - tiles[i].partition_begin;
    kernels.finish_attention(args, tiles[i], states.data() + tile_states[i], count);
  });
}

}  // namespace

void RunAttention(const AttentionArgs& args, const CpuKernels& kernels) {
  // Of all partitions' states: on many cores a prompt has few tiles for each, too, but rows enough to fill gigabytes.
  constexpr int64_t kMaxStateFloats = 4 << 20;
  const std::vector<AttentionTile> tiles = MakeTiles(args);
  int64_t parts = 0;
  int64_t queries = 0;  // of all parts, over the heads of a group
  for (const AttentionTile& tile : tiles) {
    parts += tile.partition_end - tile.partition_begin;
    queries += tile.rows * (tile.partition_end - tile.partition_begin);
  }
  const int64_t state_floats = queries * (args.heads / args.kv_heads) * AttentionStateFloats(args.head_dim);
  const auto tile_count = static_cast<int64_t>(tiles.size());
  if (tile_count < 4 * Threads() && parts > tile_count && state_floats <= kMaxStateFloats) {
    RunPartitions(args, kernels, tiles);
  } else {
    RunTiles(args, kernels, tiles);
  }
}

}  // namespace swiftkv::kernels::cpu
