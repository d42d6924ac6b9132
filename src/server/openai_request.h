// What clients ask of the API, read from JSON: OpenAI's fields with OpenAI's meanings, and vLLM's extra ones. Unknown
// fields are ignored; fields whose meaning would be lost by ignoring them are refused.
//
//   SWIFTKV_ASSIGN_OR_RETURN(GenerationRequest request, ParseCompletionRequest(body));
//
// Errors are kInvalidInput and begin with the field's name. Ranges of sampling parameters and of token ids are the
// engine's to check (engine/request.h).
#ifndef SWIFTKV_SERVER_OPENAI_REQUEST_H_
#define SWIFTKV_SERVER_OPENAI_REQUEST_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "engine/request.h"
#include "server/tool_calls.h"

namespace swiftkv {

inline constexpr size_t kMaxPrompts = 1024;   // of one request to /v1/completions
inline constexpr size_t kMaxMessages = 4096;  // of one conversation

using Prompt = std::variant<std::string, std::vector<int32_t>>;  // text or token ids

// Messages, and the variables that the chat template is given beside them: tools, documents, chat_template_kwargs,
// add_generation_prompt. The contents of messages are strings or null.
struct Conversation {
  std::shared_ptr<const nlohmann::ordered_json> messages;
  std::shared_ptr<const nlohmann::ordered_json> variables;
  ToolRules tools;
};

// What the answer must be: response_format, vLLM's guided_json and structured_outputs, or a tool_choice that forces a
// call.
struct OutputFormat {
  enum class Kind { kText, kJsonObject, kJsonSchema };
  Kind kind = Kind::kText;
  std::string schema = {};  // JSON, of kJsonSchema
  std::string field = {};   // that asked for it
};

struct GenerationRequest {
  bool chat = false;
  std::string model = {};  // empty: whatever is served
  std::vector<Prompt> prompts = {};
  Conversation conversation = {};
  bool add_special_tokens = true;  // of prompts that are text
  SamplingParams sampling = {};
  OutputFormat format = {};
  std::shared_ptr<const TokenConstraintFactory> constraint =
      nullptr;           // made of `format` later, where the model is known
  int32_t priority = 0;  // lower goes first
  bool echo = false;
  bool stream = false;
  bool include_usage = false;           // stream_options
  bool return_prompt_logprobs = false;  // vLLM's prompt_logprobs, apart from echo's
};

Result<GenerationRequest> ParseCompletionRequest(std::string_view body);
Result<GenerationRequest> ParseChatRequest(std::string_view body);

struct TokenizeRequest {
  std::string model;
  std::string prompt;
  Conversation conversation;  // instead of `prompt`, where there are messages
  bool add_special_tokens = true;
  bool return_token_strs = false;
};
Result<TokenizeRequest> ParseTokenizeRequest(std::string_view body);

struct DetokenizeRequest {
  std::string model;
  std::vector<int32_t> tokens;
};
Result<DetokenizeRequest> ParseDetokenizeRequest(std::string_view body);

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_OPENAI_REQUEST_H_
