// One request from the command line: run it, stream it, say how long it took.
#ifndef SWIFTKV_CLI_GENERATION_H_
#define SWIFTKV_CLI_GENERATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/load.h"

namespace swiftkv {

struct Answer {
  std::vector<Completion> completions;  // by choice
  std::vector<PositionLogprobs> prompt_logprobs;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  uint64_t seed = 0;
  double ttft_s = 0;   // from the request to its first token
  double total_s = 0;  // from the request to its end
  bool interrupted = false;

  int64_t completion_tokens() const;
  // Prompt tokens computed before the first token, a second.
  double prefill_tokens_per_s() const;
  // Tokens after the first of each choice, a second.
  double decode_tokens_per_s() const;
};

// Tokens of context to use: `wanted`, or for 0 the model's own limit, less if half the memory does not hold their K/V.
int64_t ChooseModelLen(const LoadedModel& model, int64_t wanted);

// Runs `request` to its end or to Ctrl-C; `on_text` gets the text of choice 0 as it comes.
Result<Answer> RunRequest(Engine* engine, Request request, const std::function<Status(std::string_view)>& on_text);

// "prompt 512 tokens, TTFT 0.210 s, prefill 2438 tok/s; output 64 tokens, decode 45.1 tok/s"
std::string TimingsLine(const Answer& answer);
// The object that --json prints; docs/cli.md describes it.
nlohmann::ordered_json AnswerJson(const Answer& answer, const LoadedModel& model);
// One line; text that is not valid UTF-8 has U+FFFD instead.
std::string JsonLine(const nlohmann::ordered_json& json);

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_GENERATION_H_
