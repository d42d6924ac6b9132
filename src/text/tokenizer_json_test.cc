// tokenizer.json and tokenizer_config.json: what is refused, and what transformers takes from the second file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "text/tokenizer.h"

namespace swiftkv {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

json SmallTokenizer() {
  return json::parse(R"({
    "added_tokens": [{"id": 5, "content": "<s>", "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "</s>": 4}, "merges": ["a b"]}})");
}

std::string ErrorOf(const json& file) {
  const auto tokenizer = Tokenizer::FromJson(file.dump(), "tokenizer.json");
  return tokenizer ? "no error" : tokenizer.error().message;
}

TEST(TokenizerJsonTest, ReadsMergesInBothSpellings) {
  json file = SmallTokenizer();
  for (const json& merges : {json::array({"a b"}), json::array({json::array({"a", "b"})})}) {
    file["model"]["merges"] = merges;
    const auto tokenizer = Tokenizer::FromJson(file.dump(), "tokenizer.json");
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    EXPECT_THAT((*tokenizer)->Encode("abc<s>x", {}), ElementsAre(2, 3, 5));
    EXPECT_THAT((*tokenizer)->Encode("<s>", {.parse_special_tokens = false}), IsEmpty());
  }
}

TEST(TokenizerJsonTest, RefusalsNameTheField) {
  struct Case {
    const char* pointer;
    const char* value;
    const char* message;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"/model/type", R"("Unigram")", "tokenizer.json.model.type 'Unigram'"},
           {"/model/dropout", "0.1", "model.dropout"},
           {"/model/end_of_word_suffix", R"("</w>")", "model.end_of_word_suffix"},
           {"/model/vocab/a", "-1", "model.vocab"},
           {"/model/vocab/a", "4000000000", "model.vocab"},
           {"/model/vocab/a", "1", "same id 1"},
           {"/model/merges/0", R"("a z")", "model.merges[0]: 'z'"},
           {"/model/merges/0", R"("b c")", "'bc', which is not in the vocabulary"},
           {"/model/merges/0", R"("ab")", "model.merges[0] must be two tokens"},
           {"/added_tokens/0/id", "1", "same id 1"},
           {"/added_tokens/0/content", R"("ab")", "'ab' has the id 5 here and 2"},
           {"/added_tokens/0/content", "7", "added_tokens[0].content must be a string"},
           {"/normalizer", R"({"type": "Precompiled"})", "normalizer.type 'Precompiled'"},
           {"/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "X"}]})", "pretokenizers[0].type 'X'"},
           {"/pre_tokenizer", R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "("}})",
            "pattern.Regex"},
           {"/pre_tokenizer", R"({"type": "Split", "behavior": "?", "pattern": {"String": "a"}})", "behavior '?'"},
           {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "__"})", "replacement must be one character"},
           {"/decoder", R"({"type": "WordPiece"})", "decoder.type 'WordPiece'"},
           {"/post_processor", R"({"type": "BertProcessing", "cls": ["a", 99], "sep": ["b", 1]})", "the token 99"},
           {"/post_processor", R"({"type": "TemplateProcessing", "single": []})", "the text exactly once"},
       }) {
    json file = SmallTokenizer();
    file[json::json_pointer(c.pointer)] = json::parse(c.value);
    EXPECT_THAT(ErrorOf(file), HasSubstr(c.message)) << c.pointer << " " << c.value;
  }
}

TEST(TokenizerJsonTest, RefusesWhatIsNoSuchFile) {
  for (const std::string& text : {std::string(""), std::string("[]"), std::string("{"), std::string("{\"model\":3}"),
                                  std::string(1 << 20, '['), std::string("{\"a\":\"\xff\"}")}) {
    EXPECT_FALSE(Tokenizer::FromJson(text, "tokenizer.json")) << text.substr(0, 20);
  }
  EXPECT_FALSE(Tokenizer::FromFolder("/nonexistent"));
}

TEST(TokenizerJsonTest, ErrorsAreShortAndPrintable) {
  const std::string hostile = "\x1b]0;pwned\x07" + std::string(100'000, 'x');
  std::vector<std::string> messages = {
      Tokenizer::FromJson("{\"a\":\"" + std::string(1 << 20, 'x'), "tokenizer.json").error().message,
      Tokenizer::FromJson("{\"a\":1e" + std::string(1 << 20, '9') + "}", "tokenizer.json").error().message};
  EXPECT_EQ(messages[0], "tokenizer.json: not valid JSON at byte 1048583");
  for (const char* pointer : {"/model/type", "/model/end_of_word_suffix", "/normalizer/type", "/model/merges/0/1"}) {
    json file = SmallTokenizer();
    file["model"]["merges"] = json::array({json::array({"a", "b"})});
    file[json::json_pointer(pointer)] = hostile;
    messages.push_back(ErrorOf(file));
  }
  json file = SmallTokenizer();
  file["model"]["vocab"]["\x1b"] = -1;
  messages.push_back(ErrorOf(file));
  file["model"]["vocab"]["\x1b"] = 1;
  messages.push_back(ErrorOf(file));
  file = SmallTokenizer();
  file["added_tokens"][0]["content"] = hostile;
  file["added_tokens"][0]["id"] = 1;
  messages.push_back(ErrorOf(file));
  for (const std::string& message : messages) {
    EXPECT_NE(message, "no error");
    EXPECT_LT(message.size(), 400u) << message.substr(0, 400);
    EXPECT_TRUE(std::all_of(message.begin(), message.end(), [](char c) { return c >= 0x20 && c < 0x7f; })) << message;
  }
}

class TokenizerConfigTest : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> Load(const std::string& config) {
    EXPECT_TRUE(WriteFile(folder_ + "/tokenizer.json", SmallTokenizer().dump()));
    EXPECT_TRUE(WriteFile(folder_ + "/tokenizer_config.json", config));
    auto tokenizer = Tokenizer::FromFolder(folder_);
    EXPECT_TRUE(tokenizer) << tokenizer.error().message;
    return std::move(*tokenizer);
  }
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  const std::string folder_ = testing::TempDir() + "swiftkv_tokenizer_config_" + std::to_string(getpid());
};

TEST_F(TokenizerConfigTest, NamedTokensAreSpecialAndAddedOnRequest) {
  const auto tokenizer =
      Load(R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true})");
  EXPECT_EQ(tokenizer->bos_token_id(), 5);
  EXPECT_EQ(tokenizer->eos_token_id(), 4);
  EXPECT_TRUE(tokenizer->IsSpecial(4));
  EXPECT_THAT(tokenizer->Encode("a</s>c", {}), ElementsAre(5, 0, 4, 3, 4));
  EXPECT_THAT(tokenizer->Encode("a", {.add_special_tokens = false}), ElementsAre(0));
}

TEST_F(TokenizerConfigTest, AddedTokensDecoderAddsWhatIsMissing) {
  const auto tokenizer = Load(R"({"added_tokens_decoder": {"5": {"content": "<s>", "special": true},
                                                          "9": {"content": "<new>", "special": true}}})");
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_THAT(tokenizer->Encode("a<new>b", {}), ElementsAre(0, 9, 1));
  EXPECT_EQ(tokenizer->IdToToken(7), "");
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{0, 7, 9, 1, 1000}, {.skip_special_tokens = false}), "a<new>b");
}

}  // namespace
}  // namespace swiftkv
