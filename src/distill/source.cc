#include "distill/source.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "distill/permutation.h"

namespace swiftkv {
namespace {

struct HashedRow {
  uint64_t hash = 0;
  uint64_t begin = 0;
};

Result<std::vector<HashedRow>> FindRows(const RowFile& file) {
  std::vector<HashedRow> rows;
  for (uint64_t at = 0; const auto row = file.NextRow(&at);) {
    if (rows.size() == kMaxRows) return InvalidInput("{}: more than {} rows", file.path(), kMaxRows);
    rows.push_back({HashRow(row->text), row->begin});
  }
  if (rows.empty()) return InvalidInput("{}: there is no text in it", file.path());
  return rows;
}

// Rows with a hash below the result are held out: at least one of two where any are asked for.
uint64_t HeldOutBelow(const SourceRecipe& recipe, const std::vector<HashedRow>& rows) {
  if (recipe.held_out == 0) return 0;
  if (recipe.held_out < 1) {
    const auto below = static_cast<uint64_t>(std::ldexp(recipe.held_out, 64));
    if (rows.size() < 2) return below;
    const auto least = std::min_element(rows.begin(), rows.end(),
                                        [](const HashedRow& a, const HashedRow& b) { return a.hash < b.hash; });
    return std::max(below, least->hash + 1);
  }
  const auto count = static_cast<size_t>(recipe.held_out);
  if (count >= rows.size()) return UINT64_MAX;
  std::vector<uint64_t> hashes;
  hashes.reserve(rows.size());
  for (const HashedRow& row : rows) hashes.push_back(row.hash);
  std::nth_element(hashes.begin(), hashes.begin() + static_cast<int64_t>(count), hashes.end());
  return hashes[count];
}

void HoldOut(const std::vector<HashedRow>& rows, Source* source, std::vector<uint64_t>* all_held_out) {
  const bool whole = source->recipe.role == SourceRole::kEval;
  const uint64_t below = whole ? 0 : HeldOutBelow(source->recipe, rows);
  std::vector<HashedRow> held_out;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(held_out),
               [&](const HashedRow& row) { return whole || row.hash < below; });
  std::sort(held_out.begin(), held_out.end(), [](const HashedRow& a, const HashedRow& b) {
    return std::pair(a.hash, a.begin) < std::pair(b.hash, b.begin);
  });
  for (const HashedRow& row : held_out) {
    source->held_out.push_back(row.begin);
    all_held_out->push_back(row.hash);
  }
}

// `count` of the rows, by the seed, in their order.
void Limit(uint64_t seed, uint64_t count, std::vector<HashedRow>* rows) {
  if (count == 0 || count >= rows->size()) return;
  const Permutation order(rows->size(), seed);
  std::vector<uint64_t> chosen(count);
  for (uint64_t i = 0; i < count; ++i) chosen[i] = order(i);
  std::sort(chosen.begin(), chosen.end());
  for (uint64_t i = 0; i < count; ++i) (*rows)[i] = (*rows)[chosen[i]];
  rows->resize(count);
}

Status KeepTrainingRows(std::vector<HashedRow> rows, const std::vector<uint64_t>& all_held_out, uint64_t seed,
                        Source* source) {
  const size_t found = rows.size();
  rows.erase(std::remove_if(rows.begin(), rows.end(),
                            [&](const HashedRow& row) {
                              return std::binary_search(all_held_out.begin(), all_held_out.end(), row.hash);
                            }),
             rows.end());
  if (rows.empty()) {
    return InvalidInput("{}: all {} rows are held out, none is left to train on", source->recipe.path, found);
  }
  Limit(seed, static_cast<uint64_t>(source->recipe.count), &rows);
  source->train.reserve(rows.size());
  for (const HashedRow& row : rows) {
    source->train.push_back(row.begin);
    source->fingerprint = CombineHashes(source->fingerprint, row.hash);
  }
  return Ok();
}

}  // namespace

Result<std::vector<Source>> OpenSources(const std::vector<SourceRecipe>& recipes, uint64_t seed) {
  std::vector<Source> sources;
  std::vector<std::vector<HashedRow>> rows;
  std::vector<uint64_t> all_held_out;
  for (const SourceRecipe& recipe : recipes) {
    SWIFTKV_ASSIGN_OR_RETURN(RowFile file, RowFile::Open(recipe.path));
    SWIFTKV_ASSIGN_OR_RETURN(std::vector<HashedRow> found, FindRows(file));
    Source& source = sources.emplace_back(Source{recipe, std::move(file), {}, {}, 0});
    HoldOut(found, &source, &all_held_out);
    rows.push_back(std::move(found));
  }
  std::sort(all_held_out.begin(), all_held_out.end());
  for (size_t i = 0; i < sources.size(); ++i) {
    if (sources[i].recipe.role == SourceRole::kEval) continue;
    SWIFTKV_RETURN_IF_ERROR(
        KeepTrainingRows(std::exchange(rows[i], {}), all_held_out, CombineHashes(seed, i), &sources[i]));
  }
  return sources;
}

}  // namespace swiftkv
