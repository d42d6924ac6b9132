#include "grammar/grammar_cache.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace swiftkv {
namespace {

std::shared_ptr<const TokenTrie> ByteTrie() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  return *TokenTrie::Create(tokens);
}

TEST(GrammarCacheTest, KeepsTheGrammarsUsedLast) {
  GrammarCache grammars(ByteTrie());
  const auto schema = [](size_t i) { return R"({"const": )" + std::to_string(i) + "}"; };
  const auto first = *grammars.JsonSchema(schema(0));
  const auto object = *grammars.JsonObject();
  const std::weak_ptr<const TokenConstraintFactory> second = *grammars.JsonSchema(schema(1));
  for (size_t i = 2; i < GrammarCache::kMaxGrammars + 1; ++i) {
    ASSERT_TRUE(grammars.JsonSchema(schema(i)).has_value());
    EXPECT_EQ(*grammars.JsonSchema(schema(0)), first);
    EXPECT_EQ(*grammars.JsonObject(), object);
  }
  EXPECT_TRUE(second.expired());
}

TEST(GrammarCacheTest, ErrorsAreNotKept) {
  GrammarCache grammars(ByteTrie());
  ASSERT_TRUE(grammars.JsonObject().has_value());
  EXPECT_FALSE(grammars.JsonSchema("").has_value());
  EXPECT_FALSE(grammars.JsonSchema(R"({"not": {}})").has_value());
}

}  // namespace
}  // namespace swiftkv
