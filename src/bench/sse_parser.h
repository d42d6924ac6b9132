// Server-sent events (WHATWG HTML, "event stream interpretation") out of bytes that come in any pieces.
//
//   SseParser parser;
//   SWIFTKV_RETURN_IF_ERROR(parser.Push(bytes, [&](std::string_view data) { return HandleEvent(data); }));
#ifndef SWIFTKV_BENCH_SSE_PARSER_H_
#define SWIFTKV_BENCH_SSE_PARSER_H_

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace swiftkv {

class SseParser {
 public:
  static constexpr size_t kMaxEventBytes = 1 << 20;

  // Calls `on_event` with the data of each event that is complete. Only the field `data` is used; comments and other
  // fields are skipped. Errors: what `on_event` returns; kInvalidInput, an event above kMaxEventBytes.
  Status Push(std::string_view bytes, const std::function<Status(std::string_view data)>& on_event);

 private:
  Status EndLine(const std::function<Status(std::string_view data)>& on_event);

  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_carriage_return_ = false;  // a newline now belongs to it
};

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_SSE_PARSER_H_
