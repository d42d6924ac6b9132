// What one row of a training batch holds: pieces of documents one after another. Attention never crosses from one
// document into another, and each document's positions begin at 0.
#ifndef SWIFTKV_DISTILL_PACKED_SEQUENCE_H_
#define SWIFTKV_DISTILL_PACKED_SEQUENCE_H_

#include <cstdint>
#include <vector>

namespace swiftkv {

struct PackedSequence {
  std::vector<int32_t> token_ids;        // [tokens], at most the recipe's max_length
  std::vector<uint8_t> in_loss;          // [tokens] 1: the prediction made at this token counts in the loss
  std::vector<int64_t> document_begins;  // ascending places in token_ids; the first is 0

  bool operator==(const PackedSequence&) const = default;
  int64_t tokens() const { return static_cast<int64_t>(token_ids.size()); }
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_PACKED_SEQUENCE_H_
