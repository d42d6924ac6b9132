#include "grammar/schema_document.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "grammar/json_text.h"

namespace swiftkv {
namespace {

using Names = std::vector<std::string>;

// Say nothing about values, or nothing that a validator must check: format, and OpenAPI's discriminator, which says
// which schema of a oneOf is meant by what those schemas say themselves.
constexpr std::array kAnnotations = {"$schema", "$id",         "$comment", "$defs",      "definitions",
                                     "title",   "default",     "examples", "readOnly",   "writeOnly",
                                     "format",  "description", "$anchor",  "deprecated", "discriminator"};
// A schema has one of these at most.
constexpr std::array kShapes = {"$ref", "allOf", "anyOf", "oneOf", "const", "enum"};

struct TypedKeyword {
  std::string_view keyword;
  std::string_view type;
};
constexpr std::array kTyped = {TypedKeyword{"properties", "object"},
                               TypedKeyword{"required", "object"},
                               TypedKeyword{"additionalProperties", "object"},
                               TypedKeyword{"items", "array"},
                               TypedKeyword{"prefixItems", "array"},
                               TypedKeyword{"minItems", "array"},
                               TypedKeyword{"maxItems", "array"},
                               TypedKeyword{"uniqueItems", "array"},
                               TypedKeyword{"minLength", "string"},
                               TypedKeyword{"maxLength", "string"},
                               TypedKeyword{"pattern", "string"},
                               TypedKeyword{"minimum", "number"},
                               TypedKeyword{"maximum", "number"},
                               TypedKeyword{"exclusiveMinimum", "number"},
                               TypedKeyword{"exclusiveMaximum", "number"}};
constexpr std::array kTypes = {"object", "array", "string", "number", "integer", "boolean", "null"};

template <class List>
bool Contains(const List& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

const TypedKeyword* FindTyped(std::string_view keyword) {
  const auto found =
      std::find_if(kTyped.begin(), kTyped.end(), [&](const TypedKeyword& t) { return t.keyword == keyword; });
  return found == kTyped.end() ? nullptr : &*found;
}

Result<Names> NamedTypes(const SchemaNode& node, const SchemaJson& type) {
  Names names;
  for (const SchemaJson& name : type.is_array() ? type : SchemaJson::array({type})) {
    if (!name.is_string() || !Contains(kTypes, name.get_ref<const std::string&>())) {
      return node.Invalid("'type' names '{}', which is no type of JSON Schema", name.dump());
    }
    names.push_back(name.get<std::string>());
  }
  if (names.empty()) return node.Invalid("'type' is an empty list");
  return names;
}

bool TypesMeet(const Names& a, const Names& b) {
  const auto meets = [&](const std::string& type) {
    return Contains(b, type) || (type == "integer" && Contains(b, "number")) ||
           (type == "number" && Contains(b, "integer"));
  };
  return std::any_of(a.begin(), a.end(), meets);
}

size_t ListSize(const SchemaNode& node, const char* keyword) {
  const SchemaJson* list = node.Find(keyword);
  return list == nullptr ? 0 : list->size();
}

// A part of a JSON pointer with ~1 and ~0 put back.
std::string Unescape(std::string_view part) {
  std::string name;
  for (size_t i = 0; i < part.size(); ++i) {
    const bool escaped = part[i] == '~' && i + 1 < part.size() && (part[i + 1] == '0' || part[i + 1] == '1');
    name.push_back(!escaped ? part[i] : part[++i] == '0' ? '~' : '/');
  }
  return name;
}

const SchemaJson* Step(const SchemaJson& json, const std::string& name) {
  if (json.is_object()) {
    const auto found = json.find(name);
    return found == json.end() ? nullptr : &*found;
  }
  size_t index = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  const bool valid = json.is_array() && error == std::errc() && end == name.data() + name.size();
  return valid && index < json.size() ? &json[index] : nullptr;
}

}  // namespace

SchemaNode SchemaNode::Child(std::string_view name) const {
  return {&json->at(std::string(name)), fmt::format("{}/{}", place, name)};
}

SchemaNode SchemaNode::Child(std::string_view list, size_t index) const {
  return {&json->at(std::string(list)).at(index), fmt::format("{}/{}/{}", place, list, index)};
}

const SchemaJson* SchemaNode::Find(const char* keyword) const {
  if (!json->is_object()) return nullptr;
  const auto found = json->find(keyword);
  return found == json->end() ? nullptr : &*found;
}

Result<SchemaNode> SchemaDocument::Follow(const SchemaNode& node) const {
  const SchemaJson& reference = node.json->at("$ref");
  if (!reference.is_string()) return node.Invalid("'$ref' is not a string");
  std::string_view rest = reference.get_ref<const std::string&>();
  if (const auto known = followed_.find(rest); known != followed_.end()) return SchemaNode{known->second, known->first};
  const SchemaNode target{&root_, std::string(rest)};
  if (!rest.starts_with("#") || (rest.size() > 1 && rest[1] != '/')) {
    return node.Invalid("'$ref' is '{}'; only places in the same document, #/..., are supported", rest);
  }
  const SchemaJson* json = &root_;
  for (rest.remove_prefix(1); !rest.empty() && json != nullptr;) {
    rest.remove_prefix(1);  // the slash
    const size_t end = std::min(rest.find('/'), rest.size());
    json = Step(*json, Unescape(rest.substr(0, end)));
    rest.remove_prefix(end);
  }
  if (json == nullptr) return node.Invalid("'$ref' leads to '{}', which does not exist", target.place);
  followed_.emplace(target.place, json);
  return SchemaNode{json, target.place};
}

Result<SchemaNode> SchemaDocument::Resolve(SchemaNode node) const {
  constexpr int kMaxHops = 64;
  for (int hop = 0; hop < kMaxHops; ++hop) {
    SWIFTKV_RETURN_IF_ERROR(CheckKeywords(node));
    if (node.Find("$ref") != nullptr) {
      SWIFTKV_ASSIGN_OR_RETURN(node, Follow(node));
    } else if (const SchemaJson* all = node.Find("allOf")) {
      if (!all->is_array() || all->size() != 1) return node.Invalid("'allOf' of more than one schema is not supported");
      node = node.Child("allOf", 0);
    } else {
      return node;
    }
  }
  return node.Invalid("'$ref' leads in a circle, or through more than {} others", kMaxHops);
}

Status SchemaDocument::CheckKeywords(const SchemaNode& node) const {
  if (node.json->is_boolean()) return Ok();
  if (!node.json->is_object()) return node.Invalid("a schema must be an object or a boolean");
  std::string shape;
  std::string other;
  for (const auto& [keyword, value] : node.json->items()) {
    if (Contains(kAnnotations, keyword)) continue;
    if (Contains(kShapes, keyword)) {
      if (!shape.empty()) return node.Invalid("'{}' beside '{}' is not supported", keyword, shape);
      shape = keyword;
    } else if (FindTyped(keyword) != nullptr) {
      other = keyword;
    } else if (keyword != "type") {
      return node.Invalid("the keyword '{}' is not supported", keyword);
    }
  }
  if (!shape.empty() && !other.empty()) return node.Invalid("'{}' beside '{}' is not supported", other, shape);
  const bool types_are_told = shape == "$ref" || shape == "allOf" || shape == "anyOf" || shape == "oneOf";
  if (types_are_told && node.Find("type") != nullptr) {
    return node.Invalid("'type' beside '{}' is not supported", shape);
  }
  return Ok();
}

// Types of all values that satisfy a schema: without `type`, its keywords say nothing about other types.
Result<Names> SchemaDocument::SatisfyingTypes(const SchemaNode& node) const {
  const bool any = node.Find("type") == nullptr && node.Find("const") == nullptr && node.Find("enum") == nullptr;
  return any ? Names(kTypes.begin(), kTypes.end()) : Types(node);
}

Result<Names> SchemaDocument::Types(const SchemaNode& node) const {
  if (const SchemaJson* type = node.Find("type")) return NamedTypes(node, *type);
  Names types;
  SWIFTKV_ASSIGN_OR_RETURN(const auto constants, Constants(node));
  if (constants) {
    for (const SchemaJson* value : *constants) types.push_back(TypeName(*value));
    return types;
  }
  if (node.json->is_object()) {
    for (const auto& [keyword, value] : node.json->items()) {
      if (const TypedKeyword* typed = FindTyped(keyword)) types.emplace_back(typed->type);
    }
  }
  if (types.empty()) return Names(kTypes.begin(), kTypes.end());
  std::sort(types.begin(), types.end());
  types.erase(std::unique(types.begin(), types.end()), types.end());
  return types;
}

// Small schemas can ask for very many comparisons, by references to large ones.
Status SchemaDocument::Spend(const SchemaNode& node, size_t comparisons) const {
  constexpr size_t kMaxComparisons = 500'000;
  comparisons_ += comparisons;
  if (comparisons_ <= kMaxComparisons) return Ok();
  return node.Invalid("the schemas of 'oneOf' have too much to compare; the limit is {}", kMaxComparisons);
}

Result<bool> SchemaDocument::Disjoint(const SchemaNode& a, const SchemaNode& b, int depth) const {
  constexpr int kMaxDepth = 3;
  SWIFTKV_ASSIGN_OR_RETURN(const SchemaNode x, Resolve(a));
  SWIFTKV_ASSIGN_OR_RETURN(const SchemaNode y, Resolve(b));
  SWIFTKV_RETURN_IF_ERROR(Spend(x, ListSize(x, "enum") + ListSize(y, "enum")));
  SWIFTKV_ASSIGN_OR_RETURN(const Names x_types, Types(x));
  SWIFTKV_ASSIGN_OR_RETURN(const Names y_types, Types(y));
  const auto has_options = [](const SchemaNode& node) {
    return node.Find("anyOf") != nullptr || node.Find("oneOf") != nullptr;
  };
  if (has_options(x) || has_options(y)) return false;
  SWIFTKV_RETURN_IF_ERROR(Spend(x, 1 + ListSize(x, "enum") * ListSize(y, "enum")));
  SWIFTKV_ASSIGN_OR_RETURN(const Names x_satisfying, SatisfyingTypes(x));
  SWIFTKV_ASSIGN_OR_RETURN(const Names y_satisfying, SatisfyingTypes(y));
  if (!TypesMeet(x_types, y_satisfying) && !TypesMeet(x_satisfying, y_types)) return true;
  SWIFTKV_ASSIGN_OR_RETURN(const auto x_constants, Constants(x));
  SWIFTKV_ASSIGN_OR_RETURN(const auto y_constants, Constants(y));
  if (x_constants && y_constants) {
    return std::none_of(x_constants->begin(), x_constants->end(), [&](const SchemaJson* value) {
      return std::any_of(y_constants->begin(), y_constants->end(),
                         [&](const SchemaJson* other) { return ValueId(*value) == ValueId(*other); });
    });
  }
  if (depth == kMaxDepth || x_types != Names{"object"} || y_types != Names{"object"}) return false;
  return TagsDiffer(x, y, depth);
}

// The same for equal values, the order of members aside. Each value is looked at once: it may be large, and compared
// often.
int SchemaDocument::ValueId(const SchemaJson& value) const {
  const auto [known, is_new] = ids_of_places_.try_emplace(&value, 0);
  if (is_new) known->second = ids_of_values_.try_emplace(value, static_cast<int>(ids_of_values_.size())).first->second;
  return known->second;
}

// Whether a member that both objects require can't be the same in both.
Result<bool> SchemaDocument::TagsDiffer(const SchemaNode& a, const SchemaNode& b, int depth) const {
  SWIFTKV_RETURN_IF_ERROR(Spend(a, ListSize(a, "required") + ListSize(b, "required")));
  SWIFTKV_ASSIGN_OR_RETURN(const std::set<std::string> a_required, RequiredMembers(a));
  SWIFTKV_ASSIGN_OR_RETURN(const std::set<std::string> b_required, RequiredMembers(b));
  const SchemaJson* a_properties = a.Find("properties");
  const SchemaJson* b_properties = b.Find("properties");
  if (a_properties == nullptr || b_properties == nullptr) return false;
  for (const std::string& name : a_required) {
    SWIFTKV_RETURN_IF_ERROR(Spend(a, a_properties->size() + b_properties->size()));
    if (!b_required.contains(name) || !a_properties->contains(name) || !b_properties->contains(name)) continue;
    SWIFTKV_ASSIGN_OR_RETURN(const bool disjoint,
                             Disjoint(a.Child("properties").Child(name), b.Child("properties").Child(name), depth + 1));
    if (disjoint) return true;
  }
  return false;
}

Result<std::optional<std::vector<const SchemaJson*>>> Constants(const SchemaNode& node) {
  if (const SchemaJson* value = node.Find("const")) return std::vector{value};
  const SchemaJson* values = node.Find("enum");
  if (values == nullptr) return std::nullopt;
  if (!values->is_array() || values->empty()) return node.Invalid("'enum' must be a list of values");
  std::vector<const SchemaJson*> constants;
  for (const SchemaJson& value : *values) constants.push_back(&value);
  return constants;
}

std::string TypeName(const SchemaJson& value) {
  if (!value.is_number()) return value.type_name();
  if (value.is_number_integer()) return "integer";
  const auto number = value.get<double>();
  const bool whole = number == std::floor(number) && std::abs(number) <= static_cast<double>(kMaxJsonNumber);
  return whole ? "integer" : "number";
}

Result<std::set<std::string>> RequiredMembers(const SchemaNode& node) {
  std::set<std::string> names;
  const SchemaJson* required = node.Find("required");
  if (required == nullptr) return names;
  if (!required->is_array()) return node.Invalid("'required' must be a list of names");
  for (const SchemaJson& name : *required) {
    if (!name.is_string()) return node.Invalid("'required' must be a list of names");
    names.insert(name.get<std::string>());
  }
  return names;
}

}  // namespace swiftkv
