// One streamed answer of an OpenAI-compatible server, as it arrives: when each output came, how many tokens there were.
// Both kinds of answer are read, /v1/completions' and /v1/chat/completions'.
//
//   CompletionStream stream(/*keep_text=*/false);
//   SWIFTKV_RETURN_IF_ERROR(stream.Push(bytes, seconds_since_sending));
//   SWIFTKV_RETURN_IF_ERROR(stream.Finish(&outcome));
//
// An output is a chunk with text; or with empty text but neither role nor finish_reason, as some servers send for a
// token whose text isn't certain yet. Chunks that only open or close the answer are none.
#ifndef SWIFTKV_BENCH_COMPLETION_STREAM_H_
#define SWIFTKV_BENCH_COMPLETION_STREAM_H_

#include <string>
#include <string_view>

#include "base/status.h"
#include "bench/load_run.h"
#include "bench/sse_parser.h"

namespace swiftkv {

class CompletionStream {
 public:
  explicit CompletionStream(bool keep_text) : keep_text_(keep_text) {}

  // Bytes that arrived `seconds` after the request was sent. Errors: kInvalidInput (no SSE, no JSON), kIo (an error
  // that the server reports within the stream).
  Status Push(std::string_view bytes, double seconds);
  // The answer's end was seen: "[DONE]".
  bool done() const { return done_; }
  // Fills in times and counts. Without the server's usage every output counts as one token. Error kInvalidInput: the
  // stream broke off before its end, or there was no output in it.
  Status Finish(RequestOutcome* outcome) const;

 private:
  Status Read(std::string_view data, double seconds);

  bool keep_text_;
  bool done_ = false;
  SseParser parser_;
  RequestOutcome seen_;
  int64_t outputs_ = 0;
  bool finished_ = false;  // a finish_reason was seen
};

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_COMPLETION_STREAM_H_
