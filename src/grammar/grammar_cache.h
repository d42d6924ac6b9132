// Compiled grammars by their schemas, for a server: clients send the same few schemas again and again.
//
//   GrammarCache grammars(trie);   // once a model
//   SWIFTKV_ASSIGN_OR_RETURN(request.constraint, grammars.JsonSchema(schema_text));
#ifndef SWIFTKV_GRAMMAR_GRAMMAR_CACHE_H_
#define SWIFTKV_GRAMMAR_GRAMMAR_CACHE_H_

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "grammar/structured_output.h"

namespace swiftkv {

// Thread-safe. Keeps the kMaxGrammars used last; requests that still use another keep it alive.
class GrammarCache {
 public:
  static constexpr size_t kMaxGrammars = 32;

  explicit GrammarCache(std::shared_ptr<const TokenTrie> trie) : trie_(std::move(trie)) {}

  // Errors: those of CompileJsonSchema and CompileJsonObject.
  Result<std::shared_ptr<const TokenConstraintFactory>> JsonSchema(std::string_view schema);
  Result<std::shared_ptr<const TokenConstraintFactory>> JsonObject();

 private:
  std::shared_ptr<const TokenConstraintFactory> Find(std::string_view schema);
  void Keep(std::string_view schema, std::shared_ptr<const TokenConstraintFactory> grammar);

  std::shared_ptr<const TokenTrie> trie_;
  std::mutex mutex_;
  // By schema, the one used last in front; the empty text is any object.
  std::list<std::pair<std::string, std::shared_ptr<const TokenConstraintFactory>>> grammars_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_GRAMMAR_CACHE_H_
