// What a caller asks of the engine and what comes back. Names and meanings are vLLM's SamplingParams.
//
//   Request request{.prompt_token_ids = tokenizer.Encode("Hello", {}), .sampling = {.temperature = 0, .max_tokens =
//   8}}; SWIFTKV_RETURN_IF_ERROR(Validate(request.sampling, vocab_size));
#ifndef SWIFTKV_ENGINE_REQUEST_H_
#define SWIFTKV_ENGINE_REQUEST_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/token_constraint.h"

namespace swiftkv {

inline constexpr int32_t kMaxChoices = 128;             // n
inline constexpr int32_t kMaxLogprobs = 20;             // alternatives a position
inline constexpr size_t kMaxStopStrings = 64;           // stop
inline constexpr size_t kMaxStopBytes = 1024;           // one stop string
inline constexpr size_t kMaxTokenLists = 1024;          // entries of stop_token_ids and of logit_bias
inline constexpr double kGreedyTemperature = 1e-5;      // below: the most likely token, no draw
inline constexpr float kLogitBiasLimit = 100;           // |logit_bias|
inline constexpr double kPresenceFrequencyPenalty = 2;  // |presence_penalty|, |frequency_penalty|

struct SamplingParams {
  int32_t n = 1;                                           // completions of the one prompt
  double temperature = 1.0;                                // 0: greedy
  int64_t top_k = 0;                                       // keep the k most likely tokens; 0 or -1: all
  double top_p = 1.0;                                      // keep the most likely tokens up to this mass
  double min_p = 0.0;                                      // keep tokens at least this share as likely as the likeliest
  double repetition_penalty = 1.0;                         // on tokens of prompt and output; > 1 discourages
  double presence_penalty = 0.0;                           // on tokens of the output, once
  double frequency_penalty = 0.0;                          // on tokens of the output, per occurrence
  std::optional<uint64_t> seed = {};                       // absent: drawn anew for every request
  std::optional<int64_t> max_tokens = {};                  // absent: as many as the context holds; 0: score the prompt
  int64_t min_tokens = 0;                                  // no end-of-sequence, stop token or stop string before
  std::vector<std::string> stop = {};                      // UTF-8; the output ends before the first of them
  std::vector<int32_t> stop_token_ids = {};                // beside the model's own end-of-sequence tokens
  bool ignore_eos = false;                                 // run on to max_tokens
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // added to the raw logits
  std::optional<int32_t> logprobs = {};         // log-probability of each token and of that many alternatives
  std::optional<int32_t> prompt_logprobs = {};  // the same for the prompt's tokens
  int64_t prompt_logprobs_begin = 1;            // first prompt token that is scored (token 0 has no score)
  bool skip_special_tokens = true;              // in the output text
};

// Error kInvalidInput names the parameter, its value and the limit. Token ids must be below `vocab_size`.
Status Validate(const SamplingParams& params, int64_t vocab_size);

struct Request {
  std::vector<int32_t> prompt_token_ids = {};
  SamplingParams sampling = {};
  int32_t priority = 0;  // lower goes first, as in vLLM; equals in order of arrival
  double timeout_s = 0;  // from the arrival on; a request that takes longer ends with an error; 0: no limit
  std::optional<std::chrono::steady_clock::time_point> arrival = {};  // absent: when it is added to the engine
  // What the choices may say, such as JSON of a schema; null: anything.
  std::shared_ptr<const TokenConstraintFactory> constraint = nullptr;
};

enum class FinishReason {
  kStop,    // end of sequence, stop token or stop string
  kLength,  // max_tokens, or the context is full
  kAbort,   // stopped from outside
};
std::string_view Name(FinishReason reason);  // "stop", "length", "abort"

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;  // of the model's raw distribution: before bias, penalties, temperature and truncation
  int32_t rank = 0;   // 1: the most likely
};

struct PositionLogprobs {
  TokenLogprob token;             // the token that stands there
  std::vector<TokenLogprob> top;  // most likely first, as many as were asked for
};

// One finished choice of a request.
struct Completion {
  int32_t index = 0;  // 0 .. n - 1
  std::vector<int32_t> token_ids;
  std::string text;
  std::vector<PositionLogprobs> logprobs;  // one a token, if asked for
  FinishReason finish_reason = FinishReason::kLength;
  std::string stop_reason;  // the stop string that ended it, if one did
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_REQUEST_H_
