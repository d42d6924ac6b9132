#include "cli/generation.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "base/file.h"
#include "base/parallel.h"
#include "cli/terminal.h"
#include "engine/memory.h"

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double PerSecond(int64_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; }

Json LogprobJson(const TokenLogprob& token) {
  return {{"token_id", token.token_id}, {"logprob", token.logprob}, {"rank", token.rank}};
}

Json LogprobsJson(const std::vector<PositionLogprobs>& positions) {
  Json list = Json::array();
  for (const PositionLogprobs& position : positions) {
    Json entry = LogprobJson(position.token);
    entry["top"] = Json::array();
    for (const TokenLogprob& token : position.top) entry["top"].push_back(LogprobJson(token));
    list.push_back(std::move(entry));
  }
  return list;
}

Json CompletionJson(const Completion& completion) {
  Json json = {{"text", completion.text},
               {"token_ids", completion.token_ids},
               {"finish_reason", Name(completion.finish_reason)},
               {"stop_reason", nullptr}};
  if (!completion.stop_reason.empty()) json["stop_reason"] = completion.stop_reason;
  if (!completion.logprobs.empty()) json["logprobs"] = LogprobsJson(completion.logprobs);
  return json;
}

// Tokens of context to use: `wanted`, or for 0 what the model and half the memory allow.
int64_t ChooseModelLen(const LoadedModel& model, std::optional<DType> cache_dtype, int64_t wanted) {
  if (wanted > 0) return wanted;
  const ModelConfig& config = model.weights.config;
  const KvLayout layout = CacheLayout(model.weights, model.mode, cache_dtype);
  const int64_t bytes = layout.bytes_per_token();
  const int64_t available = AvailableBytes(*layout.memory);
  if (available == 0) return config.max_position_embeddings;
  const int64_t tokens = std::clamp<int64_t>(available / 2 / bytes, 1, config.max_position_embeddings);
  if (tokens < config.max_position_embeddings) {
    spdlog::warn("the context is {} of the model's {} tokens: half of the memory available holds their K/V", tokens,
                 config.max_position_embeddings);
  }
  return tokens;
}

}  // namespace

Result<std::optional<std::string>> GenerationFlags::Text() const {
  if (!prompt && file.empty()) return std::nullopt;
  std::string text = prompt.value_or("");
  std::string origin = "--prompt";
  if (file == "-") {
    origin = "standard input";
    SWIFTKV_ASSIGN_OR_RETURN(text, ReadAllInput(kMaxPromptBytes));
  } else if (!file.empty()) {
    origin = file;
    SWIFTKV_ASSIGN_OR_RETURN(text, ReadFile(file, kMaxPromptBytes));
  }
  SWIFTKV_RETURN_IF_ERROR(CheckPrompt(text, origin));
  return std::optional<std::string>(std::move(text));
}

Json GenerationFlags::Messages() const {
  Json messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  return messages;
}

int64_t Answer::completion_tokens() const {
  int64_t tokens = 0;
  for (const Completion& completion : completions) tokens += static_cast<int64_t>(completion.token_ids.size());
  return tokens;
}

double Answer::prefill_tokens_per_s() const { return PerSecond(prompt_tokens - cached_tokens, ttft_s); }

double Answer::decode_tokens_per_s() const {
  const int64_t later = completion_tokens() - static_cast<int64_t>(completions.size());
  return later > 0 ? PerSecond(later, total_s - ttft_s) : 0;
}

EngineOptions MakeEngineOptions(const ModelFlags& flags, const LoadedModel& model) {
  EngineOptions options;
  options.kv_cache_dtype = ParseCacheType(flags.kv_cache_dtype);
  options.max_model_len = ChooseModelLen(model, options.kv_cache_dtype, flags.max_model_len);
  options.scheduler.max_num_batched_tokens = flags.BatchedTokens(*model.weights.backend);
  return options;
}

Result<Answer> RunRequest(Engine* engine, Request request, const std::function<Status(std::string_view)>& on_text) {
  Answer answer;
  answer.prompt_tokens = static_cast<int64_t>(request.prompt_token_ids.size());
  if (!request.sampling.seed) request.sampling.seed = std::random_device()();
  answer.seed = *request.sampling.seed;
  answer.completions.resize(static_cast<size_t>(std::clamp(request.sampling.n, 1, kMaxChoices)));

  const Clock::time_point start = Clock::now();
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t id, engine->Add(std::move(request)));
  bool first = true;
  while (engine->HasWork()) {
    if (Interrupted() != 0) {
      engine->Abort(id);
      answer.interrupted = true;
      for (Completion& completion : answer.completions) completion.finish_reason = FinishReason::kAbort;
      break;
    }
    for (RequestOutput& output : engine->Step()) {
      SWIFTKV_RETURN_IF_ERROR(std::move(output.error));
      if (std::exchange(first, false)) {
        answer.ttft_s = SecondsSince(start);
        answer.cached_tokens = output.cached_tokens;
        answer.prompt_logprobs = std::move(output.prompt_logprobs);
      }
      if (output.index == 0 && on_text && !output.text.empty()) {
        if (Status status = on_text(output.text); !status) {
          engine->Abort(id);
          return tl::unexpected<Error>(std::move(status).error());
        }
      }
      Completion& completion = answer.completions[static_cast<size_t>(output.index)];
      Append(std::move(output), &completion);
    }
  }
  answer.total_s = SecondsSince(start);
  return answer;
}

std::string TimingsLine(const Answer& answer) {
  std::string line = fmt::format("prompt {} tokens", answer.prompt_tokens);
  if (answer.cached_tokens > 0) line += fmt::format(" ({} from the cache)", answer.cached_tokens);
  line += fmt::format(", TTFT {:.3f} s, prefill {:.1f} tok/s; output {} tokens, decode {:.1f} tok/s", answer.ttft_s,
                      answer.prefill_tokens_per_s(), answer.completion_tokens(), answer.decode_tokens_per_s());
  if (answer.interrupted) line += "; interrupted";
  return line;
}

Json AnswerJson(const Answer& answer, const LoadedModel& model) {
  Json json = CompletionJson(answer.completions.front());
  if (answer.completions.size() > 1) {
    for (const Completion& completion : answer.completions) json["choices"].push_back(CompletionJson(completion));
  }
  if (!answer.prompt_logprobs.empty()) json["prompt_logprobs"] = LogprobsJson(answer.prompt_logprobs);
  json["seed"] = answer.seed;
  json["usage"] = {{"prompt_tokens", answer.prompt_tokens},
                   {"cached_tokens", answer.cached_tokens},
                   {"completion_tokens", answer.completion_tokens()},
                   {"total_tokens", answer.prompt_tokens + answer.completion_tokens()}};
  json["timings"] = {{"ttft_s", answer.ttft_s},
                     {"prefill_tokens_per_s", answer.prefill_tokens_per_s()},
                     {"decode_tokens_per_s", answer.decode_tokens_per_s()},
                     {"total_s", answer.total_s}};
  const ModelConfig& config = model.weights.config;
  json["model"] = {{"origin", model.origin},
                   {"mode", ModeName(model.mode)},
                   {"num_hidden_layers", config.num_hidden_layers},
                   {"num_key_value_layers", config.num_key_value_layers},
                   {"key_value_group_size", config.key_value_group_size},
                   {"dtype", Name(model.weights.dtype)}};
  json["isa"] = model.weights.backend->name();
  json["threads"] = Threads();
  return json;
}

std::string JsonLine(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace swiftkv
