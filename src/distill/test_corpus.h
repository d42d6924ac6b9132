// For tests of the data side: a small tokenizer with a ChatML template, and files to read.
#ifndef SWIFTKV_DISTILL_TEST_CORPUS_H_
#define SWIFTKV_DISTILL_TEST_CORPUS_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/test_files.h"
#include "distill/dataset.h"
#include "text/golden_tokenizer.h"

namespace swiftkv {

// The tokenizer knows every byte, so short words stay readable: "<|im_start|>user\n" is 6 tokens.
struct TestCorpus {
  static constexpr const char* kChatMl =
      "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endfor -%}"
      "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

  std::unique_ptr<Tokenizer> tokenizer = LoadGoldenTokenizer("smollm", {{"<|im_start|>", 420}, {"<|im_end|>", 421}});
  ChatTemplate chat = *ChatTemplate::Parse(kChatMl, "chatml");
  TemporaryFolder folder;

  DatasetText text() const { return {tokenizer.get(), &chat}; }

  std::string Decode(const std::vector<int32_t>& ids) const {
    return tokenizer->Decode(ids, {.skip_special_tokens = false});
  }

  // The path of a file with one line for each item: a text, or a conversation that begins with the user.
  std::string WriteTexts(const std::string& name, const std::vector<std::string>& texts) const {
    std::string lines;
    for (const std::string& text : texts) lines += nlohmann::json{{"text", text}}.dump() + "\n";
    return folder.Write(name, lines);
  }
  std::string WriteChats(const std::string& name, const std::vector<std::vector<std::string>>& chats) const {
    std::string lines;
    for (const auto& turns : chats) {
      nlohmann::json messages = nlohmann::json::array();
      for (size_t i = 0; i < turns.size(); ++i) {
        messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", turns[i]}});
      }
      lines += nlohmann::json{{"messages", messages}}.dump() + "\n";
    }
    return folder.Write(name, lines);
  }
};

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_TEST_CORPUS_H_
