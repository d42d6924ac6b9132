#include "eval/scorer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "eval/filters.h"

namespace swiftkv {
namespace {

// Of one window: enough to fill steps of 2,048 tokens with short prompts, and little beside the engine's cache.
constexpr size_t kWindowDocuments = 64;
// Shared tokens below this are cheaper computed again than in a step of their own.
constexpr int64_t kMinSharedTokens = 64;

int64_t Size(const std::vector<int32_t>& ids) { return static_cast<int64_t>(ids.size()); }

// Cuts `ids` on the left to at most `limit`; true if it had to.
bool CutLeft(int64_t limit, std::vector<int32_t>* ids) {
  if (Size(*ids) <= limit) return false;
  ids->erase(ids->begin(), ids->end() - limit);
  return true;
}

// A parallel to str.rstrip(): where the white space that ends `text` begins.
size_t TrailingSpace(std::string_view text) {
  const std::string_view stripped = Strip(text);
  return stripped.empty() ? 0 : static_cast<size_t>(stripped.data() + stripped.size() - text.data());
}

// The leading tokens that all prompts have in common.
int64_t CommonPrefix(const std::vector<const std::vector<int32_t>*>& prompts) {
  const std::vector<int32_t>& first = *prompts.front();
  auto end = first.end();
  for (const std::vector<int32_t>* prompt : prompts) {
    end = std::mismatch(first.begin(), end, prompt->begin(), prompt->end()).first;
  }
  return end - first.begin();
}

}  // namespace

Scorer::Item Scorer::ScoringItem(const ScoredText& text) {
  const EncodeOptions encode{.add_special_tokens = options_.add_bos_token};
  const Tokenizer& tokenizer = *text_->tokenizer;
  const size_t cut = TrailingSpace(text.context);
  const std::string context = text.context.substr(0, cut);
  const std::string continuation = text.context.substr(cut) + text.continuation;
  Item item;
  std::vector<int32_t>& ids = item.request.prompt_token_ids;
  size_t context_tokens = 0;
  if (context.empty()) {
    ids = tokenizer.Encode(continuation, {.add_special_tokens = false});
    ids.insert(ids.begin(), tokenizer.bos_token_id().value_or(tokenizer.eos_token_id().value_or(0)));
    context_tokens = 1;
  } else {
    ids = tokenizer.Encode(context + continuation, encode);
    context_tokens = tokenizer.Encode(context, encode).size();
  }
  const int64_t scored = std::max<int64_t>(Size(ids) - static_cast<int64_t>(context_tokens), 0);
  stats_.prompt_tokens += Size(ids);
  stats_.scored_tokens += scored;
  item.truncated = CutLeft(engine_->max_model_len(), &ids);
  item.request.sampling = {.temperature = 0,
                           .max_tokens = 0,
                           .prompt_logprobs = 0,
                           .prompt_logprobs_begin = std::max<int64_t>(Size(ids) - scored, 1)};
  return item;
}

Result<Scorer::Item> Scorer::AnsweringItem(const Task& task, const Prompt& prompt) {
  const int64_t room = engine_->max_model_len() - options_.max_gen_toks;
  if (room < 1) {
    return InvalidInput("max_gen_toks {} leaves no room for a prompt in a context of {} tokens", options_.max_gen_toks,
                        engine_->max_model_len());
  }
  std::string text = prompt.text;
  if (!prompt.turns.empty()) {
    nlohmann::ordered_json messages = nlohmann::ordered_json::array();
    for (const ChatTurn& turn : prompt.turns) messages.push_back({{"role", turn.role}, {"content", turn.content}});
    SWIFTKV_ASSIGN_OR_RETURN(text, RenderChat(*text_, messages, nullptr));
  }
  Item item;
  std::vector<int32_t>& ids = item.request.prompt_token_ids;
  ids = text_->tokenizer->Encode(text, {.add_special_tokens = options_.add_bos_token});
  stats_.prompt_tokens += Size(ids);
  item.truncated = CutLeft(room, &ids);
  item.request.sampling = {
      .temperature = 0, .max_tokens = options_.max_gen_toks, .stop = task.info().until, .skip_special_tokens = false};
  return item;
}

Result<Scorer::Window> Scorer::MakeWindow(const Task& task, std::span<const int64_t> documents) {
  Window window;
  for (const int64_t document : documents) {
    const Prompt prompt = task.MakePrompt(document);
    const size_t count = std::max<size_t>(prompt.choices.size(), 1);
    pending_[document] = {.response = {.choices = std::vector<ScoredChoice>(prompt.choices.size())}, .missing = count};
    for (size_t choice = 0; choice < count; ++choice) {
      Item item;
      if (prompt.choices.empty()) {
        SWIFTKV_ASSIGN_OR_RETURN(item, AnsweringItem(task, prompt));
      } else {
        item = ScoringItem(prompt.choices[choice]);
      }
      item.document = document;
      item.choice = choice;
      if (item.truncated) ++pending_[document].response.truncated;
      window.items.push_back(std::move(item));
    }
  }
  // A document's first choice leaves the context in the cache for the others, if they come in a later step.
  std::stable_sort(window.items.begin(), window.items.end(),
                   [](const Item& a, const Item& b) { return a.choice < b.choice; });
  if (window.items.size() > 1) {
    std::vector<const std::vector<int32_t>*> prompts;
    for (const Item& item : window.items) prompts.push_back(&item.request.prompt_token_ids);
    window.shared_tokens = CommonPrefix(prompts);
  }
  return window;
}

Status Scorer::Submit(Window window) {
  for (Item& item : window.items) {
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t id, engine_->Add(std::move(item.request)));
    running_[id] = {.document = item.document, .choice = item.choice, .completion = {}};
  }
  return Ok();
}

Status Scorer::Take(RequestOutput output, const OnResponse& on_response) {
  const auto found = running_.find(output.request_id);
  if (found == running_.end()) return Ok();
  Running& running = found->second;
  Pending& pending = pending_[running.document];
  stats_.cached_tokens += output.cached_tokens;
  if (!output.prompt_logprobs.empty()) {
    ScoredChoice& choice = pending.response.choices[running.choice];
    choice.is_greedy = true;
    for (const PositionLogprobs& position : output.prompt_logprobs) {
      choice.loglikelihood += position.token.logprob;
      choice.is_greedy = choice.is_greedy && position.token.rank == 1;
    }
  }
  const bool finished = output.finish_reason.has_value();
  Append(std::move(output), &running.completion);
  if (!finished) return Ok();

  stats_.generated_tokens += Size(running.completion.token_ids);
  if (pending.response.choices.empty()) {
    pending.response.at_length = running.completion.finish_reason == FinishReason::kLength;
    pending.response.text = std::move(running.completion.text);
  }
  const int64_t document = running.document;
  running_.erase(found);
  if (--pending.missing > 0) return Ok();
  Response response = std::move(pending.response);
  pending_.erase(document);
  return on_response(document, std::move(response));
}

// Hands a window to the engine: what its items share first, and alone, so that all of them find it in the cache.
Status Scorer::Start(Window window) {
  if (window.shared_tokens < kMinSharedTokens) return Submit(std::move(window));
  const std::vector<int32_t>& ids = window.items.front().request.prompt_token_ids;
  SWIFTKV_ASSIGN_OR_RETURN(shared_id_,
                           engine_->Add({.prompt_token_ids = {ids.begin(), ids.begin() + window.shared_tokens},
                                         .sampling = {.temperature = 0, .max_tokens = 0}}));
  waiting_ = std::move(window);
  return Ok();
}

Status Scorer::Drive(const Task& task, std::span<const std::span<const int64_t>> windows, const OnResponse& on_response,
                     const std::function<bool()>& cancelled) {
  size_t next = 0;
  while (true) {
    if (cancelled && cancelled()) return MakeError(ErrorCode::kCancelled, "the evaluation was cancelled");
    while (!waiting_ && next < windows.size() && static_cast<int64_t>(running_.size()) < options_.max_num_seqs) {
      SWIFTKV_ASSIGN_OR_RETURN(Window window, MakeWindow(task, windows[next++]));
      SWIFTKV_RETURN_IF_ERROR(Start(std::move(window)));
    }
    if (!engine_->HasWork()) return Ok();
    for (RequestOutput& output : engine_->Step()) {
      SWIFTKV_RETURN_IF_ERROR(std::move(output.error));
      if (waiting_ && output.request_id == shared_id_) {
        SWIFTKV_RETURN_IF_ERROR(Submit(*std::exchange(waiting_, std::nullopt)));
      } else {
        SWIFTKV_RETURN_IF_ERROR(Take(std::move(output), on_response));
      }
    }
  }
}

Status Scorer::Run(const Task& task, std::span<const int64_t> documents, const OnResponse& on_response,
                   const std::function<bool()>& cancelled) {
  std::vector<int64_t> ordered(documents.begin(), documents.end());
  std::stable_sort(ordered.begin(), ordered.end(), [&](int64_t a, int64_t b) { return task.Group(a) < task.Group(b); });
  std::vector<std::span<const int64_t>> windows;
  for (size_t begin = 0; begin < ordered.size();) {
    size_t end = begin + 1;
    while (end < ordered.size() && end - begin < kWindowDocuments &&
           task.Group(ordered[end]) == task.Group(ordered[begin])) {
      ++end;
    }
    windows.push_back(std::span<const int64_t>(ordered).subspan(begin, end - begin));
    begin = end;
  }
  Status status = Drive(task, windows, on_response, cancelled);
  if (!status) AbortAll();
  return status;
}

void Scorer::AbortAll() {
  for (const auto& [id, running] : running_) engine_->Abort(id);
  if (waiting_) engine_->Abort(shared_id_);
  waiting_.reset();
  running_.clear();
  pending_.clear();
}

}  // namespace swiftkv
