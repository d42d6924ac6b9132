#include "text/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "text/golden_tokenizer.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;

std::string Spelled(const Tokenizer& tokenizer, const ConversationTokens& tokens) {
  std::string text;
  for (size_t i = 0; i < tokens.token_ids.size(); ++i) {
    const bool now = tokens.by_assistant[i] != 0;
    const bool before = i > 0 && tokens.by_assistant[i - 1] != 0;
    if (now && !before) text += "{";
    if (!now && before) text += "}";
    text += tokenizer.IdToToken(tokens.token_ids[i]);
  }
  return text + (!tokens.by_assistant.empty() && tokens.by_assistant.back() != 0 ? "}" : "");
}

const Json kVariables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};

// tools/make_conversation_goldens.py
TEST(ConversationTest, MasksEqualThoseOfTransformers) {
  const Json golden = ReadGolden("conversation/masks.json");
  for (const Json& item : golden["cases"]) {
    const std::string name = item["tokenizer"];
    const std::string family = item["template"];
    SCOPED_TRACE(fmt::format("{} {} {}", family, name, item["conversation"].get<std::string>()));
    const auto tokenizer = LoadGoldenTokenizer(name, golden["added"][family + " " + name]);
    const auto chat = ChatTemplate::Parse(golden["templates"][family].get<std::string>(), family);
    ASSERT_TRUE(tokenizer && chat);
    const auto tokens = EncodeConversation(
        *chat, *tokenizer, golden["conversations"][item["conversation"].get<std::string>()], kVariables);
    ASSERT_TRUE(tokens.has_value()) << tokens.error().message;
    EXPECT_EQ(tokens->token_ids, item["token_ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(tokens->by_assistant, item["by_assistant"].get<std::vector<uint8_t>>()) << Spelled(*tokenizer, *tokens);
  }
}

class MaskTest : public testing::Test {
 protected:
  // The conversation's tokens, with braces around what the assistant says, or the error.
  std::string Mask(const std::string& source, const Json& messages) {
    const auto chat = ChatTemplate::Parse(source, "t");
    if (!chat) return chat.error().message;
    const auto tokens = EncodeConversation(*chat, *tokenizer_, messages, kVariables);
    return tokens ? Spelled(*tokenizer_, *tokens) : "error: " + tokens.error().message;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = LoadGoldenTokenizer("smollm", {{"<|im_start|>", 420}, {"<|im_end|>", 421}});
};

TEST_F(MaskTest, ToolCallsAreTheAssistantsWords) {
  const std::string source = R"({%- for m in messages -%}<|im_start|>{{ m.role }}:
{{- m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].name }}{% endif %}<|im_end|>
{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant:{%- endif -%})";
  EXPECT_EQ(Mask(source, {{{"role", "user"}, {"content", "a"}},
                          {{"role", "assistant"}, {"content", "b"}, {"tool_calls", {{{"name", "c"}}}}},
                          {{"role", "tool"}, {"content", "d"}}}),
            "<|im_start|>user:a<|im_end|><|im_start|>assistant:{bc<|im_end|>}<|im_start|>tool:d<|im_end|>");
}

TEST_F(MaskTest, ContentsAreFoundWhereTheWholeIsRenderedOtherwise) {
  // The number of messages comes first, so that no part is a beginning of the whole.
  const std::string source =
      "{{ messages | length }}{% for m in messages %}<|im_start|>{{ m.role }} says {{ m.content | trim }}"
      "<|im_end|>{% endfor %}";
  EXPECT_EQ(
      Mask(source, {{{"role", "user"}, {"content", "x"}},
                    {{"role", "assistant"}, {"content", " x "}},
                    {{"role", "user"}, {"content", "user says x"}}}),
      "3<|im_start|>userĠsaysĠx<|im_end|><|im_start|>assistantĠsaysĠ{x<|im_end|>}<|im_start|>userĠsaysĠuserĠsaysĠx"
      "<|im_end|>");
}

TEST_F(MaskTest, WhatFollowsTheEndOfAMessageIsNobodys) {
  const std::string source =
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}";
  EXPECT_EQ(Mask(source, {{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b\n\n"}}}),
            "<|im_start|>userĊa<|im_end|>Ċ<|im_start|>assistantĊ{bĊĊ<|im_end|>}Ċ</s>");
}

TEST_F(MaskTest, WhatCannotBeToldIsAnError) {
  // The number of messages and an upper case that the contents don't have.
  const std::string source =
      "{{ messages | length }}{% for m in messages %}{{ m.role }} {{ m.content | upper }}{% endfor %}";
  const Json messages = {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"content", "y"}}};
  EXPECT_THAT(Mask(source, messages), HasSubstr("can't be told"));
  const Json call = {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"tool_calls", Json::array()}}};
  EXPECT_THAT(Mask("{{ messages | length }}{{ messages[0].content }}", call), HasSubstr("can't be told"));
}

TEST_F(MaskTest, WrongMessagesAreErrors) {
  EXPECT_THAT(Mask("x", Json::array()), HasSubstr("must be a list"));
  EXPECT_THAT(Mask("x", "text"), HasSubstr("must be a list"));
  EXPECT_THAT(Mask("x", {1}), HasSubstr("an object with a role"));
  EXPECT_THAT(Mask("x", {{{"role", 1}}}), HasSubstr("an object with a role"));
  EXPECT_THAT(Mask("x", Json(2000, {{"role", "user"}})), HasSubstr("2000 messages, the limit is 1024"));
  EXPECT_THAT(Mask("{{ raise_exception('no') }}", {{{"role", "user"}}}), HasSubstr("no"));
}

}  // namespace
}  // namespace swiftkv
