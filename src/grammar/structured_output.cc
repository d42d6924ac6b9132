#include "grammar/structured_output.h"

#include <utility>

#include "checkpoint/json_file.h"
#include "grammar/grammar.h"
#include "grammar/schema_compiler.h"

namespace swiftkv {
namespace {

// A factory over the automaton of `root`; `what` opens the message of an error.
Result<std::shared_ptr<const TokenConstraintFactory>> Finish(AutomatonBuilder builder, Rule root, const char* what,
                                                             std::shared_ptr<const TokenTrie> trie) {
  Result<Automaton> automaton = std::move(builder).Build(root, trie->alphabet());
  if (!automaton) return InvalidInput("{}: {}", what, automaton.error().message);
  return std::make_shared<const Grammar>(std::move(*automaton), std::move(trie), JsonText::Follows());
}

}  // namespace

Result<std::shared_ptr<const TokenConstraintFactory>> CompileJsonSchema(std::string_view schema,
                                                                        std::shared_ptr<const TokenTrie> trie) {
  constexpr const char* kWhat = "JSON schema";
  if (schema.size() > kMaxSchemaBytes) {
    return InvalidInput("{}: {} bytes; the limit is {}", kWhat, schema.size(), kMaxSchemaBytes);
  }
  SWIFTKV_ASSIGN_OR_RETURN(const SchemaJson json, ParseJsonObject(schema, kWhat));
  AutomatonBuilder builder;
  SchemaCompiler compiler(json, &builder, trie->longest_token());
  const Result<Rule> root = compiler.Compile();
  if (!root) return InvalidInput("{}: {}", kWhat, root.error().message);
  return Finish(std::move(builder), *root, kWhat, std::move(trie));
}

Result<std::shared_ptr<const TokenConstraintFactory>> CompileJsonObject(std::shared_ptr<const TokenTrie> trie) {
  AutomatonBuilder builder;
  const Rule root = JsonText(&builder, trie->longest_token()).Object();
  return Finish(std::move(builder), root, "JSON object", std::move(trie));
}

}  // namespace swiftkv
