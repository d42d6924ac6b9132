// The API's answers as JSON: OpenAI's objects, with vLLM's extra fields.
#ifndef SWIFTKV_SERVER_OPENAI_RESPONSE_H_
#define SWIFTKV_SERVER_OPENAI_RESPONSE_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/request.h"
#include "server/http.h"
#include "server/tool_calls.h"
#include "text/tokenizer.h"

namespace swiftkv {

// One line of JSON; text that is not valid UTF-8 has U+FFFD instead.
std::string ToText(const nlohmann::ordered_json& json);
HttpResponse JsonResponse(const nlohmann::ordered_json& json, int status = 200);

// An OpenAI error object. `param` is the request's field that is wrong, `code` a word for programs; empty: null.
HttpResponse ErrorResponse(int status, const std::string& message, const std::string& param = {},
                           const std::string& code = {});
// 400, 404, 429, 500 by the error's code; a message that begins with a field's name makes that the `param`, where none
// is given. A failure of the server's own (500) is told without its message, which may name files: the caller logs it.
HttpResponse ErrorResponse(const Error& error, const std::string& param = {}, const std::string& code = {});
// 503: the memory is out for this request alone.
HttpResponse OutOfMemoryResponse();
// What a stream that has begun says of an error.
nlohmann::ordered_json ErrorJson(int status, const std::string& message, const std::string& param = {},
                                 const std::string& code = {});

// A token's bytes: of a piece of a character, too, which is no text.
std::string TokenBytes(const Tokenizer& tokenizer, int32_t id);

// `logprobs` of /v1/completions. `text_offset`, in characters, is where the first token begins; it is moved on.
// `scores` of the prompt begin at its second token: give its first, which has none, as `first`, else -1.
nlohmann::ordered_json CompletionLogprobs(const Tokenizer& tokenizer, int32_t first,
                                          const std::vector<PositionLogprobs>& scores, int64_t* text_offset);
// `logprobs` of /v1/chat/completions.
nlohmann::ordered_json ChatLogprobs(const Tokenizer& tokenizer, const std::vector<PositionLogprobs>& scores);
// `tool_calls` of a message, or of a stream's piece, where each call bears its index and its first piece the name.
nlohmann::ordered_json ToolCallsJson(const std::vector<ToolCallReader::Call>& calls, bool is_piece);
// vLLM's `prompt_logprobs`: null for the first token, then an object by token id.
nlohmann::ordered_json PromptLogprobs(const Tokenizer& tokenizer, const std::vector<PositionLogprobs>& scores);

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_OPENAI_RESPONSE_H_
