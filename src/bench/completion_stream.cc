#include "bench/completion_stream.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "checkpoint/json_file.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// The member `name` of an object, or null.
const Json& Member(const Json& json, const char* name) {
  static const Json null;
  if (!json.is_object()) return null;
  const auto found = json.find(name);
  return found != json.end() ? *found : null;
}

std::string TextOf(const Json& json, const char* name) {
  const Json& text = Member(json, name);
  return text.is_string() ? text.get<std::string>() : std::string();
}

int64_t CountOf(const Json& usage, const char* name) {
  const Json& count = Member(usage, name);
  return count.is_number_integer() ? std::max<int64_t>(count.get<int64_t>(), 0) : 0;
}

std::string ErrorText(const Json& error) {
  const std::string message = TextOf(error, "message");
  return Printable(message.empty() ? error.dump(-1, ' ', true, Json::error_handler_t::replace) : message);
}

}  // namespace

Status CompletionStream::Push(std::string_view bytes, double seconds) {
  return parser_.Push(bytes, [&](std::string_view data) { return Read(data, seconds); });
}

Status CompletionStream::Read(std::string_view data, double seconds) {
  if (data == "[DONE]") {
    done_ = true;
    return Ok();
  }
  const Result<Json> event = ParseJsonObject(data, "an event of the stream");
  if (!event) return InvalidInput("{}: {}", event.error().message, Printable(data));
  const Json& json = *event;
  if (const Json& error = Member(json, "error"); !error.is_null()) return IoError("{}", ErrorText(error));
  if (const Json& usage = Member(json, "usage"); usage.is_object()) {
    seen_.prompt_tokens = CountOf(usage, "prompt_tokens");
    seen_.output_tokens = CountOf(usage, "completion_tokens");
  }
  const Json& choices = Member(json, "choices");
  if (!choices.is_array() || choices.empty()) return Ok();
  const Json& choice = choices.front();
  const Json& delta = Member(choice, "delta");
  const std::string text = TextOf(choice, "text") + TextOf(delta, "content") + TextOf(delta, "reasoning_content");
  const bool finishes = !Member(choice, "finish_reason").is_null();
  finished_ |= finishes;
  if (text.empty() && (finishes || !Member(delta, "role").is_null())) return Ok();
  if (outputs_++ == 0) {
    seen_.ttft = seconds;
  } else {
    seen_.inter_token.push_back(seconds - seen_.latency);
  }
  seen_.latency = seconds;
  if (keep_text_) seen_.text += text;
  return Ok();
}

Status CompletionStream::Finish(RequestOutcome* outcome) const {
  const double start = outcome->start;
  const int64_t prompt_tokens = outcome->prompt_tokens;
  *outcome = seen_;
  outcome->start = start;
  if (outcome->prompt_tokens == 0) outcome->prompt_tokens = prompt_tokens;
  if (outcome->output_tokens == 0) outcome->output_tokens = outputs_;
  if (!done_ && !finished_) return InvalidInput("the stream ended before the answer did");
  if (outputs_ == 0) return InvalidInput("the answer has no output");
  return Ok();
}

}  // namespace swiftkv
