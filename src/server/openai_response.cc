#include "server/openai_response.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/utf8.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

int HttpStatus(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidInput:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kResourceExhausted:
      return 429;
    case ErrorCode::kCancelled:
      return 503;
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      break;
  }
  return 500;
}

const char* ErrorType(int status) {
  if (status == 401) return "authentication_error";
  if (status == 404) return "not_found_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

// Messages about a field begin with its name (openai_request.h, engine/request.h).
std::string ParamOf(const std::string& message) {
  constexpr std::array kFields = {"add_generation_prompt",
                                  "add_special_tokens",
                                  "allowed_token_ids",
                                  "audio",
                                  "bad_words",
                                  "best_of",
                                  "chat_template",
                                  "chat_template_kwargs",
                                  "continue_final_message",
                                  "echo",
                                  "frequency_penalty",
                                  "functions",
                                  "guided_choice",
                                  "guided_grammar",
                                  "guided_json",
                                  "guided_regex",
                                  "ignore_eos",
                                  "include_stop_str_in_output",
                                  "logit_bias",
                                  "logits_processors",
                                  "logprobs",
                                  "max_completion_tokens",
                                  "max_tokens",
                                  "messages",
                                  "min_p",
                                  "min_tokens",
                                  "model",
                                  "n",
                                  "parallel_tool_calls",
                                  "presence_penalty",
                                  "priority",
                                  "prompt",
                                  "prompt_embeds",
                                  "prompt_logprobs",
                                  "repetition_penalty",
                                  "response_format",
                                  "return_token_ids",
                                  "return_token_strs",
                                  "return_tokens_as_token_ids",
                                  "seed",
                                  "skip_special_tokens",
                                  "stop",
                                  "stop_token_ids",
                                  "stream",
                                  "stream_options",
                                  "structured_outputs",
                                  "suffix",
                                  "temperature",
                                  "tokens",
                                  "tool_choice",
                                  "tools",
                                  "top_k",
                                  "top_logprobs",
                                  "top_p",
                                  "truncate_prompt_tokens",
                                  "use_beam_search",
                                  "web_search_options"};
  const std::string word = message.substr(0, message.find_first_of(" .["));
  return std::find(kFields.begin(), kFields.end(), word) == kFields.end() ? std::string() : word;
}

Json StringOrNull(const std::string& text) { return text.empty() ? Json() : Json(text); }

// The byte that a character of GPT-2's byte alphabet stands for: printable Latin-1 for itself, the other bytes, in
// order, for U+0100 and on.
std::optional<char> AlphabetByte(char32_t character) {
  const auto is_printable = [](char32_t c) {
    return (c >= '!' && c <= '~') || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
  };
  if (is_printable(character)) return static_cast<char>(character);
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 0x100; ++byte) {
    if (!is_printable(byte) && next++ == character) return static_cast<char>(byte);
  }
  return std::nullopt;
}

// A token's spelling as bytes, where it is written in that alphabet, whose characters have two bytes of UTF-8 at most.
std::optional<std::string> AlphabetBytes(std::string_view spelling) {
  std::string bytes;
  for (size_t i = 0; i < spelling.size(); ++i) {
    auto character = static_cast<char32_t>(static_cast<unsigned char>(spelling[i]));
    if (character >= 0x80) {
      if (character >= 0xE0 || i + 1 == spelling.size()) return std::nullopt;
      character = ((character & 0x1F) << 6) | (static_cast<unsigned char>(spelling[++i]) & 0x3F);
    }
    const std::optional<char> byte = AlphabetByte(character);
    if (!byte) return std::nullopt;
    bytes += *byte;
  }
  return bytes;
}

// "<0xE2>", as byte-fallback vocabularies spell a byte.
std::optional<std::string> FallbackByte(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling.back() != '>') return std::nullopt;
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const size_t high = kDigits.find(spelling[3]);
  const size_t low = kDigits.find(spelling[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return std::string(1, static_cast<char>(high * 16 + low));
}

// A token as text; a piece of a character as OpenAI writes it, "bytes:\xe2\x80", so that no two are the same.
std::string TokenText(const std::string& bytes) {
  if (!FirstInvalidUtf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char byte : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return text;
}

int64_t Characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

Json ChatToken(const Tokenizer& tokenizer, const TokenLogprob& token) {
  const std::string bytes = TokenBytes(tokenizer, token.token_id);
  Json numbers = Json::array();
  for (const char byte : bytes) numbers.push_back(static_cast<unsigned char>(byte));
  return {{"token", TokenText(bytes)}, {"logprob", token.logprob}, {"bytes", std::move(numbers)}};
}

}  // namespace

std::string ToText(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

HttpResponse JsonResponse(const Json& json, int status) {
  return {.status = status, .content_type = "application/json", .body = ToText(json)};
}

Json ErrorJson(int status, const std::string& message, const std::string& param, const std::string& code) {
  return {{"error",
           {{"message", message},
            {"type", ErrorType(status)},
            {"param", StringOrNull(param)},
            {"code", StringOrNull(code)}}}};
}

HttpResponse ErrorResponse(int status, const std::string& message, const std::string& param, const std::string& code) {
  HttpResponse response = JsonResponse(ErrorJson(status, message, param, code), status);
  if (status == 429 || status == 503) response.headers.push_back({"Retry-After", "1"});
  return response;
}

HttpResponse ErrorResponse(const Error& error, const std::string& param, const std::string& code) {
  const int status = HttpStatus(error.code);
  if (status == 500) return ErrorResponse(status, "the server failed; its log says how");
  return ErrorResponse(status, error.message, param.empty() ? ParamOf(error.message) : param, code);
}

HttpResponse OutOfMemoryResponse() { return ErrorResponse(503, "there is not enough memory for this request"); }

std::string TokenBytes(const Tokenizer& tokenizer, int32_t id) {
  const std::string_view spelling = tokenizer.IdToToken(id);
  std::string text = tokenizer.Decode(std::span(&id, 1), {.skip_special_tokens = false});
  if (text.find(kReplacement) != std::string::npos) {
    if (auto bytes = FallbackByte(spelling)) return std::move(*bytes);
    if (auto bytes = AlphabetBytes(spelling)) return std::move(*bytes);
  }
  // SentencePiece drops the space before the first word of a text, but this token need not be the first.
  constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581
  if (spelling.starts_with(kSpace) && !text.starts_with(' ')) text.insert(text.begin(), ' ');
  return text;
}

Json CompletionLogprobs(const Tokenizer& tokenizer, int32_t first, const std::vector<PositionLogprobs>& scores,
                        int64_t* text_offset) {
  Json tokens = Json::array();
  Json token_logprobs = Json::array();
  Json top_logprobs = Json::array();
  Json text_offsets = Json::array();
  const auto add = [&](int32_t id, Json logprob, Json top) {
    const std::string bytes = TokenBytes(tokenizer, id);
    tokens.push_back(TokenText(bytes));
    token_logprobs.push_back(std::move(logprob));
    top_logprobs.push_back(std::move(top));
    text_offsets.push_back(*text_offset);
    *text_offset += Characters(bytes);
  };
  if (first >= 0) add(first, Json(), Json());
  for (const PositionLogprobs& position : scores) {
    Json top = Json::object();
    for (const TokenLogprob& token : position.top) {
      top.emplace(TokenText(TokenBytes(tokenizer, token.token_id)), token.logprob);
    }
    // The token itself is told in any case.
    if (!position.top.empty()) {
      top.emplace(TokenText(TokenBytes(tokenizer, position.token.token_id)), position.token.logprob);
    }
    add(position.token.token_id, position.token.logprob, std::move(top));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(token_logprobs)},
          {"top_logprobs", std::move(top_logprobs)},
          {"text_offset", std::move(text_offsets)}};
}

Json ChatLogprobs(const Tokenizer& tokenizer, const std::vector<PositionLogprobs>& scores) {
  Json content = Json::array();
  for (const PositionLogprobs& position : scores) {
    Json entry = ChatToken(tokenizer, position.token);
    Json top = Json::array();
    for (const TokenLogprob& token : position.top) top.push_back(ChatToken(tokenizer, token));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

Json ToolCallsJson(const std::vector<ToolCallReader::Call>& calls, bool is_piece) {
  Json list = Json::array();
  for (const ToolCallReader::Call& call : calls) {
    Json entry = Json::object();
    if (is_piece) entry["index"] = call.index;
    if (!call.id.empty()) {
      entry["id"] = call.id;
      entry["type"] = "function";
      entry["function"]["name"] = call.name;
    }
    entry["function"]["arguments"] = call.arguments;
    list.push_back(std::move(entry));
  }
  return list;
}

Json PromptLogprobs(const Tokenizer& tokenizer, const std::vector<PositionLogprobs>& scores) {
  Json list = Json::array({nullptr});
  for (const PositionLogprobs& position : scores) {
    Json entry = Json::object();
    const auto add = [&](const TokenLogprob& token) {
      entry.emplace(std::to_string(token.token_id),
                    Json{{"logprob", token.logprob},
                         {"rank", token.rank},
                         {"decoded_token", TokenText(TokenBytes(tokenizer, token.token_id))}});
    };
    add(position.token);
    for (const TokenLogprob& token : position.top) add(token);
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace swiftkv
