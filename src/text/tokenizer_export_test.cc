#include "text/tokenizer_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace swiftkv {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json ReadGolden(const std::string& name) {
  const auto file = ReadFile(std::string(SWIFTKV_SOURCE_DIR) + "/tests/golden/tokenizer/" + name + ".json", 1 << 20);
  EXPECT_TRUE(file);
  return file ? json::parse(*file) : json();
}

// A tokenizer.json's vocabulary as a GGUF file holds it: the ids are dense, and scores fall with the id.
GgufVocabulary AsGguf(const json& tokenizer, const std::string& model, const std::string& pre) {
  GgufVocabulary vocabulary;
  vocabulary.model = model;
  vocabulary.pre = pre;
  const json& bpe = tokenizer["model"];
  vocabulary.tokens.resize(bpe["vocab"].size());
  for (const auto& [token, id] : bpe["vocab"].items()) vocabulary.tokens[id] = token;
  vocabulary.types.assign(vocabulary.tokens.size(), 1);
  for (const json& token : tokenizer["added_tokens"]) {
    const size_t id = token["id"];
    vocabulary.tokens.resize(std::max(vocabulary.tokens.size(), id + 1));
    vocabulary.types.resize(vocabulary.tokens.size());
    vocabulary.tokens[id] = token["content"];
    vocabulary.types[id] = token["special"] ? 3 : 4;
  }
  for (const json& merge : bpe["merges"]) {
    vocabulary.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    vocabulary.scores.push_back(-static_cast<float>(id));
    if (vocabulary.tokens[id].size() == 6 && vocabulary.tokens[id].starts_with("<0x")) vocabulary.types[id] = 6;
  }
  vocabulary.unknown_token_id = 0;
  vocabulary.bos_token_id = 1;
  vocabulary.eos_token_id = 2;
  return vocabulary;
}

// A folder with the exported files, read back.
std::unique_ptr<Tokenizer> ReadBack(const TokenizerFiles& files) {
  const std::string folder = testing::TempDir() + "swiftkv_export_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/tokenizer.json") << files.tokenizer_json;
  std::ofstream(folder + "/tokenizer_config.json") << files.tokenizer_config_json;
  auto tokenizer = Tokenizer::FromFolder(folder);
  std::filesystem::remove_all(folder);
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

struct Family {
  const char* golden;
  const char* model;
  const char* pre;
};

class TokenizerExportTest : public testing::TestWithParam<Family> {};

// What `tokenizers` makes of a family's own tokenizer.json, the GGUF reading and its export make too.
TEST_P(TokenizerExportTest, EncodesAndDecodesAsTheFamilysOwn) {
  const json golden = ReadGolden(GetParam().golden);
  GgufVocabulary vocabulary = AsGguf(golden["tokenizer"], GetParam().model, GetParam().pre);
  vocabulary.add_bos_token = golden["tokenizer"]["post_processor"].dump().find("SpecialToken") != std::string::npos;
  const auto gguf = Tokenizer::FromGguf(vocabulary, "x.gguf");
  ASSERT_TRUE(gguf) << gguf.error().message;
  const auto files = ExportTokenizer(vocabulary, {}, "x.gguf");
  ASSERT_TRUE(files) << files.error().message;
  const auto folder = ReadBack(*files);
  ASSERT_NE(folder, nullptr);
  EXPECT_EQ(folder->vocab_size(), (*gguf)->vocab_size());
  EXPECT_EQ(folder->bos_token_id(), 1);
  EXPECT_EQ(folder->eos_token_id(), 2);
  for (const json& expected : golden["cases"]) {
    if (!expected.contains("text")) continue;
    SCOPED_TRACE(expected.dump());
    const std::string text = expected["text"];
    const auto ids = expected["ids"].get<std::vector<int32_t>>();
    for (const Tokenizer* tokenizer : {gguf->get(), folder.get()}) {
      EXPECT_EQ(tokenizer->Encode(text, {}), ids);
      EXPECT_EQ(tokenizer->Decode(ids, {.skip_special_tokens = false}), expected["decoded"]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerExportTest,
                         testing::Values(Family{"gpt2", "gpt2", "gpt-2"}, Family{"smollm", "gpt2", "smollm"},
                                         Family{"llama3", "gpt2", "llama-bpe"}, Family{"qwen2", "gpt2", "qwen2"},
                                         Family{"tekken", "gpt2", "tekken"}, Family{"llama2", "llama", ""}),
                         [](const auto& info) { return std::string(info.param.golden); });

TEST(TokenizerExportTest, NamesSpecialTokensAndTheTemplate) {
  GgufVocabulary vocabulary = AsGguf(ReadGolden("llama2")["tokenizer"], "llama", "");
  vocabulary.types[0] = 2;
  vocabulary.padding_token_id = 300;  // a plain token: naming it would cut it out of texts
  vocabulary.add_eos_token = true;
  const auto files = ExportTokenizer(vocabulary, {.chat_template = "{{ \"ü\" }}\n", .model_max_length = 512}, "x.gguf");
  ASSERT_TRUE(files) << files.error().message;
  const json config = json::parse(files->tokenizer_config_json);
  EXPECT_EQ(config["bos_token"], "<s>");
  EXPECT_EQ(config["eos_token"], "</s>");
  EXPECT_EQ(config["unk_token"], "<unk>");
  EXPECT_FALSE(config.contains("pad_token"));
  EXPECT_EQ(config["model_max_length"], 512);
  EXPECT_EQ(config["chat_template"], "{{ \"ü\" }}\n");
  const auto folder = ReadBack(*files);
  ASSERT_NE(folder, nullptr);
  const std::vector<int32_t> ids = folder->Encode("the", {});
  EXPECT_EQ(ids.front(), 1);
  EXPECT_EQ(ids.back(), 2);
}

TEST(TokenizerExportTest, RefusesATemplateThatIsNoText) {
  const GgufVocabulary vocabulary = AsGguf(ReadGolden("gpt2")["tokenizer"], "gpt2", "gpt-2");
  const auto files = ExportTokenizer(vocabulary, {.chat_template = "\xff"}, "x.gguf");
  ASSERT_FALSE(files);
  EXPECT_THAT(files.error().message, HasSubstr("x.gguf: the chat template is not UTF-8"));
}

}  // namespace
}  // namespace swiftkv
