// Chat templates: the Jinja text in a model's folder or GGUF file, run by an interpreter of our own with limits, byte
// for byte as transformers' apply_chat_template renders it.
//
//   SWIFTKV_ASSIGN_OR_RETURN(ChatTemplate chat, ChatTemplate::Parse(source, "chat_template.jinja"));
//   SWIFTKV_ASSIGN_OR_RETURN(std::string prompt, chat.Render({{"messages", ...}, {"add_generation_prompt", true}}));
#ifndef SWIFTKV_TEXT_CHAT_TEMPLATE_H_
#define SWIFTKV_TEXT_CHAT_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace swiftkv {

struct TemplateLimits {
  int64_t steps = 20'000'000;          // nodes evaluated
  int64_t depth = 200;                 // nested expressions, blocks and macro calls
  int64_t output_bytes = 256ll << 20;  // rendered text, and any single string on the way
};

class ChatTemplate {
 public:
  // Error kInvalidInput: syntax error, with origin, line and what was expected.
  static Result<ChatTemplate> Parse(std::string_view source, const std::string& origin);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `variables`: a JSON object: messages, tools, documents, add_generation_prompt, bos_token, eos_token, and whatever
  // else the caller passes (chat_template_kwargs). Errors: raise_exception's own text, a limit, a type error.
  Result<std::string> Render(const nlohmann::ordered_json& variables, const TemplateLimits& limits = {}) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_CHAT_TEMPLATE_H_
