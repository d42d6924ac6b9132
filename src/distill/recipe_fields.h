// The one table of a recipe's fields: name, place and limits. Reading, checking and writing are visitors of it, so that
// what one of them knows the others know.
//
//   VisitRecipe(recipe, visitor);   // recipe may be const where the visitor only looks
//
// A visitor has String, Int (also of optionals), Number, ShareOrCount, Bool, Choice, Pair, Map and List, and Synonyms
// for what ArcticTraining says in other ways. Limits are inclusive.
#ifndef SWIFTKV_DISTILL_RECIPE_FIELDS_H_
#define SWIFTKV_DISTILL_RECIPE_FIELDS_H_

#include <array>
#include <string_view>

#include "distill/recipe.h"

namespace swiftkv {

// The name that is written, and others that mean the same.
struct FieldNames {
  std::string_view name;
  std::string_view second = {};
  std::string_view third = {};
  bool operator==(const FieldNames&) const = default;
};

template <class T>
struct ChoiceName {
  std::string_view name;
  T value;
};

inline constexpr std::array<ChoiceName<DType>, 4> kDTypeNames = {
    {{"bfloat16", DType::kBF16}, {"float32", DType::kF32}, {"bf16", DType::kBF16}, {"fp32", DType::kF32}}};
inline constexpr std::array<ChoiceName<SourceRole>, 3> kRoleNames = {
    {{"train", SourceRole::kTrain}, {"eval", SourceRole::kEval}, {"prompts", SourceRole::kPrompts}}};
inline constexpr std::array<ChoiceName<ScheduleKind>, 3> kScheduleNames = {
    {{"linear", ScheduleKind::kLinear}, {"cosine", ScheduleKind::kCosine}, {"constant", ScheduleKind::kConstant}}};
inline constexpr std::array<ChoiceName<HiddenLossKind>, 2> kHiddenLossNames = {
    {{"mse", HiddenLossKind::kMse}, {"relative", HiddenLossKind::kRelative}}};

inline constexpr int64_t kMaxSourceRows = 1'000'000'000;
inline constexpr double kTiny = 1e-12;  // the least of what must be positive

template <class R, class V>
void VisitModel(R& model, V& visit) {
  visit.String({"name_or_path"}, model.name_or_path);
  visit.Int({"num_key_value_layers"}, model.num_key_value_layers, 1, 4096);
  visit.Int({"key_value_group_size"}, model.key_value_group_size, 1, 4096);
  visit.Choice({"dtype"}, model.dtype, kDTypeNames);
}

template <class R, class V>
void VisitSource(R& source, V& visit) {
  visit.String({"path", "name_or_path"}, source.path);
  visit.Choice({"role"}, source.role, kRoleNames);
  visit.Int({"count", "sample_count", "max_rows"}, source.count, 0, kMaxSourceRows);
  visit.Number({"weight"}, source.weight, 0, 1e6);
  visit.ShareOrCount({"held_out"}, source.held_out, kMaxSourceRows);
  visit.String({"licence", "license"}, source.licence);
}

template <class R, class V>
void VisitSources(FieldNames names, R& sources, V& visit) {
  visit.List(
      names, sources, [](auto& source) -> auto& { return source.path; },
      [](auto& source, auto& inner) { VisitSource(source, inner); });
}

template <class R, class V>
void VisitData(R& data, V& visit) {
  VisitSources({"sources"}, data.sources, visit);
  visit.Int({"max_length"}, data.max_length, 2, 1 << 20);
  visit.Bool({"mask_inputs"}, data.mask_inputs);
  visit.Bool({"pack_samples"}, data.pack_samples);
  visit.Bool({"always_max_length"}, data.always_max_length);
  visit.Bool({"drop_last"}, data.drop_last);
  visit.Number({"fuse_positions_prob"}, data.fuse_positions_prob, 0, 1);
  visit.Synonyms(data);
}

template <class R, class V>
void VisitGenerate(R& generate, V& visit) {
  visit.Int({"count"}, generate.count, 0, kMaxSourceRows);
  visit.Int({"max_tokens"}, generate.max_tokens, 1, 1 << 20);
  visit.Number({"temperature"}, generate.temperature, 0, 100);
  visit.Number({"top_p"}, generate.top_p, kTiny, 1);
  visit.Number({"weight"}, generate.weight, 0, 1e6);
}

template <class R, class V>
void VisitOptimizer(R& optimizer, V& visit) {
  visit.Number({"learning_rate", "lr"}, optimizer.learning_rate, kTiny, 10);
  visit.Pair({"betas"}, optimizer.betas, 0, 1 - kTiny);
  visit.Number({"eps"}, optimizer.eps, kTiny, 1);
  visit.Number({"weight_decay"}, optimizer.weight_decay, 0, 10);
}

template <class R, class V>
void VisitScheduler(R& scheduler, V& visit) {
  visit.Choice({"name"}, scheduler.kind, kScheduleNames);
  visit.Number({"warmup_ratio"}, scheduler.warmup_ratio, 0, 1);
  visit.Int({"warmup_steps"}, scheduler.warmup_steps, 0, kMaxSteps);
  visit.Number({"min_lr_ratio"}, scheduler.min_lr_ratio, 0, 1);
}

template <class R, class V>
void VisitCheckpoint(R& checkpoint, V& visit) {
  visit.String({"output_dir"}, checkpoint.output_dir);
  visit.Int({"save_every_n_steps"}, checkpoint.save_every_n_steps, 0, kMaxSteps);
  visit.Int({"keep"}, checkpoint.keep, 1, 1000);
}

template <class R, class V>
void VisitRecipe(R& recipe, V& visit) {
  visit.Map({"model"}, [&](V& inner) { VisitModel(recipe.model, inner); });
  visit.Map({"data"}, [&](V& inner) { VisitData(recipe.data, inner); });
  visit.Map({"generate"}, [&](V& inner) { VisitGenerate(recipe.generate, inner); });
  visit.Int({"micro_batch_size"}, recipe.micro_batch_size, 1, 4096);
  visit.Int({"gradient_accumulation_steps"}, recipe.gradient_accumulation_steps, 1, 1 << 16);
  visit.Int({"epochs"}, recipe.epochs, 0, 1'000'000);
  visit.Int({"train_iters", "max_steps"}, recipe.train_iters, 0, kMaxSteps);
  visit.Int({"seed"}, recipe.seed, 0, INT64_MAX);
  visit.Number({"gradient_clipping"}, recipe.gradient_clipping, 0, 1e6);
  visit.Bool({"activation_checkpointing"}, recipe.activation_checkpointing);
  visit.Number({"logits_loss_temp", "temperature"}, recipe.logits_loss_temp, 1e-3, 1e3);
  visit.Number({"hidden_loss_mult"}, recipe.hidden_loss_mult, 0, 1e6);
  visit.Int({"hidden_loss_layer"}, recipe.hidden_loss_layer, -4096, 4096);
  visit.Choice({"hidden_loss_kind"}, recipe.hidden_loss_kind, kHiddenLossNames);
  visit.Map({"optimizer"}, [&](V& inner) { VisitOptimizer(recipe.optimizer, inner); });
  visit.Map({"scheduler"}, [&](V& inner) { VisitScheduler(recipe.scheduler, inner); });
  visit.Map({"checkpoint"}, [&](V& inner) { VisitCheckpoint(recipe.checkpoint, inner); });
  visit.Map({"eval"}, [&](V& inner) {
    inner.Int({"every_n_steps"}, recipe.eval.every_n_steps, 0, kMaxSteps);
    inner.Int({"tokens"}, recipe.eval.tokens, 1, kMaxSteps);
    inner.Synonyms(recipe.data);
  });
  visit.Synonyms(recipe);
}

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_RECIPE_FIELDS_H_
