#include "distill/run.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What must not change between the parts of one run. Where results go and how often is free to change.
std::string Fingerprint(Recipe recipe, int64_t steps) {
  recipe.checkpoint = {};
  recipe.eval = {};
  recipe.generate = {};
  for (SourceRecipe& source : recipe.data.sources) source.licence.clear();
  recipe.model.name_or_path.clear();
  recipe.activation_checkpointing = false;
  recipe.train_iters = steps;
  return ToYaml(recipe);
}

bool TeachesNothing(const PackedSequence& row) {
  return std::none_of(row.in_loss.begin(), row.in_loss.end(), [](uint8_t counts) { return counts != 0; });
}

}  // namespace

TrainerOptions TrainerOptionsOf(const Recipe& recipe) {
  TrainerOptions options;
  options.dtype = recipe.model.dtype;
  options.logits_loss_temp = recipe.logits_loss_temp;
  options.hidden_loss_mult = recipe.hidden_loss_mult;
  options.hidden_loss_layer = recipe.hidden_loss_layer;
  options.hidden_loss_kind = recipe.hidden_loss_kind;
  options.adamw = {.beta1 = recipe.optimizer.betas[0],
                   .beta2 = recipe.optimizer.betas[1],
                   .epsilon = recipe.optimizer.eps,
                   .weight_decay = recipe.optimizer.weight_decay};
  options.max_grad_norm = recipe.gradient_clipping;
  options.activation_checkpointing = recipe.activation_checkpointing;
  return options;
}

std::vector<TokenSequence> Documents(std::span<const PackedSequence> packed) {
  std::vector<TokenSequence> documents;
  for (const PackedSequence& sequence : packed) {
    for (size_t i = 0; i < sequence.document_begins.size(); ++i) {
      const bool last = i + 1 == sequence.document_begins.size();
      documents.emplace_back(
          sequence.token_ids.begin() + sequence.document_begins[i],
          last ? sequence.token_ids.end() : sequence.token_ids.begin() + sequence.document_begins[i + 1]);
    }
  }
  return documents;
}

DistillRun::DistillRun(const Recipe& recipe, Trainer* trainer, Dataset* data, std::vector<HeldOutSet> held_out,
                       std::string folder, RunListener* listener)
    : recipe_(recipe),
      trainer_(trainer),
      data_(data),
      held_out_(std::move(held_out)),
      folder_(std::move(folder)),
      listener_(listener) {}

Status DistillRun::CountSteps() {
  steps_ = recipe_.train_iters;
  if (steps_ > 0) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t sequences, data_->CountSequences());
  const int64_t rows = recipe_.micro_batch_size * recipe_.gradient_accumulation_steps;
  steps_ = (sequences + rows - 1) / rows;
  TellOfSkippedRows();
  return Ok();
}

Status DistillRun::Resume() {
  TrainingState expected;
  expected.recipe_fingerprint = Fingerprint(recipe_, steps_);
  for (const ResidentParameter& parameter : trainer_->student().resident()) {
    expected.parameters.push_back({parameter.name, parameter.shape, {}, {}, {}});
  }
  SWIFTKV_ASSIGN_OR_RETURN(LoadedCheckpoint loaded, LoadTrainingCheckpoint(folder_, expected));
  for (const std::string& warning : loaded.warnings) listener_->OnWarning(warning);
  const std::string device = kernels::DeviceText(trainer_->backend());
  if (!loaded.state.device.empty() && loaded.state.device != device) {
    listener_->OnWarning(fmt::format("{}: trained on {}; this is {}, so the end may differ in rounding", loaded.path,
                                     loaded.state.device, device));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const DatasetState data, ParseDatasetState(loaded.state.dataset, loaded.path));
  SWIFTKV_RETURN_IF_ERROR(data_->Restore(data));
  SWIFTKV_RETURN_IF_ERROR(trainer_->Restore(std::move(loaded.state.parameters), loaded.state.step));
  tokens_ = loaded.state.tokens;
  seconds_ = loaded.state.seconds;
  saved_step_ = loaded.state.step;
  return Ok();
}

// The micro-batches of one step; fewer rows, or none, where the data ends.
Result<std::vector<std::vector<PackedSequence>>> DistillRun::NextBatches() {
  std::vector<std::vector<PackedSequence>> batches;
  for (int64_t i = 0; i < recipe_.gradient_accumulation_steps; ++i) {
    std::vector<PackedSequence> batch;
    while (static_cast<int64_t>(batch.size()) < recipe_.micro_batch_size) {
      SWIFTKV_ASSIGN_OR_RETURN(std::optional<PackedSequence> row, data_->Next());
      if (!row) break;
      if (TeachesNothing(*row)) continue;
      batch.push_back(std::move(*row));
    }
    if (!batch.empty()) batches.push_back(std::move(batch));
  }
  return batches;
}

Result<std::vector<HeldOutMetrics>> DistillRun::Measure(MetricsLog* log) {
  std::vector<HeldOutMetrics> sets;
  for (const HeldOutSet& set : held_out_) {
    Result<Quality> quality = trainer_->Measure(set.documents);
    if (!quality) return tl::unexpected<Error>(SaveAfter(std::move(quality).error(), data_->state(), log));
    sets.push_back({trainer_->updates(), set.name, *quality});
    CheckLogged(log->Append(sets.back()));
    listener_->OnHeldOut(sets.back());
  }
  return sets;
}

void DistillRun::CheckLogged(const Status& status) {
  if (status || std::exchange(log_failed_, true)) return;
  listener_->OnWarning(fmt::format("{}; training goes on, metrics may be missing", status.error().message));
}

void DistillRun::TellOfSkippedRows() {
  const std::vector<std::string>& warnings = data_->warnings();
  while (told_warnings_ < warnings.size()) listener_->OnWarning(warnings[told_warnings_++]);
}

Status DistillRun::Save(const DatasetState& data, MetricsLog* log) {
  CheckLogged(log->Sync());
  TrainingState state{.step = trainer_->updates(),
                      .tokens = tokens_,
                      .seconds = seconds_,
                      .recipe_fingerprint = Fingerprint(recipe_, steps_),
                      .device = kernels::DeviceText(trainer_->backend()),
                      .dataset = ToJson(data),
                      .parameters = {}};
  Result<std::vector<Parameter>> parameters = trainer_->student().parameters();
  if (!parameters) {
    return MakeError(parameters.error().code, "{}: the checkpoint of step {} is not saved: {}", folder_, state.step,
                     parameters.error().message);
  }
  state.parameters = std::move(*parameters);
  SWIFTKV_RETURN_IF_ERROR(SaveTrainingCheckpoint(folder_, state, recipe_.checkpoint.keep));
  saved_step_ = state.step;
  return Ok();
}

Error DistillRun::SaveAfter(Error error, const DatasetState& data, MetricsLog* log) {
  if (trainer_->updates() == 0) return error;  // nothing was learnt
  if (saved_step_ != trainer_->updates()) {
    if (const Status saved = Save(data, log); !saved) {
      listener_->OnWarning(saved.error().message);
      return error;
    }
  }
  error.message += fmt::format("; the checkpoint of step {} is saved, and --resume goes on from it", saved_step_);
  return error;
}

// What failed before it moved the parameters comes again when the run is resumed.
Result<bool> DistillRun::Update(const ScheduleOptions& schedule, MetricsLog* log) {
  const DatasetState data = data_->state();
  const int64_t updates = trainer_->updates();
  Result<bool> more = TryUpdate(schedule, log);
  if (more || trainer_->updates() != updates) return more;
  return tl::unexpected<Error>(SaveAfter(std::move(more).error(), data, log));
}

Result<bool> DistillRun::TryUpdate(const ScheduleOptions& schedule, MetricsLog* log) {
  const Clock::time_point start = Clock::now();
  SWIFTKV_ASSIGN_OR_RETURN(const auto batches, NextBatches());
  TellOfSkippedRows();
  if (batches.empty()) return false;
  const double learning_rate = LearningRate(schedule, trainer_->updates());
  SWIFTKV_ASSIGN_OR_RETURN(const StepReport report, trainer_->Step(batches, learning_rate));
  const double seconds = SecondsSince(start);
  tokens_ += report.tokens;
  seconds_ += seconds;
  const StepMetrics metrics{.step = trainer_->updates(),
                            .tokens = tokens_,
                            .loss = report.loss,
                            .kl = report.kl_loss,
                            .hidden_loss = report.hidden_loss,
                            .agreement = report.agreement,
                            .grad_norm = report.gradient_norm,
                            .learning_rate = learning_rate,
                            .tokens_per_second = static_cast<double>(report.tokens) / seconds,
                            .seconds = seconds_};
  CheckLogged(log->Append(metrics));
  listener_->OnStep(metrics);
  return true;
}

Result<RunEnd> DistillRun::Train() {
  const ScheduleOptions schedule{.kind = recipe_.scheduler.kind,
                                 .learning_rate = recipe_.optimizer.learning_rate,
                                 .steps = steps_,
                                 .warmup_steps = recipe_.scheduler.WarmupSteps(steps_),
                                 .min_ratio = recipe_.scheduler.min_lr_ratio};
  SWIFTKV_ASSIGN_OR_RETURN(MetricsLog log, MetricsLog::Open(MetricsPath(), trainer_->updates()));
  for (const std::string& warning : log.warnings()) listener_->OnWarning(warning);
  if (trainer_->updates() == 0) SWIFTKV_RETURN_IF_ERROR(Measure(&log));
  bool more = true;
  while (trainer_->updates() < steps_ && !listener_->StopAsked()) {
    SWIFTKV_ASSIGN_OR_RETURN(more, Update(schedule, &log));
    if (!more) break;
    SWIFTKV_RETURN_IF_ERROR(MeasureAndSaveIfDue(&log));
  }
  return Finish(!more || trainer_->updates() >= steps_, &log);
}

Status DistillRun::MeasureAndSaveIfDue(MetricsLog* log) {
  const auto due = [&](int64_t every) {
    return every > 0 && trainer_->updates() % every == 0 && trainer_->updates() < steps_;
  };
  if (due(recipe_.eval.every_n_steps)) SWIFTKV_RETURN_IF_ERROR(Measure(log));
  if (due(recipe_.checkpoint.save_every_n_steps)) {
    if (const Status saved = Save(data_->state(), log); !saved) listener_->OnWarning(saved.error().message);
  }
  return Ok();
}

Result<RunEnd> DistillRun::Finish(bool finished, MetricsLog* log) {
  if (data_->skipped_rows() > 0) {
    listener_->OnWarning(fmt::format("rows that cannot be used were skipped {} times", data_->skipped_rows()));
  }
  // Before the last measurement, which needs memory of its own and can be what ends the process.
  if (const Status saved = Save(data_->state(), log); !saved) {
    if (!finished) return tl::unexpected<Error>(saved.error());
    listener_->OnWarning(saved.error().message);
  }
  RunEnd end{
      .finished = finished, .steps_done = trainer_->updates(), .tokens = tokens_, .seconds = seconds_, .held_out = {}};
  if (finished) {
    SWIFTKV_ASSIGN_OR_RETURN(end.held_out, Measure(log));
    CheckLogged(log->Sync());
  }
  return end;
}

}  // namespace swiftkv
