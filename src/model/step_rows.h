// The rows of a step that go through a range of layers, cut into tiles. Internal to the model room.
#ifndef SWIFTKV_MODEL_STEP_ROWS_H_
#define SWIFTKV_MODEL_STEP_ROWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/kv_cache.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/forward.h"

namespace swiftkv {

// Rows that pass through a whole layer together, so that what they leave behind between operations stays in the caches.
// Rows are in causal order within a sequence, so a tile needs K/V of its own rows and of earlier tiles only.
struct Tile {
  int64_t begin = 0;  // first row
  int64_t rows = 0;
  std::vector<kernels::AttentionSequence> sequences;               // row_begin counts from the tile's first row
  const kernels::AttentionSequence* resident_sequences = nullptr;  // a device's copy of them (resident.h)
};

struct StepRows {
  std::vector<int32_t> positions;  // [rows]
  std::vector<int64_t> slots;      // [rows] cache slot of each row, as in kernels::KvWriteArgs
  std::vector<Tile> tiles;         // in order, at most `tile_rows` rows each

  int64_t rows() const { return static_cast<int64_t>(positions.size()); }
};

// What Forward::Run promises to refuse, as one sentence.
Status CheckStep(const Step& step, const ModelConfig& config, int64_t cache_blocks);

// The rows `selected` (ascending) of a checked step. Keeps pointers into the step's block tables.
StepRows SelectRows(const Step& step, std::span<const int32_t> selected, int64_t tile_rows);

}  // namespace swiftkv

#endif  // SWIFTKV_MODEL_STEP_ROWS_H_
