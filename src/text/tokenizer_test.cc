#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

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

TEST(TokenizerTest, BytesOfATokenAreWhatItAddsToAText) {
  const auto byte_level = Tokenizer::FromGguf(SmallVocabulary(), "small");
  ASSERT_TRUE(byte_level) << byte_level.error().message;
  EXPECT_EQ((*byte_level)->TokenBytes(10), " h");
  EXPECT_EQ((*byte_level)->TokenBytes(6), "\xC3");
  EXPECT_EQ((*byte_level)->TokenBytes(0), "");
  EXPECT_EQ((*byte_level)->TokenBytes(12), "");
  EXPECT_EQ((*byte_level)->TokenBytes(-1), "");
  GgufVocabulary vocabulary;
  vocabulary.model = "llama";
  vocabulary.tokens = {"<unk>", "<s>", "</s>", "<0xC3>", "▁", "a", "▁a", "<0x0A>"};
  vocabulary.scores = {0, 0, 0, 0, -1, -2, -3, 0};
  vocabulary.types = {2, 3, 3, 6, 1, 1, 1, 6};
  const auto sentence_piece = Tokenizer::FromGguf(vocabulary, "small");
  ASSERT_TRUE(sentence_piece) << sentence_piece.error().message;
  EXPECT_EQ((*sentence_piece)->TokenBytes(6), " a");
  EXPECT_EQ((*sentence_piece)->TokenBytes(3), "\xC3");
  EXPECT_EQ((*sentence_piece)->TokenBytes(4), " ");
  EXPECT_EQ((*sentence_piece)->TokenBytes(2), "");
}

TEST(TokenizerTest, MinTokensIsAFloor) {
  const auto tokenizer = Tokenizer::FromGguf(SmallVocabulary(), "small");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  std::string text;
  for (int i = 0; i < 70; ++i) text += "hel";
  EXPECT_EQ((*tokenizer)->MinTokens(text), 30u);                          // as if all were "<|end|>"
  EXPECT_EQ((*tokenizer)->MinTokens(text + std::string(700, 'x')), 30u);  // "x" has no token and is left out
  EXPECT_EQ((*tokenizer)->MinTokens(""), 0u);
}

TEST(TokenizerTest, MinTokensIsNoneWhereTextMayVanish) {
  const auto with = [](const std::string& part) {
    const std::string file = R"({"added_tokens": [], "post_processor": null, "decoder": null, "model": {"type": "BPE",
        "vocab": {"a": 0, "b": 1}, "merges": []}, "normalizer": null, "pre_tokenizer":
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}, )" +
                             part + "}";
    const auto tokenizer = Tokenizer::FromJson(file, "tokenizer.json");
    EXPECT_TRUE(tokenizer) << tokenizer.error().message;
    return tokenizer ? (*tokenizer)->MinTokens("abab") : 0;
  };
  EXPECT_EQ(with(R"("version": "1.0")"), 4u);
  EXPECT_EQ(with(R"("normalizer": {"type": "Prepend", "prepend": "a"})"), 4u);
  EXPECT_EQ(with(R"("normalizer": {"type": "NFC"})"), 0u);
  EXPECT_EQ(with(R"("normalizer": {"type": "Replace", "pattern": {"String": "ab"}, "content": "a"})"), 0u);
  EXPECT_EQ(with(R"("normalizer": {"type": "Replace", "pattern": {"Regex": "."}, "content": "aaaa"})"), 0u);
  EXPECT_EQ(with(R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})"),
            0u);
  EXPECT_EQ(with(R"("added_tokens": [{"id": 2, "content": "<s>", "rstrip": true}])"), 0u);
}

TEST(TokenizerTest, ManyThreadsShareOneTokenizer) {
  const auto tokenizer = Tokenizer::FromGguf(SmallVocabulary(), "small");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) EXPECT_THAT((*tokenizer)->Encode("hello hel", {}), ElementsAre(9, 3, 4, 5, 9));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(TokenizerTest, LongUnbrokenTextsTakeLinearTime) {
  const auto tokenizer = Tokenizer::FromGguf(SmallVocabulary(), "small");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  std::string text;
  for (int i = 0; i < 300'000; ++i) text += "hel";
  EXPECT_EQ((*tokenizer)->Encode(text, {}), std::vector<int32_t>(300'000, 9));
}

// Scores decide what merges, "▁" stands for spaces, and unknown characters fall back to bytes.
TEST(TokenizerTest, SentencePieceVocabulary) {
  GgufVocabulary vocabulary;
  vocabulary.model = "llama";
  vocabulary.tokens = {"<unk>", "<s>", "▁", "a", "b", "▁a", "ab", "<0xC3>", "<0xA9>"};
  vocabulary.scores = {0, 0, -9, -9, -9, -2, -1, 0, 0};
  vocabulary.types = {2, 3, 1, 1, 1, 1, 1, 6, 6};
  vocabulary.bos_token_id = 1;
  vocabulary.unknown_token_id = 0;
  const auto tokenizer = Tokenizer::FromGguf(vocabulary, "small");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_THAT((*tokenizer)->Encode("ab a", {}), ElementsAre(1, 2, 6, 5));
  EXPECT_THAT((*tokenizer)->Encode("é", {.add_special_tokens = false}), ElementsAre(2, 7, 8));
  EXPECT_THAT((*tokenizer)->Encode("xyb", {.add_special_tokens = false}), ElementsAre(2, 0, 4));
  EXPECT_EQ((*tokenizer)->Decode(std::vector<int32_t>{1, 2, 6, 5, 7, 8, 7}, {}), "ab a\ufffd\ufffd\ufffd");
  EXPECT_EQ((*tokenizer)->Decode(std::vector<int32_t>{1, 5, 7, 8, 2, 3}, {}), "aé a");
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
