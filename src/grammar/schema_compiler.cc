#include "grammar/schema_compiler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace swiftkv {
namespace {

// A count (minItems, maxLength, ...): a number from 0, whole even if it is written 3.0.
Result<std::optional<int64_t>> Count(const SchemaNode& node, const char* keyword) {
  const SchemaJson* json = node.Find(keyword);
  if (json == nullptr) return std::nullopt;
  const double value = json->is_number() ? json->get<double>() : -1;
  if (!(value >= 0) || value != std::floor(value)) return node.Invalid("'{}' must be a whole number from 0", keyword);
  return static_cast<int64_t>(std::min(value, static_cast<double>(kMaxJsonNumber)));
}

struct Bound {
  int64_t value = 0;
  bool excluded = false;
};

// A bound of numbers; nullopt where all that can be written keeps it. `round`: to the next integer that it lets
// through.
Result<std::optional<Bound>> NumberBound(const SchemaNode& node, const char* keyword, bool integer,
                                         double (*round)(double)) {
  const SchemaJson* json = node.Find(keyword);
  if (json == nullptr) return std::nullopt;
  if (!json->is_number()) return node.Invalid("'{}' must be a number", keyword);
  const auto value = json->get<double>();
  const bool whole = value == std::floor(value);
  if (!whole && !integer) return node.Invalid("'{}' is {}; numbers may have whole bounds only", keyword, value);
  constexpr auto kLimit = static_cast<double>(kMaxJsonNumber);
  const bool is_lower = std::string_view(keyword).ends_with("inimum");
  if (is_lower ? value < -kLimit : value > kLimit) return std::nullopt;  // such as JavaScript's safe integers
  if (!(std::abs(value) <= kLimit))
    return node.Invalid("'{}' is {}; bounds reach to {}", keyword, value, kMaxJsonNumber);
  const bool excluded = whole && std::string_view(keyword).starts_with("exclusive");
  return Bound{static_cast<int64_t>(round(value)), excluded};
}

// The narrower of an including and an excluding bound; `sign` 1 for lower bounds, -1 for upper ones.
std::optional<Bound> Narrower(const std::optional<Bound>& a, const std::optional<Bound>& b, int sign) {
  if (!a || !b) return a ? a : b;
  if (a->value != b->value) return a->value * sign > b->value * sign ? a : b;
  return a->excluded ? a : b;
}

bool HasType(const SchemaJson& value, const std::vector<std::string>& types) {
  const auto is = [&](const char* type) { return std::find(types.begin(), types.end(), type) != types.end(); };
  const std::string type = TypeName(value);
  return is(type.c_str()) || (type == "integer" && is("number"));
}

// The text of a value of `enum` or `const`. Programs read 2.0 as no integer, though to JSON Schema it is one.
std::string ConstantText(const SchemaJson& value) {
  const bool has_point = value.is_number_float() && TypeName(value) == "integer";
  return has_point ? std::to_string(value.get<int64_t>()) : value.dump();
}

}  // namespace

Result<Rule> SchemaCompiler::Compile() {
  SWIFTKV_ASSIGN_OR_RETURN(const Rule root, RuleOf(document_.root()));
  while (!waiting_.empty()) {
    const auto [node, rule] = std::move(waiting_.back());
    waiting_.pop_back();
    SWIFTKV_RETURN_IF_ERROR(CompileSchema(node, rule));
    if (builder_.full())
      return node.Invalid("the schema is too large: it needs more than {} states or {} edges",
                          AutomatonBuilder::kMaxStates, AutomatonBuilder::kMaxEdges);
  }
  return root;
}

Result<Rule> SchemaCompiler::RuleOf(const SchemaNode& node) {
  SWIFTKV_ASSIGN_OR_RETURN(SchemaNode resolved, document_.Resolve(node));
  const auto [found, added] = rules_.try_emplace(resolved.json);
  if (added) {
    found->second = builder_.NewRule();
    waiting_.emplace_back(std::move(resolved), found->second);
  }
  return found->second;
}

Status SchemaCompiler::CompileSchema(const SchemaNode& node, Rule rule) {
  if (node.json->is_boolean()) {
    if (node.json->get<bool>()) builder_.Call(rule.start, text_.Value(), rule.end);
    return Ok();
  }
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (node.Find(keyword) != nullptr) return CompileOptions(node, keyword, rule);
  }
  SWIFTKV_ASSIGN_OR_RETURN(const auto constants, Constants(node));
  if (constants) return CompileConstants(node, *constants, rule);
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<std::string> types, document_.Types(node));
  for (const std::string& type : types) SWIFTKV_RETURN_IF_ERROR(CompileType(node, type, rule));
  return Ok();
}

Status SchemaCompiler::CompileOptions(const SchemaNode& node, const char* keyword, Rule rule) {
  constexpr size_t kMaxOptions = 256;
  const SchemaJson& options = node.json->at(keyword);
  if (!options.is_array() || options.empty() || options.size() > kMaxOptions) {
    return node.Invalid("'{}' must be a list of 1 to {} schemas", keyword, kMaxOptions);
  }
  for (size_t i = 0; i < options.size(); ++i) {
    for (size_t j = 0; j < i && std::string_view(keyword) == "oneOf"; ++j) {
      SWIFTKV_ASSIGN_OR_RETURN(const bool disjoint, document_.Disjoint(node.Child(keyword, i), node.Child(keyword, j)));
      if (!disjoint) {
        return node.Invalid("a value may satisfy both schema {} and schema {} of 'oneOf'; use 'anyOf' if that is meant",
                            j, i);
      }
    }
    SWIFTKV_ASSIGN_OR_RETURN(const Rule option, RuleOf(node.Child(keyword, i)));
    builder_.Call(rule.start, option, rule.end);
  }
  return Ok();
}

Status SchemaCompiler::CompileConstants(const SchemaNode& node, const std::vector<const SchemaJson*>& values,
                                        Rule rule) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<std::string> types, document_.Types(node));
  std::set<std::string> texts;
  for (const SchemaJson* value : values) {
    if (HasType(*value, types)) texts.insert(ConstantText(*value));
  }
  text_.Texts(rule.start, texts, rule.end);
  return Ok();
}

Status SchemaCompiler::CompileType(const SchemaNode& node, const std::string& type, Rule rule) {
  if (type == "null") {
    text_.Texts(rule.start, {"null"}, rule.end);
  } else if (type == "boolean") {
    text_.Texts(rule.start, {"true", "false"}, rule.end);
  } else if (type == "string") {
    return CompileString(node, rule);
  } else if (type == "array") {
    return CompileArray(node, rule);
  } else if (type == "object") {
    return CompileObject(node, rule);
  } else {
    return CompileNumber(node, type == "integer", rule);
  }
  return Ok();
}

Status SchemaCompiler::CompileString(const SchemaNode& node, Rule rule) {
  if (node.Find("pattern") != nullptr) return node.Invalid("the keyword 'pattern' is not supported");
  StringLength length;
  SWIFTKV_ASSIGN_OR_RETURN(const std::optional<int64_t> min, Count(node, "minLength"));
  length.min = min.value_or(0);
  SWIFTKV_ASSIGN_OR_RETURN(length.max, Count(node, "maxLength"));
  if (length.max && *length.max < length.min) return node.Invalid("'minLength' is above 'maxLength'");
  text_.String(rule.start, length, rule.end);
  return Ok();
}

Status SchemaCompiler::CompileNumber(const SchemaNode& node, bool integer, Rule rule) {
  SWIFTKV_ASSIGN_OR_RETURN(const auto minimum, NumberBound(node, "minimum", integer, std::ceil));
  SWIFTKV_ASSIGN_OR_RETURN(const auto above, NumberBound(node, "exclusiveMinimum", integer, std::ceil));
  SWIFTKV_ASSIGN_OR_RETURN(const auto maximum, NumberBound(node, "maximum", integer, std::floor));
  SWIFTKV_ASSIGN_OR_RETURN(const auto below, NumberBound(node, "exclusiveMaximum", integer, std::floor));
  NumberRange range;
  if (const auto low = Narrower(minimum, above, 1)) {
    range.low = low->value;
    range.low_excluded = low->excluded;
  }
  if (const auto high = Narrower(maximum, below, -1)) {
    range.high = high->value;
    range.high_excluded = high->excluded;
  }
  integer ? text_.Integer(rule.start, range, rule.end) : text_.Number(rule.start, range, rule.end);
  return Ok();
}

Status SchemaCompiler::CompileArray(const SchemaNode& node, Rule rule) {
  constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();
  if (const SchemaJson* unique = node.Find("uniqueItems"); unique != nullptr && *unique != false) {
    return node.Invalid("the keyword 'uniqueItems' is not supported");
  }
  SWIFTKV_ASSIGN_OR_RETURN(const auto min_items, Count(node, "minItems"));
  SWIFTKV_ASSIGN_OR_RETURN(const auto max_items, Count(node, "maxItems"));
  const int64_t min = min_items.value_or(0);
  int64_t max = max_items.value_or(kUnbounded);
  const SchemaJson* prefix = node.Find("prefixItems");
  if (prefix != nullptr && !prefix->is_array()) return node.Invalid("'prefixItems' must be a list of schemas");
  const auto prefix_size = static_cast<int64_t>(prefix == nullptr ? 0 : prefix->size());
  // Behind a prefix without 'items' anything may come; it is left out where it is not needed.
  if (prefix != nullptr && node.Find("items") == nullptr) max = std::min(max, std::max(prefix_size, min));
  Rule later = {};
  if (node.Find("items") != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(later, RuleOf(node.Child("items")));
  } else {
    later = text_.Value();
  }

  // Before item i; the comma and its space lead there from the end of the item before.
  const int32_t open = builder_.Literal(rule.start, "[");
  if (min == 0) builder_.Byte(open, ']', rule.end);
  int32_t before = builder_.NewState();
  builder_.Skip(open, before);
  const int64_t counted = max == kUnbounded ? std::max(min, prefix_size) : max;
  for (int64_t i = 0; i < counted && !builder_.full(); ++i) {
    Rule item = later;
    if (i < prefix_size) {
      SWIFTKV_ASSIGN_OR_RETURN(item, RuleOf(node.Child("prefixItems", static_cast<size_t>(i))));
    }
    const int32_t end = builder_.NewState();
    builder_.Call(before, item, end);
    if (i + 1 >= min) builder_.Byte(end, ']', rule.end);
    before = text_.Separator(end, ',');
  }
  if (max == kUnbounded) {
    const int32_t end = builder_.NewState();
    builder_.Call(before, later, end);
    builder_.Byte(end, ']', rule.end);
    builder_.Skip(text_.Separator(end, ','), before);
  }
  return Ok();
}

// Members in the order of 'properties', those that are not required may be left out; then additional ones.
Status SchemaCompiler::CompileObject(const SchemaNode& node, Rule rule) {
  const SchemaJson* additional = node.Find("additionalProperties");
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Member> members, Members(node, additional));
  if (members.empty() && additional == nullptr && node.Find("properties") == nullptr) {
    builder_.Call(rule.start, text_.Object(), rule.end);
    return Ok();
  }
  const auto is_required = [](const Member& member) { return member.required; };
  const int32_t open = builder_.Literal(rule.start, "{");
  if (std::none_of(members.begin(), members.end(), is_required)) builder_.Byte(open, '}', rule.end);
  int32_t before = builder_.NewState();  // a member begins here
  int32_t behind_optional = builder_.NewState();
  builder_.Skip(open, before);
  for (size_t i = 0; i < members.size() && !builder_.full(); ++i) {
    const Member& member = members[i];
    const int32_t next = builder_.NewState();
    const int32_t end = builder_.NewState();
    // First, for of very many readings the last are dropped: what must come stays in reach.
    builder_.Skip(before, behind_optional);
    if (member.required) before = std::exchange(behind_optional, builder_.NewState());
    const int32_t name = builder_.Literal(before, SchemaJson(member.name).dump());
    builder_.Call(text_.Separator(name, ':'), member.value, end);
    if (!member.required) builder_.Skip(before, next);
    const auto rest = members.begin() + static_cast<int64_t>(i) + 1;
    if (std::none_of(rest, members.end(), is_required)) builder_.Byte(end, '}', rule.end);
    builder_.Skip(text_.Separator(end, ','), next);
    before = next;
  }
  if (additional == nullptr || *additional == false) return Ok();
  builder_.Skip(before, behind_optional);
  before = behind_optional;
  SWIFTKV_ASSIGN_OR_RETURN(const Rule value, AdditionalRule(node, additional));
  std::set<std::string> names;
  for (const Member& member : members) names.insert(member.name);
  const int32_t name_end = builder_.NewState();
  const int32_t end = builder_.NewState();
  text_.OtherString(before, names, name_end);
  builder_.Call(text_.Separator(name_end, ':'), value, end);
  builder_.Byte(end, '}', rule.end);
  builder_.Skip(text_.Separator(end, ','), before);
  return Ok();
}

Result<Rule> SchemaCompiler::AdditionalRule(const SchemaNode& node, const SchemaJson* additional) {
  if (additional == nullptr) return text_.Value();
  return RuleOf(node.Child("additionalProperties"));
}

// The members that are named, by 'properties' or 'required' alone.
Result<std::vector<SchemaCompiler::Member>> SchemaCompiler::Members(const SchemaNode& node,
                                                                    const SchemaJson* additional) {
  std::vector<Member> members;
  SWIFTKV_ASSIGN_OR_RETURN(std::set<std::string> required, RequiredMembers(node));
  if (const SchemaJson* properties = node.Find("properties")) {
    if (!properties->is_object()) return node.Invalid("'properties' must be an object");
    const SchemaNode place = node.Child("properties");
    for (const auto& [name, schema] : properties->items()) {
      SWIFTKV_ASSIGN_OR_RETURN(const Rule value, RuleOf({&schema, fmt::format("{}/{}", place.place, name)}));
      members.push_back({name, value, required.erase(name) > 0});
    }
  }
  for (const std::string& name : required) {
    SWIFTKV_ASSIGN_OR_RETURN(const Rule value, AdditionalRule(node, additional));
    members.push_back({name, value, true});
  }
  return members;
}

}  // namespace swiftkv
