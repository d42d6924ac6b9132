#include "server/generation.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"
#include "server/openai_response.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;
using Time = RequestTimes::Time;

// Scores of prompt tokens in one answer, alternatives included: some 20 MB of JSON, which a short prompt could
// otherwise multiply by its choices.
constexpr int64_t kMaxPromptScores = 1 << 18;

double Seconds(Time from, Time to) {
  return from == Time() || to == Time() ? 0 : std::chrono::duration<double>(to - from).count();
}

// All of it runs on the strand of the client's connection, but for long work, of which there is one piece at a time.
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
      Refuse(status.error());
      return;
    }
    if (request_.stream) {
      reply_->Begin({.content_type = "text/event-stream; charset=utf-8",
                     .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}});
    }
  }

  // Runs a piece of the work. Where there is no memory for it, the request ends, and nobody else's.
  template <class Work>
  void Guard(const Work& work) {
    try {
      work();
    } catch (const std::exception& error) {
      spdlog::error("request={} error={}", request_id_, LogValue(error.what()));
      FailForMemory();
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

  size_t n() const { return choices_.size() / prompts_.size(); }
  PromptState& PromptOf(size_t choice) { return prompts_[choice / n()]; }

  Status Submit() {
    choices_.resize(prompts_.size() * static_cast<size_t>(std::clamp(request_.sampling.n, 1, kMaxChoices)));
    for (size_t i = 0; i < choices_.size(); ++i) {
      choices_[i].tools.emplace(&request_.conversation.tools, fmt::format("call-{}-{}", request_id_, i));
    }
    SWIFTKV_RETURN_IF_ERROR(CheckPromptScores());
    for (size_t i = 0; i < prompts_.size(); ++i) {
      Request request{.prompt_token_ids = prompts_[i].token_ids,
                      .sampling = request_.sampling,
                      .priority = request_.priority,
                      .timeout_s = context_.request_timeout_s};
      request.constraint = request_.constraint;
      const auto on_output = [self = shared_from_this(), i](RequestOutput output) {
        self->reply_->Post([self, i, output = std::move(output)]() mutable {
          self->Guard([&] { self->OnOutput(i, std::move(output)); });
        });
      };
      SWIFTKV_ASSIGN_OR_RETURN(prompts_[i].engine_id, context_.engine->Submit(std::move(request), on_output));
    }
    return Ok();
  }

  Status CheckPromptScores() const {
    const SamplingParams& sampling = request_.sampling;
    if (!sampling.prompt_logprobs || HasTooLongPrompt()) return Ok();  // that is told of first
    int64_t tokens = 0;
    for (const PromptState& prompt : prompts_) tokens += static_cast<int64_t>(prompt.token_ids.size());
    const int64_t times = (EchoesScores() ? static_cast<int64_t>(n()) : 0) + (request_.return_prompt_logprobs ? 1 : 0);
    const int64_t scores = tokens * (*sampling.prompt_logprobs + int64_t{1}) * times;
    if (scores <= kMaxPromptScores) return Ok();
    return InvalidInput("{} of {} prompt tokens with {} alternatives, told {} times, are {} scores; the limit is {}",
                        request_.return_prompt_logprobs ? "prompt_logprobs" : "logprobs", tokens,
                        *sampling.prompt_logprobs, times, scores, kMaxPromptScores);
  }

  bool EchoesScores() const { return request_.echo && request_.sampling.logprobs; }

  // Whether what is told first of a choice has the scores of its prompt.
  bool TellsPromptScores(size_t index) const {
    return EchoesScores() || (request_.return_prompt_logprobs && index % n() == 0);
  }

  void OnOutput(size_t prompt_index, RequestOutput output) {
    if (ended_) return;
    if (telling_) {
      held_.emplace_back(prompt_index, std::move(output));
      return;
    }
    PromptState& prompt = prompts_[prompt_index];
    prompt.times = output.times;
    if (!output.error) {
      ObserveUnfinished("error");
      Fail(output.error.error());
      return;
    }
    if (!output.prompt_logprobs.empty()) prompt.logprobs = std::move(output.prompt_logprobs);
    prompt.cached_tokens = std::max(prompt.cached_tokens, output.cached_tokens);
    const size_t index = prompt_index * n() + static_cast<size_t>(output.index);
    ObserveTokens(output, &choices_[index]);
    if (!request_.stream) {
      Take(index, std::move(output));
    } else if (!choices_[index].begun && TellsPromptScores(index)) {
      TellAside(index, std::move(output));
    } else {
      const std::string event = Chunk(index, output);
      Tell(index, event, std::move(output));
    }
  }

  // Many scores take long to write down; whatever comes meanwhile is held.
  void TellAside(size_t index, RequestOutput output) {
    telling_ = true;
    const auto shared = std::make_shared<RequestOutput>(std::move(output));
    RunAside([self = shared_from_this(), index, shared] {
      self->reply_->Post([self, index, shared, event = self->Chunk(index, *shared)] {
        self->Guard([&] {
          self->telling_ = false;
          self->Tell(index, event, std::move(*shared));
          self->TakeHeld();
        });
      });
    });
  }

  void TakeHeld() {
    while (!telling_ && !held_.empty()) {
      auto [prompt_index, output] = std::move(held_.front());
      held_.pop_front();
      OnOutput(prompt_index, std::move(output));
    }
  }

  void Tell(size_t index, const std::string& event, RequestOutput output) {
    if (ended_) return;
    reply_->Write(event);
    if (ended_) return;  // the client was cut off: Leave has seen to the rest
    Take(index, std::move(output));
  }

  void Take(size_t index, RequestOutput output) {
    PromptState& prompt = PromptOf(index);
    prompt.finished = output.finished;
    Append(std::move(output), &choices_[index].completion);
    if (request_.stream) choices_[index].completion.logprobs.clear();  // told already
    if (!prompt.finished) return;
    ObserveFinished(index / n(), Name(choices_[index].completion.finish_reason));
    const auto is_finished = [](const PromptState& state) { return state.finished; };
    if (std::all_of(prompts_.begin(), prompts_.end(), is_finished)) Finish();
  }

  void Finish() {
    ended_ = true;
    if (request_.stream) {
      FinishStream();
    } else if (request_.sampling.prompt_logprobs || request_.sampling.logprobs) {
      RunAside([self = shared_from_this()] { self->SendAnswer(); });
    } else {
      SendAnswer();
    }
  }

  void FinishStream() {
    Log(Name(choices_.front().completion.finish_reason));
    if (request_.include_usage) {
      Json chunk = Head(ChunkObject());
      chunk["choices"] = Json::array();
      chunk["usage"] = Usage();
      reply_->Write(Event(chunk));
    }
    reply_->Write("data: [DONE]\n\n");
    reply_->End();
  }

  void SendAnswer() {
    HttpResponse response = {.content_type = "application/json", .body = Answer()};
    Log(Name(choices_.front().completion.finish_reason));
    reply_->Send(std::move(response));
  }

  void RunAside(std::function<void()> work) {
    context_.run_aside(std::move(work),
                       [self = shared_from_this()] { self->reply_->Post([self] { self->FailForMemory(); }); });
  }

  bool HasTooLongPrompt() const {
    return std::any_of(prompts_.begin(), prompts_.end(), [&](const PromptState& prompt) {
      return static_cast<int64_t>(prompt.token_ids.size()) >= context_.engine->max_model_len();
    });
  }

  // The engine does not take the request. It speaks of "the prompt" and does not know what that was made of; OpenAI's
  // clients tell a prompt that is too long from other errors by the code.
  void Refuse(const Error& error) {
    if (!error.message.starts_with("the prompt ")) return Fail(error);
    const std::string param = request_.chat ? "messages" : "prompt";
    const std::string code = HasTooLongPrompt() ? "context_length_exceeded" : "";
    Fail(ErrorResponse(error, param, code), error.message);
  }

  void Fail(const Error& error) { Fail(ErrorResponse(error), error.message); }

  void Fail(const HttpResponse& response, const std::string& message) {
    Abort();
    spdlog::info("request={} status={} error={}", request_id_, response.status, LogValue(message));
    if (!StreamHasBegun()) {
      reply_->Send(response);
    } else {
      reply_->Write("data: " + response.body + "\n\ndata: [DONE]\n\n");
      reply_->End();
    }
  }

  void FailForMemory() {
    if (!ended_) ObserveUnfinished("error");
    Fail(OutOfMemoryResponse(), "out of memory");
  }

  // The client has gone.
  void Leave() {
    if (ended_) return;
    ObserveUnfinished("abort");
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

  void ObserveUnfinished(std::string_view reason) {
    for (size_t i = 0; i < prompts_.size(); ++i) {
      if (!prompts_[i].finished) ObserveFinished(i, reason);
    }
  }

  void ObserveFinished(size_t prompt_index, std::string_view reason) {
    FinishedRequest finished{.times = prompts_[prompt_index].times,
                             .prompt_tokens = static_cast<int64_t>(prompts_[prompt_index].token_ids.size()),
                             .n = static_cast<int32_t>(n()),
                             .finished_reason = reason};
    for (size_t i = prompt_index * n(); i < (prompt_index + 1) * n(); ++i) {
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

  // The event that tells of a choice's news; empty if there are none yet.
  std::string Chunk(size_t index, const RequestOutput& output) {
    ChoiceState& choice = choices_[index];
    const PromptState& prompt = PromptOf(index);
    const ToolCallReader::News news = choice.tools->Push(output.text, output.finish_reason.has_value());
    const bool is_empty = news.content.empty() && news.calls.empty() && output.logprobs.empty();
    if (is_empty && !output.finish_reason && choice.begun) return {};
    Json entry = {{"index", index}};
    if (request_.chat) {
      entry["delta"] = Delta(news, !choice.begun);
    } else {
      const bool echoes = request_.echo && !choice.begun;
      entry["text"] = (echoes ? PromptText(index / n()) : "") + news.content;
    }
    entry["logprobs"] = Logprobs(prompt, output.logprobs, &choice);
    AddFinish(output.finish_reason, output.stop_reason, *choice.tools, &entry);
    if (!choice.begun) AddPromptLogprobs(index, &entry);
    choice.begun = true;
    Json chunk = Head(ChunkObject());
    chunk["choices"] = Json::array({std::move(entry)});
    if (request_.include_usage) chunk["usage"] = nullptr;
    return Event(chunk);
  }

  // The first choice of a prompt tells the prompt's scores for all of them.
  void AddPromptLogprobs(size_t index, Json* entry) {
    if (!request_.return_prompt_logprobs) return;
    (*entry)["prompt_logprobs"] =
        index % n() == 0 ? PromptLogprobs(*context_.model->text.tokenizer, PromptOf(index).logprobs) : Json();
  }

  static std::string Event(const Json& json) { return "data: " + ToText(json) + "\n\n"; }

  // Written choice by choice: scores as objects take many times the memory of their text.
  std::string Answer() {
    std::string text = ToText(Head(request_.chat ? "chat.completion" : "text_completion"));
    text.pop_back();
    text += ",\"choices\":[";
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (i > 0) text += ',';
      text += ToText(Choice(i));
    }
    text += "],\"usage\":" + ToText(Usage()) + "}";
    return text;
  }

  Json Choice(size_t index) {
    ChoiceState& choice = choices_[index];
    const Completion& completion = choice.completion;
    Json entry = {{"index", index}};
    if (request_.chat) {
      entry["message"] = Message(completion, &*choice.tools);
    } else {
      entry["text"] = (request_.echo ? PromptText(index / n()) : "") + completion.text;
    }
    entry["logprobs"] = Logprobs(PromptOf(index), completion.logprobs, &choice);
    AddFinish(completion.finish_reason, completion.stop_reason, *choice.tools, &entry);
    AddPromptLogprobs(index, &entry);
    return entry;
  }

  const ServerContext& context_;
  GenerationRequest request_;
  std::string request_id_;
  std::string id_;
  int64_t created_;
  HttpReplyPtr reply_;
  std::vector<PromptState> prompts_;
  std::vector<ChoiceState> choices_;                   // [prompts * n]
  bool ended_ = false;                                 // answered, failed or left: later events are dropped
  bool telling_ = false;                               // a long chunk is being written down
  std::deque<std::pair<size_t, RequestOutput>> held_;  // by prompt, what has come meanwhile
};

}  // namespace

void StartGeneration(const ServerContext& context, GenerationRequest request,
                     std::vector<std::vector<int32_t>> prompt_token_ids, const std::string& request_id,
                     const HttpReplyPtr& reply) {
  auto generation =
      std::make_shared<Generation>(context, std::move(request), std::move(prompt_token_ids), request_id, reply);
  reply->Post([generation = std::move(generation)] { generation->Guard([&] { generation->Start(); }); });
}

}  // namespace swiftkv
