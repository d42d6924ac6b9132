// The rows of one micro-batch: documents one after another, with what attention needs to keep them apart.
#ifndef SWIFTKV_DISTILL_BATCH_ROWS_H_
#define SWIFTKV_DISTILL_BATCH_ROWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "distill/packed_sequence.h"
#include "kernels/ops.h"
#include "model/resident.h"
#include "model/sequence_batch.h"

namespace swiftkv {

class BatchRows {
 public:
  // Of a backend's memory, where its kernels read positions, slots, loss rows and sequences.
  explicit BatchRows(MemorySpace& memory) : resident_(memory) {}

  // Takes the place of the micro-batch before. Error kResourceExhausted.
  Status Fill(std::span<const PackedSequence> packed);

  int64_t rows() const { return resident_.rows(); }
  const std::vector<TokenSequence>& sequences() const { return sequences_; }  // the documents
  const std::vector<kernels::AttentionDocument>& documents() const { return documents_; }
  // Ascending rows whose predictions count in the loss.
  const std::vector<int32_t>& loss_rows() const { return loss_rows_; }

  const int32_t* positions() const { return resident_.positions(); }     // [rows], from 0 in each document
  const int64_t* slots() const { return resident_.slots(); }             // [rows] place in a cache of cache_blocks
  const int32_t* resident_loss_rows() const { return resident_.ids(); }  // [loss rows]
  const Tile& tile() const { return resident_.tiles().front(); }         // of all rows, its sequences over that cache
  int64_t cache_blocks() const { return cache_blocks_; }

 private:
  void AddDocument(TokenSequence tokens, StepRows* rows);

  std::vector<TokenSequence> sequences_;
  std::vector<int32_t> loss_rows_;
  std::vector<kernels::AttentionDocument> documents_;
  std::vector<std::vector<int32_t>> block_tables_;  // of each document
  int64_t cache_blocks_ = 0;
  ResidentRows resident_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_BATCH_ROWS_H_
