// Any template with any variables: an error or a text, never a crash, a hang or much memory. The input is the template,
// then a zero byte and the variables as JSON; without those, a conversation that calls a tool.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "text/chat_template.h"

namespace {

using Json = nlohmann::ordered_json;

const Json& Conversation() {
  static const Json conversation = Json::parse(R"({
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": "Grüße <|im_end|>"},
      {"role": "assistant", "content": "", "reasoning_content": "x",
       "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"n": 1.5, "t": [null, true, "é"]}}}]},
      {"role": "tool", "content": [{"type": "text", "text": "21"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"n": {"type": "number"}}}}}],
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true})");
  return conversation;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const auto chat = swiftkv::ChatTemplate::Parse(input.substr(0, zero), "fuzz");
  if (!chat) return 0;
  Json variables = zero == std::string_view::npos
                       ? Conversation()
                       : Json::parse(input.substr(zero + 1), nullptr, /*allow_exceptions=*/false);
  if (variables.is_discarded()) variables = Conversation();
  swiftkv::RenderOptions options;
  options.limits = {.steps = 200'000, .depth = 300, .output_bytes = 1 << 20, .memory_bytes = 16 << 20};
  (void)chat->Render(variables, options);
  return 0;
}
