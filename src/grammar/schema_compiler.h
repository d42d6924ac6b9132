// From a JSON Schema to an automaton.
//
//   SchemaCompiler compiler(json, &builder, longest_token);
//   SWIFTKV_ASSIGN_OR_RETURN(Rule root, compiler.Compile());
//   SWIFTKV_ASSIGN_OR_RETURN(Automaton automaton, std::move(builder).Build(root, alphabet));
#ifndef SWIFTKV_GRAMMAR_SCHEMA_COMPILER_H_
#define SWIFTKV_GRAMMAR_SCHEMA_COMPILER_H_

#include <cstdint>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/status.h"
#include "grammar/automaton.h"
#include "grammar/json_text.h"
#include "grammar/schema_document.h"

namespace swiftkv {

class SchemaCompiler {
 public:
  SchemaCompiler(const SchemaJson& schema, AutomatonBuilder* builder, size_t longest_token)
      : document_(schema), builder_(*builder), text_(builder, longest_token) {}

  // The rule of the whole schema. Error kInvalidInput, with the place in the schema.
  Result<Rule> Compile();

 private:
  struct Member {
    std::string name;
    Rule value;
    bool required = false;
  };

  // Every schema becomes one rule, whoever refers to it, compiled when its turn comes: recursion needs no depth.
  Result<Rule> RuleOf(const SchemaNode& node);
  Status CompileSchema(const SchemaNode& node, Rule rule);
  Status CompileOptions(const SchemaNode& node, const char* keyword, Rule rule);
  Status CompileConstants(const SchemaNode& node, const std::vector<const SchemaJson*>& values, Rule rule);
  Status CompileType(const SchemaNode& node, const std::string& type, Rule rule);
  Status CompileString(const SchemaNode& node, Rule rule);
  Status CompileNumber(const SchemaNode& node, bool integer, Rule rule);
  Status CompileArray(const SchemaNode& node, Rule rule);
  Status CompileObject(const SchemaNode& node, Rule rule);
  Result<std::vector<Member>> Members(const SchemaNode& node, const SchemaJson* additional);
  Result<Rule> AdditionalRule(const SchemaNode& node, const SchemaJson* additional);

  SchemaDocument document_;
  AutomatonBuilder& builder_;
  JsonText text_;
  std::unordered_map<const SchemaJson*, Rule> rules_;
  std::vector<std::pair<SchemaNode, Rule>> waiting_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_SCHEMA_COMPILER_H_
