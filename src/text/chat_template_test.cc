#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// The rendered text, or "error: " and what went wrong.
std::string Render(const std::string& source, const Json& variables = Json::object(),
                   const RenderOptions& options = {}) {
  auto chat = ChatTemplate::Parse(source, "t");
  if (!chat) return "error: " + chat.error().message;
  auto text = chat->Render(variables, options);
  return text ? *text : "error: " + text.error().message;
}

TEST(ChatTemplate, RendersChatMl) {
  const std::string source =
      "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
      "{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}"
      "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  EXPECT_EQ(Render(source, {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"add_generation_prompt", true}}),
            "<|im_start|>system\nBe helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, NamesOriginAndLineInErrors) {
  EXPECT_EQ(Render("a\n{% if %}"), "error: t:2: Expected an expression, got 'end of statement block'");
  EXPECT_EQ(Render("a\n\n{{ x.y }}"), "error: t:3: 'x' is undefined");
  EXPECT_EQ(Render("{{ raise_exception('No.') }}"), "error: No.");
}

}  // namespace
}  // namespace swiftkv
