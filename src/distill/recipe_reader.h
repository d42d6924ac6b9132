// The visitor that fills a recipe from a YAML map.
#ifndef SWIFTKV_DISTILL_RECIPE_READER_H_
#define SWIFTKV_DISTILL_RECIPE_READER_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "distill/recipe.h"
#include "distill/recipe_fields.h"
#include "distill/yaml_value.h"

namespace swiftkv {

// Shared by the readers of one file.
struct RecipeReading {
  std::string origin;
  std::optional<Error> error;  // the first
  std::vector<std::string> warnings;
  std::vector<std::string> no_effect;  // keys that ArcticTraining knows and that mean nothing here
};

// After the first error nothing more is read. Keys that nobody asked for are warned of by Finish.
class RecipeReader {
 public:
  // `place`: "" for the whole file, "data.", "data.sources[0]."
  RecipeReader(const YamlValue& map, std::string place, RecipeReading* reading);

  void String(FieldNames names, std::string& target);
  void Int(FieldNames names, int64_t& target, int64_t low, int64_t high);
  void Int(FieldNames names, std::optional<int64_t>& target, int64_t low, int64_t high);
  void Number(FieldNames names, double& target, double low, double high);
  void ShareOrCount(FieldNames names, double& target, int64_t high);
  void Bool(FieldNames names, bool& target);
  void Pair(FieldNames names, std::array<double, 2>& target, double low, double high);

  template <class T, class Table>
  void Choice(FieldNames names, T& target, const Table& table) {
    const YamlValue* value = Take(names, YamlValue::Kind::kScalar);
    if (value == nullptr) return;
    std::string known;
    for (const auto& choice : table) {
      if (choice.name == value->scalar) {
        target = choice.value;
        return;
      }
      known += fmt::format("{}{}", known.empty() ? "" : ", ", choice.name);
    }
    Fail(*value, names.name, fmt::format("must be one of: {}", known));
  }

  template <class Body>
  void Map(FieldNames names, const Body& body) {
    const YamlValue* value = Take(names, YamlValue::Kind::kMap);
    if (value == nullptr) return;
    RecipeReader inner(*value, fmt::format("{}{}.", place_, names.name), reading_);
    body(inner);
    inner.Finish();
  }

  // A list of maps, of which a mere word stands for the member `word(item)`. Replaces `target`.
  template <class T, class Word, class Body>
  void List(FieldNames names, std::vector<T>& target, const Word& word, const Body& body) {
    const YamlValue* list = Take(names, YamlValue::Kind::kList);
    if (list == nullptr) return;
    target.clear();
    for (size_t i = 0; i < list->items.size(); ++i) {
      const YamlValue& value = list->items[i];
      T& item = target.emplace_back();
      if (value.kind == YamlValue::Kind::kScalar) {
        word(item) = value.scalar;
        continue;
      }
      if (value.kind != YamlValue::Kind::kMap) {
        return Fail(value, fmt::format("{}[{}]", names.name, i), "must be a path or a map");
      }
      RecipeReader inner(value, fmt::format("{}{}[{}].", place_, names.name, i), reading_);
      body(item, inner);
      inner.Finish();
    }
  }

  // What ArcticTraining says in other ways.
  void Synonyms(Recipe& recipe);
  void Synonyms(DataRecipe& data);

  // Warns of the map's unknown keys.
  void Finish();

 private:
  // The value of the one of `names` that is there, if it is not null. Error if it is of another kind.
  const YamlValue* Take(FieldNames names, YamlValue::Kind kind);
  void Fail(const YamlValue& value, std::string_view name, std::string_view what);
  std::optional<double> ParseNumber(const YamlValue& value, std::string_view name, double low, double high);
  std::optional<int64_t> ParseInt(const YamlValue& value, std::string_view name, int64_t low, int64_t high);

  const YamlValue& map_;
  std::string place_;
  RecipeReading* reading_;
  std::vector<std::string_view> known_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_RECIPE_READER_H_
