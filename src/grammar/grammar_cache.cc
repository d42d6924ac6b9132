#include "grammar/grammar_cache.h"

#include <algorithm>

namespace swiftkv {

Result<std::shared_ptr<const TokenConstraintFactory>> GrammarCache::JsonSchema(std::string_view schema) {
  if (auto known = Find(schema); known != nullptr && !schema.empty()) return known;
  SWIFTKV_ASSIGN_OR_RETURN(auto grammar, CompileJsonSchema(schema, trie_));
  Keep(schema, grammar);
  return grammar;
}

Result<std::shared_ptr<const TokenConstraintFactory>> GrammarCache::JsonObject() {
  if (auto known = Find("")) return known;
  SWIFTKV_ASSIGN_OR_RETURN(auto grammar, CompileJsonObject(trie_));
  Keep("", grammar);
  return grammar;
}

std::shared_ptr<const TokenConstraintFactory> GrammarCache::Find(std::string_view schema) {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(grammars_.begin(), grammars_.end(), [&](const auto& entry) { return entry.first == schema; });
  if (found == grammars_.end()) return nullptr;
  grammars_.splice(grammars_.begin(), grammars_, found);
  return found->second;
}

void GrammarCache::Keep(std::string_view schema, std::shared_ptr<const TokenConstraintFactory> grammar) {
  const std::lock_guard lock(mutex_);
  grammars_.emplace_front(schema, std::move(grammar));
  if (grammars_.size() > kMaxGrammars) grammars_.pop_back();
}

}  // namespace swiftkv
