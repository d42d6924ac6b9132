// Chat templates: the Jinja text in a model's folder or GGUF file, run by an interpreter of our own with limits, byte
// for byte as transformers' apply_chat_template renders it.
//
//   SWIFTKV_ASSIGN_OR_RETURN(ChatTemplate chat, ChatTemplate::Parse(source, "chat_template.jinja"));
//   SWIFTKV_ASSIGN_OR_RETURN(std::string prompt, chat.Render({{"messages", ...}, {"add_generation_prompt", true}}));
#ifndef SWIFTKV_TEXT_CHAT_TEMPLATE_H_
#define SWIFTKV_TEXT_CHAT_TEMPLATE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace swiftkv {

struct TemplateLimits {
  int64_t steps = 20'000'000;          // nodes evaluated, items visited; 256 bytes of text count as one
  int32_t depth = 1000;                // nested evaluation: expressions, blocks, macro calls; nested values
  int64_t output_bytes = 256ll << 20;  // rendered text, and any single string on the way
  int64_t memory_bytes = 1ll << 30;    // values alive at one time
};

struct RenderOptions {
  TemplateLimits limits;
  // What errors call the template; that of Parse if not set. A server's clients are not told where its files lie.
  std::optional<std::string> origin;
  // What strftime_now tells, in local time; the system's clock if not set.
  std::optional<std::chrono::system_clock::time_point> now;
};

class ChatTemplate {
 public:
  static constexpr size_t kMaxSourceBytes = 1 << 20;

  // Error kInvalidInput: syntax error, with origin, line and what was expected; a source too large or nested too
  // deeply; a tag, filter or test that is not supported.
  static Result<ChatTemplate> Parse(std::string_view source, const std::string& origin);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `variables`: a JSON object: messages, tools, documents, add_generation_prompt, bos_token, eos_token, and whatever
  // else the caller passes (chat_template_kwargs). As in transformers tools and documents are none where not given,
  // and a message's reasoning_content, thinking and reasoning stand for each other.
  // Errors: kInvalidInput, raise_exception's own text or "origin:line: what was wrong"; kResourceExhausted, a limit.
  // Thread-safe.
  Result<std::string> Render(const nlohmann::ordered_json& variables, const RenderOptions& options = {}) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_CHAT_TEMPLATE_H_
