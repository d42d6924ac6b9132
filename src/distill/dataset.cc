#include "distill/dataset.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/distinct_names.h"
#include "distill/document.h"
#include "distill/permutation.h"
#include "distill/source.h"

namespace swiftkv {

std::vector<std::string> SourceNames(const DataRecipe& recipe) {
  std::vector<std::string> paths;
  for (const SourceRecipe& source : recipe.sources) paths.push_back(source.path);
  return DistinctNames(paths);
}

class Dataset::Impl {
 public:
  Impl(DataRecipe recipe, const DatasetOptions& options, const DatasetText& text)
      : recipe_(std::move(recipe)), text_(text), epochs_(options.epochs) {
    state_.seed = options.seed;
    state_.unix_time = options.unix_time != 0 ? options.unix_time
                                              : std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  }

  Status OpenSources();
  Result<std::optional<PackedSequence>> Next();
  DatasetState state() const { return state_; }
  Status Restore(const DatasetState& state);
  Result<int64_t> CountSequences();
  const std::vector<DatasetSource>& sources() const { return described_; }
  Result<std::vector<PackedSequence>> HeldOut(int64_t source, int64_t max_tokens) const;
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  // The source to draw from; nullopt after the last epoch.
  std::optional<size_t> ChooseSource() const;
  // Draws rows of `source` until one can be used, to the end of its pass at most, and opens it.
  Status Draw(size_t source);
  Result<Document> Encode(const Source& source, const RowFile::Row& row) const;
  Status CheckState(const DatasetState& state) const;
  Result<Document> Reopen(const DatasetState::Open& place) const;
  void Warn(size_t source, const RowFile::Row& row, const Error& error);
  bool IsFused() const;
  uint64_t Key(uint64_t stream, int64_t number) const {
    return CombineHashes(CombineHashes(static_cast<uint64_t>(state_.seed), stream), static_cast<uint64_t>(number));
  }

  DataRecipe recipe_;
  DatasetText text_;
  int64_t epochs_;
  double mean_weight_ = 0;       // of those that are given, which the other sources have, too; 0: none is
  std::vector<Source> sources_;  // training sources first
  std::vector<DatasetSource> described_;
  DatasetState state_;  // its sources are the training sources
  Document open_;       // what state_.open names
  std::vector<uint8_t> warned_;
  std::vector<std::string> warnings_;
};

Status Dataset::Impl::OpenSources() {
  const std::vector<std::string> all_names = SourceNames(recipe_);
  std::vector<SourceRecipe> chosen;
  std::vector<std::string> names;
  for (const SourceRole role : {SourceRole::kTrain, SourceRole::kEval}) {
    for (size_t i = 0; i < all_names.size(); ++i) {
      if (recipe_.sources[i].role != role) continue;
      chosen.push_back(recipe_.sources[i]);
      names.push_back(all_names[i]);
    }
    if (chosen.empty()) return InvalidInput("there is no source to train on");
  }
  SWIFTKV_ASSIGN_OR_RETURN(sources_, swiftkv::OpenSources(chosen, static_cast<uint64_t>(state_.seed)));
  double weights = 0;
  int weighted = 0;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const Source& source = sources_[i];
    described_.push_back({source.recipe.path, names[i], source.recipe.role,
                          static_cast<int64_t>(source.file.content().size()), static_cast<int64_t>(source.train.size()),
                          static_cast<int64_t>(source.held_out.size())});
    if (source.recipe.role != SourceRole::kTrain) continue;
    state_.sources.push_back({.fingerprint = source.fingerprint});
    weights += source.recipe.weight;
    weighted += source.recipe.weight > 0 ? 1 : 0;
  }
  if (weighted > 0) mean_weight_ = weights / weighted;
  warned_.assign(sources_.size(), 0);
  return Ok();
}

std::optional<size_t> Dataset::Impl::ChooseSource() const {
  const auto past = [&](const DatasetState::Source& source) { return source.pass >= epochs_; };
  if (epochs_ > 0 && std::all_of(state_.sources.begin(), state_.sources.end(), past)) return std::nullopt;
  // The source that is least far: in passes over its rows, or in tokens for its weight.
  const auto progress = [&](size_t i) {
    const DatasetState::Source& source = state_.sources[i];
    if (mean_weight_ == 0) {
      return static_cast<double>(source.pass) +
             static_cast<double>(source.position) / static_cast<double>(sources_[i].train.size());
    }
    const double weight = sources_[i].recipe.weight;
    return static_cast<double>(source.tokens) / (weight > 0 ? weight : mean_weight_);
  };
  size_t least = 0;
  for (size_t i = 1; i < state_.sources.size(); ++i) {
    if (progress(i) < progress(least)) least = i;
  }
  return least;
}

Result<Document> Dataset::Impl::Encode(const Source& source, const RowFile::Row& row) const {
  return EncodeRow(source.file, row, text_, recipe_.mask_inputs,
                   std::chrono::system_clock::from_time_t(static_cast<time_t>(state_.unix_time)));
}

void Dataset::Impl::Warn(size_t source, const RowFile::Row& row, const Error& error) {
  ++state_.skipped_rows;
  if (std::exchange(warned_[source], 1) != 0) return;
  warnings_.push_back(
      fmt::format("{}: {}; such rows are skipped", sources_[source].file.Place(row.begin), error.message));
}

Status Dataset::Impl::Draw(size_t index) {
  const Source& source = sources_[index];
  DatasetState::Source& stand = state_.sources[index];
  const uint64_t key = Key(index, stand.pass);
  const Permutation order(source.train.size(), key);
  const auto rows = static_cast<int64_t>(source.train.size());
  const bool whole_pass = stand.position == 0;
  std::optional<Error> error;
  while (!state_.open && stand.position < rows) {
    const auto row_index = static_cast<int64_t>(order(static_cast<uint64_t>(stand.position++)));
    const RowFile::Row row = source.TrainRow(static_cast<uint64_t>(row_index));
    Result<Document> document = Encode(source, row);
    if (!document) {
      error = document.error();
      Warn(index, row, *error);
      continue;
    }
    open_ = std::move(*document);
    state_.open = DatasetState::Open{static_cast<int64_t>(index), row_index, 0};
    stand.tokens += open_.tokens();
  }
  if (stand.position == rows) {
    stand.position = 0;
    ++stand.pass;
  }
  if (!state_.open && whole_pass) {
    return InvalidInput("{}: none of its {} rows can be used: {}", source.recipe.path, rows, error->message);
  }
  return Ok();
}

bool Dataset::Impl::IsFused() const {
  constexpr uint64_t kStream = 0x66757365;
  return recipe_.pack_samples && UnitDraw(Key(kStream, state_.sequences)) < recipe_.fuse_positions_prob;
}

Result<std::optional<PackedSequence>> Dataset::Impl::Next() {
  Packer packer(recipe_);
  while (true) {
    const std::optional<size_t> source = state_.open ? std::nullopt : ChooseSource();
    const bool ended = !state_.open && !source;
    if (packer.full() || (ended && !packer.empty())) {
      if (ended && !packer.full() && recipe_.drop_last) return std::nullopt;
      std::optional<PackedSequence> row = packer.Take(IsFused());
      if (!row) continue;
      ++state_.sequences;
      return row;
    }
    if (ended) return std::nullopt;
    if (source) {
      SWIFTKV_RETURN_IF_ERROR(Draw(*source));
      continue;
    }
    state_.open->offset += packer.Add(open_, state_.open->offset);
    if (state_.open->offset == open_.tokens()) state_.open.reset();
  }
}

Status Dataset::Impl::CheckState(const DatasetState& state) const {
  if (state.seed != state_.seed) {
    return InvalidInput("the saved run has seed {}, this one {}", state.seed, state_.seed);
  }
  if (state.sources.size() != state_.sources.size()) {
    return InvalidInput("the saved run has {} sources, this one {}", state.sources.size(), state_.sources.size());
  }
  for (size_t i = 0; i < state.sources.size(); ++i) {
    const DatasetState::Source& source = state.sources[i];
    const Source& ours = sources_[i];
    if (source.fingerprint != ours.fingerprint) {
      return InvalidInput("{}: it is another file than in the saved run, or other rows of it are trained on",
                          ours.recipe.path);
    }
    if (source.pass < 0 || source.tokens < 0 || source.position < 0 ||
        source.position >= static_cast<int64_t>(ours.train.size())) {
      return InvalidInput("{}: the saved run stands at row {} of {}", ours.recipe.path, source.position,
                          ours.train.size());
    }
  }
  return Ok();
}

Result<Document> Dataset::Impl::Reopen(const DatasetState::Open& place) const {
  if (place.source < 0 || place.source >= static_cast<int64_t>(state_.sources.size())) {
    return InvalidInput("the saved run stands in source {} of {}", place.source, state_.sources.size());
  }
  const Source& source = sources_[static_cast<size_t>(place.source)];
  if (place.row < 0 || place.row >= static_cast<int64_t>(source.train.size())) {
    return InvalidInput("{}: the saved run stands in row {} of {}", source.recipe.path, place.row, source.train.size());
  }
  Result<Document> document = Encode(source, source.TrainRow(static_cast<uint64_t>(place.row)));
  if (document && (place.offset < 0 || place.offset >= document->tokens())) {
    return InvalidInput("{}: the saved run stands at token {} of {}", source.recipe.path, place.offset,
                        document->tokens());
  }
  return document;
}

Status Dataset::Impl::Restore(const DatasetState& state) {
  SWIFTKV_RETURN_IF_ERROR(CheckState(state));
  const int64_t own_time = std::exchange(state_.unix_time, state.unix_time);
  Result<Document> open = state.open ? Reopen(*state.open) : Document();
  state_.unix_time = own_time;
  if (!open) return tl::unexpected<Error>(open.error());
  state_ = state;
  open_ = std::move(*open);
  return Ok();
}

Result<int64_t> Dataset::Impl::CountSequences() {
  if (epochs_ == 0) return InvalidInput("an endless run has no number of sequences");
  const DatasetState state = state_;
  Document open = open_;
  state_.sequences = 0;
  state_.open.reset();
  for (DatasetState::Source& source : state_.sources) source = {.fingerprint = source.fingerprint};
  int64_t count = 0;
  Status status = Ok();
  while (status) {
    const auto row = Next();
    if (!row) status = tl::unexpected<Error>(row.error());
    if (row && !*row) break;
    count += status ? 1 : 0;
  }
  state_ = state;
  open_ = std::move(open);
  if (!status) return tl::unexpected<Error>(status.error());
  return count;
}

Result<std::vector<PackedSequence>> Dataset::Impl::HeldOut(int64_t index, int64_t max_tokens) const {
  if (index < 0 || index >= static_cast<int64_t>(sources_.size())) return InvalidInput("there is no source {}", index);
  const Source& source = sources_[static_cast<size_t>(index)];
  DataRecipe recipe = recipe_;
  recipe.always_max_length = false;
  Packer packer(recipe);
  std::vector<PackedSequence> rows;
  int64_t tokens = 0;
  const auto take = [&] {
    std::optional<PackedSequence> row = packer.Take(false);
    if (!row) return;
    tokens += row->tokens();
    rows.push_back(std::move(*row));
  };
  for (uint64_t i = 0; i < source.held_out.size() && tokens + packer.tokens() < max_tokens; ++i) {
    const Result<Document> document = Encode(source, source.HeldOutRow(i));
    if (!document) continue;
    for (int64_t offset = 0; offset < document->tokens();) {
      if (packer.full()) take();
      offset += packer.Add(*document, offset);
    }
  }
  take();
  while (!rows.empty() && tokens - rows.back().tokens() >= max_tokens) {
    tokens -= rows.back().tokens();
    rows.pop_back();
  }
  if (tokens > max_tokens && !CutRow(rows.back().tokens() - (tokens - max_tokens), recipe.mask_inputs, &rows.back())) {
    rows.pop_back();
  }
  if (rows.empty())
    return InvalidInput("{}: no held-out row of {} can be used", source.recipe.path, source.held_out.size());
  return rows;
}

Result<std::unique_ptr<Dataset>> Dataset::Open(const DataRecipe& recipe, const DatasetOptions& options,
                                               const DatasetText& text) {
  auto impl = std::make_unique<Impl>(recipe, options, text);
  SWIFTKV_RETURN_IF_ERROR(impl->OpenSources());
  return std::unique_ptr<Dataset>(new Dataset(std::move(impl)));
}

Dataset::Dataset(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Dataset::~Dataset() = default;

Result<std::optional<PackedSequence>> Dataset::Next() { return impl_->Next(); }
DatasetState Dataset::state() const { return impl_->state(); }
Status Dataset::Restore(const DatasetState& state) { return impl_->Restore(state); }
Result<int64_t> Dataset::CountSequences() { return impl_->CountSequences(); }
const std::vector<DatasetSource>& Dataset::sources() const { return impl_->sources(); }
Result<std::vector<PackedSequence>> Dataset::HeldOut(int64_t source, int64_t max_tokens) const {
  return impl_->HeldOut(source, max_tokens);
}
int64_t Dataset::skipped_rows() const { return impl_->state().skipped_rows; }
const std::vector<std::string>& Dataset::warnings() const { return impl_->warnings(); }

}  // namespace swiftkv
