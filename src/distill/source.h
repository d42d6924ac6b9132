// The rows of a recipe's sources, divided into those to train on and those held out.
//
//   SWIFTKV_ASSIGN_OR_RETURN(std::vector<Source> sources, OpenSources(recipe.data.sources, seed));
//   RowFile::Row row = sources[0].TrainRow(17);
#ifndef SWIFTKV_DISTILL_SOURCE_H_
#define SWIFTKV_DISTILL_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "distill/recipe.h"
#include "distill/row_file.h"

namespace swiftkv {

inline constexpr uint64_t kMaxRows = 1 << 28;  // of one file

struct Source {
  SourceRecipe recipe;
  RowFile file;
  std::vector<uint64_t> train;     // places of rows in the file, ascending
  std::vector<uint64_t> held_out;  // in the order of their hashes: any beginning of it is a fair sample
  uint64_t fingerprint = 0;        // of the training rows

  RowFile::Row TrainRow(uint64_t index) const { return RowAt(train[index]); }
  RowFile::Row HeldOutRow(uint64_t index) const { return RowAt(held_out[index]); }

 private:
  RowFile::Row RowAt(uint64_t begin) const { return *file.NextRow(&begin); }
};

// A row is held out by a hash of its own bytes: whatever the seed and the count, and, if it stands in several sources,
// for all of them. Sources with role kEval are held out whole. `seed` chooses the rows where `count` limits them.
// Errors: those of opening; kInvalidInput if a source has no rows, or none that may be trained on.
Result<std::vector<Source>> OpenSources(const std::vector<SourceRecipe>& recipes, uint64_t seed);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_SOURCE_H_
