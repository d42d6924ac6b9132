// One row of a source as tokens, and which of them count in the loss.
#ifndef SWIFTKV_DISTILL_DOCUMENT_H_
#define SWIFTKV_DISTILL_DOCUMENT_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/status.h"
#include "distill/dataset.h"
#include "distill/packed_sequence.h"
#include "distill/recipe.h"
#include "distill/source.h"

namespace swiftkv {

struct Document {
  std::vector<int32_t> token_ids;
  std::vector<uint8_t> counts;  // [tokens] 1: predicting this token belongs to the loss

  int64_t tokens() const { return static_cast<int64_t>(token_ids.size()); }
};

// `now`: what a template takes for the present. Error kInvalidInput says why the row can't be used, without its place:
// no JSON object, neither messages nor text, no template, nothing that counts with `mask_inputs`.
Result<Document> EncodeRow(const RowFile& file, const RowFile::Row& row, const DatasetText& text, bool mask_inputs,
                           std::chrono::system_clock::time_point now);

// Puts documents one after another into rows.
//
//   int64_t offset = 0;
//   while (offset < document.tokens()) {
//     if (packer.full()) rows.push_back(packer.Take(false));
//     offset += packer.Add(document, offset);
//   }
class Packer {
 public:
  explicit Packer(const DataRecipe& recipe);

  // Appends tokens from `offset` on as a document of their own, as many as the recipe lets go together, and returns how
  // many of the document are done with. 0: the row must be taken first. Tokens without any that counts are done with
  // and left out.
  int64_t Add(const Document& document, int64_t offset);
  // Nothing more goes into the row.
  bool full() const { return full_; }
  bool empty() const { return row_.token_ids.empty(); }
  int64_t tokens() const { return row_.tokens(); }
  // The row, which is empty afterwards. `fused`: as one document. nullopt: nothing in it counts.
  std::optional<PackedSequence> Take(bool fused);

 private:
  int64_t max_length_;
  bool mask_inputs_;
  bool pack_;
  bool cut_to_fill_;
  PackedSequence row_;  // in_loss: Document::counts until the row is taken
  bool full_ = false;
};

// Keeps the first `tokens` of a row, at least one; false if nothing of them counts.
bool CutRow(int64_t tokens, bool mask_inputs, PackedSequence* row);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_DOCUMENT_H_
