// The rows of one micro-batch: documents one after another, with what attention needs to keep them apart.
#ifndef SWIFTKV_DISTILL_BATCH_ROWS_H_
#define SWIFTKV_DISTILL_BATCH_ROWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "distill/packed_sequence.h"
#include "kernels/ops.h"
#include "model/sequence_batch.h"

namespace swiftkv {

struct BatchRows {
  std::vector<TokenSequence> sequences;  // the documents
  std::vector<int32_t> loss_rows;        // ascending rows whose predictions count in the loss
  std::vector<kernels::AttentionDocument> documents;
  std::vector<int32_t> positions;                  // [rows], from 0 in each document
  std::vector<int64_t> slots;                      // [rows] place in a cache of cache_blocks blocks
  std::vector<std::vector<int32_t>> block_tables;  // of each document
  std::vector<kernels::AttentionSequence> cached;  // the documents over that cache
  int64_t cache_blocks = 0;

  int64_t rows() const { return static_cast<int64_t>(positions.size()); }
};

BatchRows MakeBatchRows(std::span<const PackedSequence> packed);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_BATCH_ROWS_H_
