#include "distill/recipe.h"

#include <yaml-cpp/emitter.h>

#include <algorithm>
#include <cmath>

#include "base/printable.h"
#include "distill/recipe_fields.h"
#include "distill/recipe_reader.h"
#include "distill/yaml_value.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

// Checks every field against its limits.
class Checker {
 public:
  Checker(std::string place, std::optional<Error>* error) : place_(std::move(place)), error_(error) {}

  void String(FieldNames names, const std::string& value) {
    constexpr size_t kMaxBytes = 4096;
    if (value.size() > kMaxBytes || value.find('\0') != std::string::npos || !IsValidUtf8(value)) {
      Fail(names, "must be at most {} bytes of valid UTF-8 without a zero among them", kMaxBytes);
    }
  }
  void Int(FieldNames names, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) Fail(names, "is {}, must be from {} to {}", value, low, high);
  }
  void Int(FieldNames names, std::optional<int64_t> value, int64_t low, int64_t high) {
    if (value) Int(names, *value, low, high);
  }
  void Number(FieldNames names, double value, double low, double high) {
    if (!(value >= low && value <= high)) Fail(names, "is {}, must be from {} to {}", value, low, high);
  }
  void ShareOrCount(FieldNames names, double value, int64_t high) {
    Number(names, value, 0, static_cast<double>(high));
    if (value >= 1 && value != std::floor(value)) Fail(names, "must be a share below 1 or a whole number of rows");
  }
  void Bool(FieldNames /*names*/, bool /*value*/) {}
  void Pair(FieldNames names, const std::array<double, 2>& value, double low, double high) {
    for (const double number : value) Number(names, number, low, high);
  }
  template <class T, class Table>
  void Choice(FieldNames names, T value, const Table& table) {
    for (const auto& choice : table) {
      if (choice.value == value) return;
    }
    Fail(names, "is none of the values that it may have");
  }
  template <class Body>
  void Map(FieldNames names, const Body& body) {
    Checker inner(fmt::format("{}{}.", place_, names.name), error_);
    body(inner);
  }
  template <class T, class Word, class Body>
  void List(FieldNames names, const std::vector<T>& list, const Word& /*word*/, const Body& body) {
    for (size_t i = 0; i < list.size(); ++i) {
      Checker inner(fmt::format("{}{}[{}].", place_, names.name, i), error_);
      body(list[i], inner);
    }
  }
  template <class T>
  void Synonyms(const T& /*part*/) {}

 private:
  template <class... Args>
  void Fail(FieldNames names, fmt::format_string<Args...> format, Args&&... args) {
    if (*error_) return;
    *error_ = InvalidInput("{}{} {}", place_, names.name, fmt::format(format, std::forward<Args>(args)...)).value();
  }

  std::string place_;
  std::optional<Error>* error_;
};

class Writer {
 public:
  explicit Writer(YAML::Emitter* out) : out_(*out) {}

  void String(FieldNames names, const std::string& value) {
    if (!value.empty()) Key(names) << value;
  }
  void Int(FieldNames names, int64_t value, int64_t /*low*/, int64_t /*high*/) { Key(names) << value; }
  void Int(FieldNames names, std::optional<int64_t> value, int64_t /*low*/, int64_t /*high*/) {
    if (value) Key(names) << *value;
  }
  void Number(FieldNames names, double value, double /*low*/, double /*high*/) {
    Key(names) << fmt::format("{}", value);
  }
  void ShareOrCount(FieldNames names, double value, int64_t /*high*/) { Key(names) << fmt::format("{}", value); }
  void Bool(FieldNames names, bool value) { Key(names) << value; }
  void Pair(FieldNames names, const std::array<double, 2>& value, double /*low*/, double /*high*/) {
    Key(names) << YAML::Flow << YAML::BeginSeq;
    for (const double number : value) out_ << fmt::format("{}", number);
    out_ << YAML::EndSeq;
  }
  template <class T, class Table>
  void Choice(FieldNames names, T value, const Table& table) {
    const auto choice =
        std::find_if(table.begin(), table.end(), [&](const auto& entry) { return entry.value == value; });
    if (choice != table.end()) Key(names) << std::string(choice->name);
  }
  template <class Body>
  void Map(FieldNames names, const Body& body) {
    Key(names) << YAML::BeginMap;
    body(*this);
    out_ << YAML::EndMap;
  }
  template <class T, class Word, class Body>
  void List(FieldNames names, const std::vector<T>& list, const Word& /*word*/, const Body& body) {
    Key(names) << YAML::BeginSeq;
    for (const T& item : list) {
      out_ << YAML::BeginMap;
      body(item, *this);
      out_ << YAML::EndMap;
    }
    out_ << YAML::EndSeq;
  }
  template <class T>
  void Synonyms(const T& /*part*/) {}

 private:
  YAML::Emitter& Key(FieldNames names) { return out_ << YAML::Key << std::string(names.name) << YAML::Value; }

  YAML::Emitter& out_;
};

bool IsHuggingFace(const YamlValue& engine) {
  const YamlValue* type = engine.Find("type");
  return type != nullptr && type->scalar == "huggingface";
}

// ArcticTraining has checkpoint as a list of engines; here there is one, and of several the one whose files this
// program writes.
Status UnwrapCheckpoint(YamlValue* root, const std::string& origin, std::vector<std::string>* warnings) {
  for (size_t i = 0; i < root->keys.size(); ++i) {
    YamlValue& value = root->items[i];
    if (root->keys[i] != "checkpoint" || value.kind != YamlValue::Kind::kList) continue;
    std::vector<YamlValue>& engines = value.items;
    auto chosen = engines.begin();
    if (engines.size() != 1) {
      chosen = std::find_if(engines.begin(), engines.end(), IsHuggingFace);
      if (chosen == engines.end() || std::count_if(engines.begin(), engines.end(), IsHuggingFace) > 1) {
        return InvalidInput("{}:{}: checkpoint has {} entries; one of them, and no more, must be of type huggingface",
                            origin, value.line, engines.size());
      }
      warnings->push_back(fmt::format("{}:{}: of checkpoint's {} entries only the one of type huggingface counts",
                                      origin, value.line, engines.size()));
    }
    YamlValue only = std::move(*chosen);
    value = std::move(only);
  }
  return Ok();
}

// The gradient clipping that a deepspeed section asks for, the one thing there that has a meaning here.
Status ReadDeepspeed(const YamlValue& root, RecipeReading* reading, Recipe* recipe) {
  const YamlValue* deepspeed = root.Find("deepspeed");
  if (deepspeed == nullptr || deepspeed->kind != YamlValue::Kind::kMap) return Ok();
  RecipeReader reader(*deepspeed, "deepspeed.", reading);
  reader.Number({"gradient_clipping"}, recipe->gradient_clipping, 0, 1e6);
  if (reading->error) return tl::unexpected<Error>(*reading->error);
  return Ok();
}

Result<Recipe> StartingRecipe(const YamlValue& root, const std::string& origin) {
  const auto says = [&](std::string_view key) {
    const YamlValue* value = root.Find(key);
    return value != nullptr && value->kind != YamlValue::Kind::kNull;
  };
  if (!says("preset")) {
    // ArcticTraining's own recipes name the layer and leave hidden_loss_mult to its default there, which is not 0.
    return says("hidden_loss_layer") ? PresetRecipe("arctic") : Recipe();
  }
  const YamlValue* preset = root.Find("preset");
  Result<Recipe> recipe = PresetRecipe(preset->scalar);
  if (!recipe) return InvalidInput("{}:{}: preset: {}", origin, preset->line, recipe.error().message);
  return recipe;
}

}  // namespace

int64_t SchedulerRecipe::WarmupSteps(int64_t steps) const {
  return std::min(steps, warmup_steps.value_or(std::llround(std::ceil(warmup_ratio * static_cast<double>(steps)))));
}

Result<Recipe> PresetRecipe(std::string_view name) {
  Recipe recipe;
  if (name == "paper") {
    recipe.data.mask_inputs = false;
    recipe.hidden_loss_mult = 0;
  } else if (name == "arctic") {
    recipe.data.mask_inputs = true;
    recipe.hidden_loss_mult = 1;
  } else {
    return InvalidInput("there is no recipe named {} (known: paper, arctic)", Printable(name));
  }
  return recipe;
}

Result<Recipe> ParseRecipe(std::string_view yaml, const std::string& origin, std::vector<std::string>* warnings) {
  SWIFTKV_ASSIGN_OR_RETURN(YamlValue root, ParseYaml(yaml, origin));
  if (root.kind != YamlValue::Kind::kMap) return InvalidInput("{}: a recipe must be a YAML map", origin);
  SWIFTKV_RETURN_IF_ERROR(UnwrapCheckpoint(&root, origin, warnings));
  SWIFTKV_ASSIGN_OR_RETURN(Recipe recipe, StartingRecipe(root, origin));
  RecipeReading reading{.origin = origin, .error = {}, .warnings = {}, .no_effect = {}};
  SWIFTKV_RETURN_IF_ERROR(ReadDeepspeed(root, &reading, &recipe));
  RecipeReader reader(root, "", &reading);
  VisitRecipe(recipe, reader);
  reader.Finish();
  if (reading.error) return tl::unexpected<Error>(*reading.error);
  SWIFTKV_RETURN_IF_ERROR(CheckRecipe(recipe, origin));
  warnings->insert(warnings->end(), reading.warnings.begin(), reading.warnings.end());
  if (!reading.no_effect.empty()) {
    std::string all;
    for (const std::string& key : reading.no_effect) all += fmt::format("{}{}", all.empty() ? "" : ", ", key);
    warnings->push_back(fmt::format("{}: no effect here: {}", origin, all));
  }
  return recipe;
}

Status CheckRecipe(const Recipe& recipe, const std::string& origin) {
  std::optional<Error> error;
  Checker checker(fmt::format("{}: ", origin), &error);
  VisitRecipe(recipe, checker);
  if (error) return tl::unexpected<Error>(*error);
  if (recipe.data.sources.size() > kMaxSources) {
    return InvalidInput("{}: {} sources, the limit is {}", origin, recipe.data.sources.size(), kMaxSources);
  }
  for (size_t i = 0; i < recipe.data.sources.size(); ++i) {
    if (recipe.data.sources[i].path.empty()) return InvalidInput("{}: data.sources[{}] has no path", origin, i);
  }
  if (recipe.epochs == 0 && recipe.train_iters == 0) {
    return InvalidInput("{}: epochs or train_iters must be at least 1", origin);
  }
  return Ok();
}

std::string ToYaml(const Recipe& recipe) {
  YAML::Emitter emitter;
  emitter << YAML::BeginMap << YAML::Key << "type" << YAML::Value << "swiftkv";
  Writer writer(&emitter);
  VisitRecipe(recipe, writer);
  emitter << YAML::EndMap;
  return std::string(emitter.c_str()) + "\n";
}

}  // namespace swiftkv
