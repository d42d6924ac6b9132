#include "engine/request.h"

#include <cmath>

#include "engine/utf8.h"

namespace swiftkv {
namespace {

Status InRange(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return Ok();
  return InvalidInput("{} is {}; it must be from {} to {}", name, value, low, high);
}

Status CheckRanges(const SamplingParams& params) {
  SWIFTKV_RETURN_IF_ERROR(InRange("n", params.n, 1, kMaxChoices));
  SWIFTKV_RETURN_IF_ERROR(InRange("temperature", params.temperature, 0, 100));
  if (!(params.top_p > 0)) return InvalidInput("top_p is {}; it must be above 0 and at most 1", params.top_p);
  SWIFTKV_RETURN_IF_ERROR(InRange("top_p", params.top_p, 0, 1));
  SWIFTKV_RETURN_IF_ERROR(InRange("min_p", params.min_p, 0, 1));
  if (params.top_k < -1) return InvalidInput("top_k is {}; it must be -1 or 0 (all tokens), or more", params.top_k);
  if (!(params.repetition_penalty > 0)) {
    return InvalidInput("repetition_penalty is {}; it must be above 0", params.repetition_penalty);
  }
  SWIFTKV_RETURN_IF_ERROR(InRange("repetition_penalty", params.repetition_penalty, 0, 100));
  constexpr double kPenalty = kPresenceFrequencyPenalty;
  SWIFTKV_RETURN_IF_ERROR(InRange("presence_penalty", params.presence_penalty, -kPenalty, kPenalty));
  SWIFTKV_RETURN_IF_ERROR(InRange("frequency_penalty", params.frequency_penalty, -kPenalty, kPenalty));
  if (params.max_tokens && *params.max_tokens < 0) {
    return InvalidInput("max_tokens is {}; it must be 0 or more", *params.max_tokens);
  }
  if (params.min_tokens < 0) return InvalidInput("min_tokens is {}; it must be 0 or more", params.min_tokens);
  if (params.max_tokens && params.min_tokens > *params.max_tokens) {
    return InvalidInput("min_tokens is {}, more than max_tokens {}", params.min_tokens, *params.max_tokens);
  }
  if (params.logprobs) SWIFTKV_RETURN_IF_ERROR(InRange("logprobs", *params.logprobs, 0, kMaxLogprobs));
  if (params.prompt_logprobs) {
    SWIFTKV_RETURN_IF_ERROR(InRange("prompt_logprobs", *params.prompt_logprobs, 0, kMaxLogprobs));
  }
  if (params.prompt_logprobs_begin < 1) {
    return InvalidInput("prompt_logprobs_begin is {}; it must be 1 or more", params.prompt_logprobs_begin);
  }
  return Ok();
}

Status CheckStops(const SamplingParams& params) {
  if (params.stop.size() > kMaxStopStrings) {
    return InvalidInput("stop has {} strings; the limit is {}", params.stop.size(), kMaxStopStrings);
  }
  for (const std::string& stop : params.stop) {
    if (stop.empty()) return InvalidInput("stop holds an empty string");
    if (stop.size() > kMaxStopBytes) {
      return InvalidInput("stop holds a string of {} bytes; the limit is {}", stop.size(), kMaxStopBytes);
    }
    if (FirstInvalidUtf8(stop)) return InvalidInput("stop holds a string that is not valid UTF-8");
  }
  return Ok();
}

Status CheckToken(const char* name, int32_t id, int64_t vocab_size) {
  if (id >= 0 && id < vocab_size) return Ok();
  return InvalidInput("{} names token {}; the vocabulary has 0 to {}", name, id, vocab_size - 1);
}

}  // namespace

Status Validate(const SamplingParams& params, int64_t vocab_size) {
  SWIFTKV_RETURN_IF_ERROR(CheckRanges(params));
  SWIFTKV_RETURN_IF_ERROR(CheckStops(params));
  if (params.stop_token_ids.size() > kMaxTokenLists || params.logit_bias.size() > kMaxTokenLists) {
    return InvalidInput("stop_token_ids and logit_bias may have {} entries at most", kMaxTokenLists);
  }
  for (const int32_t id : params.stop_token_ids) SWIFTKV_RETURN_IF_ERROR(CheckToken("stop_token_ids", id, vocab_size));
  for (const auto& [id, bias] : params.logit_bias) {
    SWIFTKV_RETURN_IF_ERROR(CheckToken("logit_bias", id, vocab_size));
    SWIFTKV_RETURN_IF_ERROR(InRange("logit_bias", bias, -kLogitBiasLimit, kLogitBiasLimit));
  }
  return Ok();
}

std::string_view Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
  }
  return "";
}

}  // namespace swiftkv
