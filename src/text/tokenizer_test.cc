#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swiftkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The byte alphabet's letters, "he", "hel" and " h", and a control token.
GgufVocabulary SmallVocabulary() {
  GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.pre = "smollm";
  vocabulary.tokens = {"<|end|>", "h", "e", "l", "o", "Ġ", "Ã", "©", "he", "hel", "Ġh", "1"};
  vocabulary.types = {3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  vocabulary.merges = {"h e", "Ġ h", "he l"};
  vocabulary.eos_token_id = 0;
  return vocabulary;
}

TEST(TokenizerTest, MergesByRankFromTheLeft) {
  const auto tokenizer = Tokenizer::FromGguf(SmallVocabulary(), "small");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_THAT((*tokenizer)->Encode("hello hel", {}), ElementsAre(9, 3, 4, 5, 9));
  EXPECT_THAT((*tokenizer)->Encode("<|end|>h", {}), ElementsAre(0, 1));
  EXPECT_EQ((*tokenizer)->Decode(std::vector<int32_t>{9, 3, 4, 0, 5, 9}, {}), "hello hel");
  EXPECT_EQ((*tokenizer)->vocab_size(), 12);
}

TEST(TokenizerTest, StreamNeverSplitsACharacter) {
  const auto tokenizer = Tokenizer::FromGguf(SmallVocabulary(), "small");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  StreamDecoder stream(**tokenizer, {});
  EXPECT_EQ(stream.Push(1), "h");
  EXPECT_EQ(stream.Push(6), "");
  EXPECT_EQ(stream.Push(7), "é");
  EXPECT_EQ(stream.Push(6), "");
  EXPECT_EQ(stream.Finish(), "\ufffd");
}

TEST(TokenizerTest, UnknownPreTokenizerIsRefused) {
  GgufVocabulary vocabulary = SmallVocabulary();
  vocabulary.pre = "nonsense";
  const auto tokenizer = Tokenizer::FromGguf(vocabulary, "small");
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().message, HasSubstr("tokenizer.ggml.pre 'nonsense'"));
}

}  // namespace
}  // namespace swiftkv
