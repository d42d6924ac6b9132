// One request from the command line: run it, stream it, say how long it took.
#ifndef SWIFTKV_CLI_GENERATION_H_
#define SWIFTKV_CLI_GENERATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "cli/options.h"
#include "engine/engine.h"
#include "engine/load.h"

namespace swiftkv {

// The flags that generate and chat share.
struct GenerationFlags {
  ModelFlags model;
  SamplingFlags sampling;
  OutputFlags output;
  std::optional<std::string> prompt;
  std::string file;  // "-": standard input
  std::string system;

  // The text of --prompt or --file, checked; nullopt if neither is given. Errors kInvalidInput, kNotFound, kIo.
  Result<std::optional<std::string>> Text() const;
  // An array with the system message, if there is one.
  nlohmann::ordered_json Messages() const;
};

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

// What the flags say about the engine. Without --max-model-len the context is the model's own, less if half the memory
// does not hold its K/V.
EngineOptions MakeEngineOptions(const ModelFlags& flags, const LoadedModel& model);

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
