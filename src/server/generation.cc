#include "server/generation.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/openai_response.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;
using Time = RequestTimes::Time;

double Seconds(Time from, Time to) {
  return from == Time() || to == Time() ? 0 : std::chrono::duration<double>(to - from).count();
}

// All of it runs on the strand of the client's connection.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(const ServerContext& context, GenerationRequest request,
             std::vector<std::vector<int32_t>> prompt_token_ids, const std::string& request_id, HttpReplyPtr reply)
      : context_(context),
        request_(std::move(request)),
        request_id_(request_id),
        id_((request_.chat ? "chatcmpl-" : "cmpl-") + request_id),
        created_(std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
                     .count()),
        reply_(std::move(reply)) {
    for (std::vector<int32_t>& token_ids : prompt_token_ids) prompts_.push_back({.token_ids = std::move(token_ids)});
  }

  void Start() {
    reply_->OnGone([self = shared_from_this()] { self->Leave(); });
    if (ended_) return;
    if (Status status = Submit(); !status) {
      Fail(status.error(), IsTooLong(status.error()) ? "context_length_exceeded" : "");
      return;
    }
    if (request_.stream) {
      reply_->Begin({.content_type = "text/event-stream; charset=utf-8",
                     .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
    }
  }

 private:
  struct PromptState {
    std::vector<int32_t> token_ids;
    int64_t engine_id = -1;  // -1: not submitted
    RequestTimes times = {};
    int64_t cached_tokens = 0;
    std::vector<PositionLogprobs> logprobs = {};
    bool finished = false;
  };
  struct ChoiceState {
    Completion completion;
    Time last_token = {};
    std::optional<ToolCallReader> tools = {};
    bool begun = false;       // a chunk of it has gone out
    int64_t text_offset = 0;  // characters of text that `logprobs` have told of
  };

  Status Submit() {
    const auto n = static_cast<size_t>(std::clamp(request_.sampling.n, 1, kMaxChoices));
    choices_.resize(prompts_.size() * n);
    for (size_t i = 0; i < choices_.size(); ++i) {
      choices_[i].tools.emplace(request_.conversation.tools, fmt::format("call-{}-{}", request_id_, i));
    }
    for (size_t i = 0; i < prompts_.size(); ++i) {
      Request request{.prompt_token_ids = prompts_[i].token_ids,
                      .sampling = request_.sampling,
                      .priority = request_.priority,
                      .timeout_s = context_.request_timeout_s};
      request.constraint = request_.constraint;
      const auto on_output = [self = shared_from_this(), i](RequestOutput output) {
        self->reply_->Post([self, i, output = std::move(output)]() mutable { self->OnOutput(i, std::move(output)); });
      };
      SWIFTKV_ASSIGN_OR_RETURN(prompts_[i].engine_id, context_.engine->Submit(std::move(request), on_output));
    }
    return Ok();
  }

  void OnOutput(size_t prompt_index, RequestOutput output) {
    if (ended_) return;
    PromptState& prompt = prompts_[prompt_index];
    prompt.times = output.times;
    prompt.finished = output.finished;
    if (!output.error) {
      ObserveFinished(prompt_index, "error");
      Fail(output.error.error());
      return;
    }
    if (!output.prompt_logprobs.empty()) prompt.logprobs = std::move(output.prompt_logprobs);
    prompt.cached_tokens = std::max(prompt.cached_tokens, output.cached_tokens);
    const size_t index = prompt_index * choices_.size() / prompts_.size() + static_cast<size_t>(output.index);
    ObserveTokens(output, &choices_[index]);
    if (request_.stream) WriteChunk(prompt, index, output);
    Append(std::move(output), &choices_[index].completion);
    if (request_.stream) choices_[index].completion.logprobs.clear();  // told already
    if (!prompt.finished) return;
    ObserveFinished(prompt_index, Name(choices_[index].completion.finish_reason));
    const auto is_finished = [](const PromptState& state) { return state.finished; };
    if (std::all_of(prompts_.begin(), prompts_.end(), is_finished)) Finish();
  }

  void Finish() {
    ended_ = true;
    Log(Name(choices_.front().completion.finish_reason));
    if (request_.stream) {
      if (request_.include_usage) {
        Json chunk = Head(ChunkObject());
        chunk["choices"] = Json::array();
        chunk["usage"] = Usage();
        WriteEvent(chunk);
      }
      reply_->Write("data: [DONE]\n\n");
      reply_->End();
    } else if (request_.sampling.prompt_logprobs) {
      context_.run_aside([self = shared_from_this()] { self->reply_->Send(JsonResponse(self->Answer())); });
    } else {
      reply_->Send(JsonResponse(Answer()));
    }
  }

  // OpenAI's clients tell a prompt that is too long from other errors by the code.
  bool IsTooLong(const Error& error) const {
    const auto is_too_long = [&](const PromptState& prompt) {
      return static_cast<int64_t>(prompt.token_ids.size()) >= context_.engine->max_model_len();
    };
    return error.code == ErrorCode::kInvalidInput && std::any_of(prompts_.begin(), prompts_.end(), is_too_long);
  }

  // `code`: OpenAI's word for the error, where it has one.
  void Fail(const Error& error, const std::string& code = {}) {
    Abort();
    const HttpResponse response = ErrorResponse(error, code);
    spdlog::info("request={} status={} error=\"{}\"", request_id_, response.status, error.message);
    if (!StreamHasBegun()) {
      reply_->Send(response);
    } else {
      reply_->Write("data: " + response.body + "\n\ndata: [DONE]\n\n");
      reply_->End();
    }
  }

  // The client has gone.
  void Leave() {
    if (ended_) return;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      if (!prompts_[i].finished) ObserveFinished(i, "abort");
    }
    Abort();
    Log("abort");
  }

  void Abort() {
    ended_ = true;
    for (const PromptState& prompt : prompts_) {
      if (prompt.engine_id >= 0 && !prompt.finished) context_.engine->Abort(prompt.engine_id);
    }
  }

  bool StreamHasBegun() const { return request_.stream && prompts_.back().engine_id >= 0; }

  void ObserveTokens(const RequestOutput& output, ChoiceState* choice) {
    if (output.token_ids.empty()) return;
    const Time now = output.times.last_output;
    if (choice->last_token != Time()) {
      context_.metrics->ObserveNextToken(Seconds(choice->last_token, now));
    } else if (output.times.first_token == now) {
      context_.metrics->ObserveFirstToken(Seconds(output.times.arrival, now));
    }
    choice->last_token = now;
  }

  void ObserveFinished(size_t prompt_index, std::string_view reason) {
    const size_t n = choices_.size() / prompts_.size();
    FinishedRequest finished{.times = prompts_[prompt_index].times,
                             .prompt_tokens = static_cast<int64_t>(prompts_[prompt_index].token_ids.size()),
                             .n = static_cast<int32_t>(n),
                             .finished_reason = reason};
    for (size_t i = prompt_index * n; i < (prompt_index + 1) * n; ++i) {
      finished.generation_tokens += static_cast<int64_t>(choices_[i].completion.token_ids.size());
    }
    context_.metrics->ObserveFinished(finished);
  }

  // Tokens over all prompts and choices; times are the longest of any prompt.
  Json Usage() const {
    int64_t prompt_tokens = 0;
    int64_t cached_tokens = 0;
    int64_t completion_tokens = 0;
    double queue = 0;
    double ttft = 0;
    double total = 0;
    for (const PromptState& prompt : prompts_) {
      prompt_tokens += static_cast<int64_t>(prompt.token_ids.size());
      cached_tokens += prompt.cached_tokens;
      queue = std::max(queue, Seconds(prompt.times.arrival, prompt.times.scheduled));
      ttft = std::max(ttft, Seconds(prompt.times.arrival, prompt.times.first_token));
      total = std::max(total, Seconds(prompt.times.arrival, prompt.times.last_output));
    }
    for (const ChoiceState& choice : choices_) {
      completion_tokens += static_cast<int64_t>(choice.completion.token_ids.size());
    }
    return {{"prompt_tokens", prompt_tokens},
            {"completion_tokens", completion_tokens},
            {"total_tokens", prompt_tokens + completion_tokens},
            {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}},
            {"timings", {{"queue_s", queue}, {"ttft_s", ttft}, {"total_s", total}}}};
  }

  void Log(std::string_view finish) const {
    const Json usage = Usage();
    const Json& timings = usage["timings"];
    spdlog::info(
        "request={} status=200 kind={} stream={} finish={} prompt_tokens={} cached_tokens={} completion_tokens={} "
        "queue_s={:.4f} ttft_s={:.4f} total_s={:.4f}",
        request_id_, request_.chat ? "chat" : "completion", request_.stream, finish,
        usage["prompt_tokens"].get<int64_t>(), usage["prompt_tokens_details"]["cached_tokens"].get<int64_t>(),
        usage["completion_tokens"].get<int64_t>(), timings["queue_s"].get<double>(), timings["ttft_s"].get<double>(),
        timings["total_s"].get<double>());
  }

  const char* ChunkObject() const { return request_.chat ? "chat.completion.chunk" : "text_completion"; }

  Json Head(const char* object) const {
    return {{"id", id_}, {"object", object}, {"created", created_}, {"model", context_.model_names.front()}};
  }

  std::string PromptText(size_t prompt_index) const {
    if (const auto* text = std::get_if<std::string>(&request_.prompts[prompt_index])) return *text;
    return context_.model->text.tokenizer->Decode(prompts_[prompt_index].token_ids,
                                                  {.skip_special_tokens = request_.sampling.skip_special_tokens});
  }

  // The scores of some output tokens, after the prompt's where those are echoed too.
  Json Logprobs(const PromptState& prompt, const std::vector<PositionLogprobs>& scores, ChoiceState* choice) const {
    const Tokenizer& tokenizer = *context_.model->text.tokenizer;
    if (!request_.sampling.logprobs) return {};
    if (request_.chat) return ChatLogprobs(tokenizer, scores);
    if (!request_.echo || choice->begun) return CompletionLogprobs(tokenizer, -1, scores, &choice->text_offset);
    std::vector<PositionLogprobs> all = prompt.logprobs;
    all.insert(all.end(), scores.begin(), scores.end());
    return CompletionLogprobs(tokenizer, prompt.token_ids.front(), all, &choice->text_offset);
  }

  static void AddFinish(const std::optional<FinishReason>& reason, const std::string& stop_reason,
                        const ToolCallReader& tools, Json* choice) {
    (*choice)["finish_reason"] = reason ? Json(Name(*reason)) : Json();
    if (reason == FinishReason::kStop && tools.has_calls()) (*choice)["finish_reason"] = "tool_calls";
    (*choice)["stop_reason"] = stop_reason.empty() ? Json() : Json(stop_reason);
  }

  Json Delta(const ToolCallReader::News& news, bool is_first) const {
    Json delta = Json::object();
    if (is_first) delta["role"] = "assistant";
    if (news.calls.empty() || !news.content.empty()) delta["content"] = news.content;
    if (!news.calls.empty()) delta["tool_calls"] = ToolCallsJson(news.calls, true);
    return delta;
  }

  Json Message(const Completion& completion, ToolCallReader* tools) const {
    const ToolCallReader::News news = tools->Push(completion.text, true);
    Json message = {{"role", "assistant"}, {"content", news.content}, {"refusal", nullptr}};
    if (news.calls.empty()) return message;
    if (news.content.empty()) message["content"] = nullptr;
    message["tool_calls"] = ToolCallsJson(news.calls, false);
    return message;
  }

  void WriteChunk(const PromptState& prompt, size_t index, const RequestOutput& output) {
    ChoiceState& choice = choices_[index];
    const ToolCallReader::News news = choice.tools->Push(output.text, output.finish_reason.has_value());
    const bool is_empty = news.content.empty() && news.calls.empty() && output.logprobs.empty();
    if (is_empty && !output.finish_reason && choice.begun) return;
    Json entry = {{"index", index}};
    if (request_.chat) {
      entry["delta"] = Delta(news, !choice.begun);
    } else {
      const bool echoes = request_.echo && !choice.begun;
      const size_t prompt_index = index / (choices_.size() / prompts_.size());
      entry["text"] = (echoes ? PromptText(prompt_index) : "") + news.content;
    }
    entry["logprobs"] = Logprobs(prompt, output.logprobs, &choice);
    AddFinish(output.finish_reason, output.stop_reason, *choice.tools, &entry);
    if (request_.return_prompt_logprobs && !choice.begun) {
      entry["prompt_logprobs"] = PromptLogprobs(*context_.model->text.tokenizer, prompt.logprobs);
    }
    choice.begun = true;
    Json chunk = Head(ChunkObject());
    chunk["choices"] = Json::array({std::move(entry)});
    if (request_.include_usage) chunk["usage"] = nullptr;
    WriteEvent(chunk);
  }

  void WriteEvent(const Json& json) { reply_->Write("data: " + ToText(json) + "\n\n"); }

  Json Answer() {
    Json answer = Head(request_.chat ? "chat.completion" : "text_completion");
    Json& list = answer["choices"] = Json::array();
    const size_t n = choices_.size() / prompts_.size();
    for (size_t i = 0; i < choices_.size(); ++i) {
      const PromptState& prompt = prompts_[i / n];
      const Completion& completion = choices_[i].completion;
      Json entry = {{"index", i}};
      if (request_.chat) {
        entry["message"] = Message(completion, &*choices_[i].tools);
      } else {
        entry["text"] = (request_.echo ? PromptText(i / n) : "") + completion.text;
      }
      entry["logprobs"] = Logprobs(prompt, completion.logprobs, &choices_[i]);
      AddFinish(completion.finish_reason, completion.stop_reason, *choices_[i].tools, &entry);
      if (request_.return_prompt_logprobs) {
        entry["prompt_logprobs"] = PromptLogprobs(*context_.model->text.tokenizer, prompt.logprobs);
      }
      list.push_back(std::move(entry));
    }
    answer["usage"] = Usage();
    return answer;
  }

  const ServerContext& context_;
  GenerationRequest request_;
  std::string request_id_;
  std::string id_;
  int64_t created_;
  HttpReplyPtr reply_;
  std::vector<PromptState> prompts_;
  std::vector<ChoiceState> choices_;  // [prompts * n]
  bool ended_ = false;                // answered, failed or left: later events are dropped
};

}  // namespace

void StartGeneration(const ServerContext& context, GenerationRequest request,
                     std::vector<std::vector<int32_t>> prompt_token_ids, const std::string& request_id,
                     const HttpReplyPtr& reply) {
  auto generation =
      std::make_shared<Generation>(context, std::move(request), std::move(prompt_token_ids), request_id, reply);
  reply->Post([generation = std::move(generation)] { generation->Start(); });
}

}  // namespace swiftkv
