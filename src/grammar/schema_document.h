// Reading a JSON Schema: which keywords there are, what they refer to, which types a schema allows.
#ifndef SWIFTKV_GRAMMAR_SCHEMA_DOCUMENT_H_
#define SWIFTKV_GRAMMAR_SCHEMA_DOCUMENT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"

namespace swiftkv {

using SchemaJson = nlohmann::ordered_json;

// A schema and its place in the document, a JSON pointer, for messages.
struct SchemaNode {
  const SchemaJson* json = nullptr;
  std::string place;  // "#/properties/name"

  SchemaNode Child(std::string_view name) const;
  SchemaNode Child(std::string_view list, size_t index) const;
  const SchemaJson* Find(const char* keyword) const;
  // "#/properties/name: what is wrong"
  template <class... Args>
  tl::unexpected<Error> Invalid(fmt::format_string<Args...> format, Args&&... args) const {
    return InvalidInput("{}: {}", place, fmt::format(format, std::forward<Args>(args)...));
  }
};

class SchemaDocument {
 public:
  explicit SchemaDocument(const SchemaJson& root) : root_(root) {}

  SchemaNode root() const { return {&root_, "#"}; }
  // The schema that `node` stands for: itself, or where its $ref leads. Checks that it is a boolean or an object of
  // supported keywords that go together. Error kInvalidInput.
  Result<SchemaNode> Resolve(SchemaNode node) const;
  // The JSON types that a resolved schema allows; no `type`: those that its keywords are about, or all.
  Result<std::vector<std::string>> Types(const SchemaNode& node) const;
  // Whether no value of those that Types allows in one satisfies the other, as far as types, constants and tags
  // (required members with constants) show it. Error kInvalidInput, beside those of the others: all calls together
  // compare too much.
  Result<bool> Disjoint(const SchemaNode& a, const SchemaNode& b, int depth = 0) const;

 private:
  Result<SchemaNode> Follow(const SchemaNode& node) const;
  Status CheckKeywords(const SchemaNode& node) const;
  Status Spend(const SchemaNode& node, size_t comparisons) const;
  Result<std::vector<std::string>> SatisfyingTypes(const SchemaNode& node) const;
  int ValueId(const SchemaJson& value) const;
  Result<bool> TagsDiffer(const SchemaNode& a, const SchemaNode& b, int depth) const;

  const SchemaJson& root_;
  mutable size_t comparisons_ = 0;                                          // of all calls of Disjoint
  mutable std::map<std::string, const SchemaJson*, std::less<>> followed_;  // by $ref
  mutable std::unordered_map<const SchemaJson*, int> ids_of_places_;
  mutable std::map<nlohmann::json, int> ids_of_values_;
};

// The values of `const` or `enum`, which belong to the schema; nullopt: neither is there. Error kInvalidInput.
Result<std::optional<std::vector<const SchemaJson*>>> Constants(const SchemaNode& node);
// "null", "boolean", "object", "array", "integer" (2.0, too), "number" or "string".
std::string TypeName(const SchemaJson& value);
// The members of `required`. Error kInvalidInput: no list of strings.
Result<std::set<std::string>> RequiredMembers(const SchemaNode& node);

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_SCHEMA_DOCUMENT_H_
