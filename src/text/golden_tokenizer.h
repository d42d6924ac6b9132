// For tests: the tokenizers of tests/golden/tokenizer, with more special tokens where a test's template needs them.
#ifndef SWIFTKV_TEXT_GOLDEN_TOKENIZER_H_
#define SWIFTKV_TEXT_GOLDEN_TOKENIZER_H_

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "text/tokenizer.h"

namespace swiftkv {

// `path`: in tests/golden
inline nlohmann::ordered_json ReadGolden(const std::string& path) {
  std::ifstream file(SWIFTKV_SOURCE_DIR "/tests/golden/" + path);
  return nlohmann::ordered_json::parse(file);
}

// `special_tokens`: an object of token: id
inline std::unique_ptr<Tokenizer> LoadGoldenTokenizer(const std::string& name,
                                                      const nlohmann::ordered_json& special_tokens) {
  nlohmann::ordered_json tokenizer = ReadGolden("tokenizer/" + name + ".json")["tokenizer"];
  for (const auto& [content, id] : special_tokens.items()) {
    tokenizer["added_tokens"].push_back({{"id", id},
                                         {"content", content},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", false},
                                         {"special", true}});
  }
  auto result = Tokenizer::FromJson(tokenizer.dump(), name);
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
  return result ? std::move(*result) : nullptr;
}

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_GOLDEN_TOKENIZER_H_
