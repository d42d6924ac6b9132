// llama.cpp stores the rows of a head, first half a0 a1 ... and second half b0 b1 ..., as a0 b0 a1 b1 ...
#ifndef SWIFTKV_CHECKPOINT_STORED_ROWS_H_
#define SWIFTKV_CHECKPOINT_STORED_ROWS_H_

#include <cstdint>
#include <vector>

#include "checkpoint/tensor_source.h"

namespace swiftkv {

// The stored place of row (or vector element) `index` of Hugging Face's order.
inline int64_t StoredIndex(int64_t index, int64_t count, int64_t heads) {
  const int64_t head_dim = count / heads;
  const int64_t within = index % head_dim;
  return index - within + within % (head_dim / 2) * 2 + within / (head_dim / 2);
}

// The scales of rows of a tensor with `scale`: [row_count, groups], one group where the file has one scale for all.
Result<std::vector<float>> DecodeScales(const StoredTensor& tensor, int64_t row_begin, int64_t row_count);

// Error kInvalidInput: the tensor has no such rows.
Status CheckRows(const StoredTensor& tensor, int64_t row_begin, int64_t row_count);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_STORED_ROWS_H_
