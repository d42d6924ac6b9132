#include "distill/recipe_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/printable.h"

namespace swiftkv {
namespace {

// Keys of ArcticTraining's recipes that mean nothing here, with their places; "sources[]" stands for any source.
constexpr std::array<std::string_view, 52> kNoEffect = {"type",
                                                        "code",
                                                        "skip_validation",
                                                        "tokenizer",
                                                        "logger",
                                                        "wandb",
                                                        "deepspeed",
                                                        "loss_log_interval",
                                                        "train_log_iter_interval",
                                                        "train_log_metrics_path",
                                                        "sequence_parallel_size",
                                                        "activation_checkpoint_cpu_offload",
                                                        "tiled_mlp_compute",
                                                        "exit_iteration",
                                                        "min_iterations",
                                                        "overfit_first_batch",
                                                        "mem_profiler",
                                                        "mem_profiler_dir",
                                                        "mem_profiler_max_entries",
                                                        "kill_switch_path",
                                                        "step_timer",
                                                        "eval_log_iter_interval",
                                                        "model.type",
                                                        "model.save_name",
                                                        "model.attn_implementation",
                                                        "model.peft_config",
                                                        "data.type",
                                                        "data.num_proc",
                                                        "data.seed",
                                                        "data.use_data_cache",
                                                        "data.cache_processed_data",
                                                        "data.cache_dir",
                                                        "data.cache_fs_type",
                                                        "data.expand_to_dp_size",
                                                        "data.dl_num_workers",
                                                        "data.filter_samples",
                                                        "data.pad_to",
                                                        "data.div_length",
                                                        "data.sources[].type",
                                                        "data.sources[].split",
                                                        "data.sources[].process",
                                                        "data.sources[].kwargs",
                                                        "data.sources[].sample_seed",
                                                        "optimizer.type",
                                                        "scheduler.type",
                                                        "model.disable_activation_checkpoint",
                                                        "checkpoint.type",
                                                        "checkpoint.enabled",
                                                        "checkpoint.auto_resume",
                                                        "checkpoint.save_every_n_epochs",
                                                        "checkpoint.save_end_of_training",
                                                        "eval.type"};

std::string_view KindName(YamlValue::Kind kind) {
  switch (kind) {
    case YamlValue::Kind::kNull:
      return "nothing";
    case YamlValue::Kind::kScalar:
      return "a single value";
    case YamlValue::Kind::kList:
      return "a list";
    case YamlValue::Kind::kMap:
      return "a map";
  }
  return "";
}

// "data.sources[3].x" and "data.eval_sources[0].x" -> "data.sources[].x"
std::string GeneralPlace(const std::string& place) {
  const size_t open = place.find('[');
  const size_t close = place.find(']', open);
  if (open == std::string::npos || close == std::string::npos) return place;
  return "data.sources[]" + place.substr(close + 1);
}

// Insertions, deletions and replacements that turn `a` into `b`.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

template <class T>
std::optional<T> Parse(std::string_view text) {
  T value = {};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

RecipeReader::RecipeReader(const YamlValue& map, std::string place, RecipeReading* reading)
    : map_(map), place_(std::move(place)), reading_(reading) {}

void RecipeReader::Fail(const YamlValue& value, std::string_view name, std::string_view what) {
  if (reading_->error) return;
  reading_->error = InvalidInput("{}:{}: {}{} {}", reading_->origin, value.line, place_, name, what).value();
}

const YamlValue* RecipeReader::Take(FieldNames names, YamlValue::Kind kind) {
  const YamlValue* taken = nullptr;
  for (const std::string_view name : {names.name, names.second, names.third}) {
    if (name.empty()) continue;
    known_.push_back(name);
    const YamlValue* value = map_.Find(name);
    if (value == nullptr || value->kind == YamlValue::Kind::kNull) continue;
    if (taken != nullptr) Fail(*value, name, fmt::format("says the same as another key of {}", names.name));
    taken = value;
  }
  if (taken == nullptr || reading_->error) return nullptr;
  if (taken->kind != kind) {
    Fail(*taken, names.name, fmt::format("is {}, must be {}", KindName(taken->kind), KindName(kind)));
    return nullptr;
  }
  return taken;
}

std::optional<double> RecipeReader::ParseNumber(const YamlValue& value, std::string_view name, double low,
                                                double high) {
  const std::optional<double> number =
      value.kind == YamlValue::Kind::kScalar ? Parse<double>(value.scalar) : std::nullopt;
  if (number && *number >= low && *number <= high) return number;
  Fail(value, name, fmt::format("is {}, must be a number from {} to {}", Printable(value.scalar), low, high));
  return std::nullopt;
}

std::optional<int64_t> RecipeReader::ParseInt(const YamlValue& value, std::string_view name, int64_t low,
                                              int64_t high) {
  const std::optional<int64_t> number = Parse<int64_t>(value.scalar);
  if (number && *number >= low && *number <= high) return number;
  Fail(value, name, fmt::format("is {}, must be a whole number from {} to {}", Printable(value.scalar), low, high));
  return std::nullopt;
}

void RecipeReader::String(FieldNames names, std::string& target) {
  if (const YamlValue* value = Take(names, YamlValue::Kind::kScalar)) target = value->scalar;
}

void RecipeReader::Int(FieldNames names, int64_t& target, int64_t low, int64_t high) {
  const YamlValue* value = Take(names, YamlValue::Kind::kScalar);
  if (value == nullptr) return;
  if (const auto number = ParseInt(*value, names.name, low, high)) target = *number;
}

void RecipeReader::Int(FieldNames names, std::optional<int64_t>& target, int64_t low, int64_t high) {
  const YamlValue* value = Take(names, YamlValue::Kind::kScalar);
  if (value == nullptr) return;
  if (const auto number = ParseInt(*value, names.name, low, high)) target = *number;
}

void RecipeReader::Number(FieldNames names, double& target, double low, double high) {
  const YamlValue* value = Take(names, YamlValue::Kind::kScalar);
  if (value == nullptr) return;
  if (const auto number = ParseNumber(*value, names.name, low, high)) target = *number;
}

void RecipeReader::ShareOrCount(FieldNames names, double& target, int64_t high) {
  const YamlValue* value = Take(names, YamlValue::Kind::kScalar);
  if (value == nullptr) return;
  const auto number = ParseNumber(*value, names.name, 0, static_cast<double>(high));
  if (!number) return;
  if (*number >= 1 && *number != std::floor(*number)) {
    return Fail(*value, names.name, "must be a share below 1 or a whole number of rows");
  }
  target = *number;
}

void RecipeReader::Bool(FieldNames names, bool& target) {
  const YamlValue* value = Take(names, YamlValue::Kind::kScalar);
  if (value == nullptr) return;
  constexpr std::array<std::string_view, 6> kTrue = {"true", "True", "TRUE", "yes", "Yes", "on"};
  constexpr std::array<std::string_view, 6> kFalse = {"false", "False", "FALSE", "no", "No", "off"};
  const bool is_true = std::find(kTrue.begin(), kTrue.end(), value->scalar) != kTrue.end();
  if (!is_true && std::find(kFalse.begin(), kFalse.end(), value->scalar) == kFalse.end()) {
    return Fail(*value, names.name, fmt::format("is {}, must be true or false", Printable(value->scalar)));
  }
  target = is_true;
}

void RecipeReader::Pair(FieldNames names, std::array<double, 2>& target, double low, double high) {
  const YamlValue* value = Take(names, YamlValue::Kind::kList);
  if (value == nullptr) return;
  if (value->items.size() != 2) return Fail(*value, names.name, "must be a list of two numbers");
  for (size_t i = 0; i < 2; ++i) {
    const auto number = ParseNumber(value->items[i], fmt::format("{}[{}]", names.name, i), low, high);
    if (!number) return;
    target[i] = *number;
  }
}

void RecipeReader::Synonyms(Recipe& recipe) {
  Int({"eval_interval", "eval_frequency"}, recipe.eval.every_n_steps, 0, kMaxSteps);
  std::string type = "swiftkv";
  String({"type"}, type);
  if (type != "swiftkv") Fail(*map_.Find("type"), "type", fmt::format("is {}, must be swiftkv", Printable(type)));
  std::string preset;  // read before all other keys
  String({"preset"}, preset);
}

void RecipeReader::Synonyms(DataRecipe& data) {
  std::vector<SourceRecipe> sources;
  VisitSources({place_ == "eval." ? "sources" : "eval_sources"}, sources, *this);
  for (SourceRecipe& source : sources) {
    source.role = SourceRole::kEval;
    data.sources.push_back(std::move(source));
  }
  if (place_ != "data.") return;
  std::array<double, 2> split = {1, 0};
  Pair({"train_eval_split"}, split, 0, 1);
  for (SourceRecipe& source : data.sources) {
    if (source.role == SourceRole::kTrain && source.held_out == 0) source.held_out = std::min(split[1], 1 - kTiny);
  }
}

void RecipeReader::Finish() {
  if (reading_->error) return;
  for (size_t i = 0; i < map_.keys.size(); ++i) {
    const std::string& key = map_.keys[i];
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const std::string place = place_ + key;
    if (std::find(kNoEffect.begin(), kNoEffect.end(), GeneralPlace(place)) != kNoEffect.end()) {
      reading_->no_effect.push_back(place);
      continue;
    }
    const auto nearest = std::min_element(known_.begin(), known_.end(), [&](std::string_view a, std::string_view b) {
      return EditDistance(key, a) < EditDistance(key, b);
    });
    reading_->warnings.push_back(fmt::format("{}:{}: unknown key {}{} is passed over (the nearest known one is {})",
                                             reading_->origin, map_.items[i].line, place_, Printable(key), *nearest));
  }
}

}  // namespace swiftkv
