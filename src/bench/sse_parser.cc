#include "bench/sse_parser.h"

#include <utility>

namespace swiftkv {

Status SseParser::Push(std::string_view bytes, const std::function<Status(std::string_view data)>& on_event) {
  while (!bytes.empty()) {
    if (std::exchange(after_carriage_return_, false) && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      continue;
    }
    const size_t end = bytes.find_first_of("\r\n");
    line_.append(bytes.substr(0, end));
    if (line_.size() + data_.size() > kMaxEventBytes) {
      return InvalidInput("an event of the stream is larger than {} bytes", kMaxEventBytes);
    }
    if (end == std::string_view::npos) return Ok();
    after_carriage_return_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    SWIFTKV_RETURN_IF_ERROR(EndLine(on_event));
  }
  return Ok();
}

Status SseParser::EndLine(const std::function<Status(std::string_view data)>& on_event) {
  const std::string line = std::exchange(line_, {});
  if (line.empty()) {
    const std::string data = std::exchange(data_, {});
    return std::exchange(has_data_, false) ? on_event(data) : Ok();
  }
  const size_t colon = line.find(':');
  if (std::string_view(line).substr(0, colon) != "data") return Ok();
  std::string_view value = colon == std::string::npos ? std::string_view() : std::string_view(line).substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (std::exchange(has_data_, true)) data_ += '\n';
  data_ += value;
  return Ok();
}

}  // namespace swiftkv
