// Our tokenizers against what Hugging Face `tokenizers` says: tests/golden/tokenizer, by
// tools/make_tokenizer_goldens.py.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

using nlohmann::json;

const std::string kFolder = std::string(SWIFTKV_SOURCE_DIR) + "/tests/golden/tokenizer";

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t at = 0; at < hex.size(); at += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(at, 2), nullptr, 16)));
  return bytes;
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) names.push_back(entry.path().stem().string());
  return names;
}

class TokenizerGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto file = ReadFile(kFolder + "/" + GetParam() + ".json", 1 << 20);
    ASSERT_TRUE(file);
    golden_ = json::parse(*file);
    auto tokenizer = Tokenizer::FromJson(golden_["tokenizer"].dump(), GetParam());
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    tokenizer_ = std::move(*tokenizer);
  }

  json golden_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(TokenizerGoldenTest, EncodesAndDecodes) {
  ASSERT_GT(golden_["cases"].size(), 40u);
  for (const json& expected : golden_["cases"]) {
    const std::string text = expected.value("text", FromHex(expected.value("bytes", "")));
    SCOPED_TRACE(expected.dump());
    const auto ids = expected["ids"].get<std::vector<int32_t>>();
    const auto plain_ids = expected.value("plain_ids", ids);
    const std::string decoded = expected["decoded"];
    EXPECT_EQ(tokenizer_->Encode(text, {}), ids);
    EXPECT_EQ(tokenizer_->Encode(text, {.add_special_tokens = false}), plain_ids);
    EXPECT_EQ(tokenizer_->Decode(ids, {.skip_special_tokens = false}), decoded);
    EXPECT_EQ(tokenizer_->Decode(ids, {}), expected.value("decoded_without_special", decoded));
  }
}

TEST_P(TokenizerGoldenTest, StreamsWholeCharacters) {
  for (const json& expected : golden_["cases"]) {
    const auto ids = expected["ids"].get<std::vector<int32_t>>();
    for (const bool skip : {false, true}) {
      StreamDecoder stream(*tokenizer_, {.skip_special_tokens = skip});
      std::string text;
      for (const int32_t id : ids) {
        const std::string part = stream.Push(id);
        EXPECT_TRUE(IsValidUtf8(part));
        text += part;
      }
      text += stream.Finish();
      EXPECT_EQ(text, tokenizer_->Decode(ids, {.skip_special_tokens = skip}));
    }
  }
}

TEST_P(TokenizerGoldenTest, IdsAndSpellingsAgree) {
  const json& model = golden_["tokenizer"]["model"]["vocab"];
  for (const auto& [token, id] : model.items()) {
    EXPECT_EQ(tokenizer_->TokenToId(token), id.get<int32_t>());
    EXPECT_EQ(tokenizer_->IdToToken(id.get<int32_t>()), token);
  }
  for (const json& token : golden_["tokenizer"]["added_tokens"]) {
    EXPECT_EQ(tokenizer_->TokenToId(token["content"].get<std::string>()), token["id"].get<int32_t>());
    if (!token["normalized"]) {
      EXPECT_EQ(tokenizer_->IdToToken(token["id"].get<int32_t>()), token["content"].get<std::string>());
    }
    EXPECT_EQ(tokenizer_->IsSpecial(token["id"].get<int32_t>()), token["special"].get<bool>());
  }
  EXPECT_EQ(tokenizer_->IdToToken(tokenizer_->vocab_size()), "");
  EXPECT_EQ(tokenizer_->IdToToken(-1), "");
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGoldenTest, testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace swiftkv
