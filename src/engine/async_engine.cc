#include "engine/async_engine.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace swiftkv {

class AsyncEngine::Impl {
 public:
  Impl(std::unique_ptr<Engine> engine, int64_t max_waiting, OnStep on_step)
      : engine_(std::move(engine)), max_waiting_(max_waiting), on_step_(std::move(on_step)) {
    stats_ = engine_->stats();
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      draining_ = true;
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  Result<int64_t> Submit(Request request, OnOutput on_output) {
    SWIFTKV_RETURN_IF_ERROR(engine_->Check(request));
    std::unique_lock lock(mutex_);
    if (draining_) return MakeError(ErrorCode::kCancelled, "the server is shutting down");
    if (stats_.num_requests_waiting + static_cast<int64_t>(submitted_.size()) >= max_waiting_) {
      return ResourceExhausted("{} requests are waiting already, which is the limit", max_waiting_);
    }
    const int64_t id = next_id_++;
    request.arrival = engine_->now();  // the thread sees it after the step that runs now
    submitted_.push_back({.id = id, .request = std::move(request), .on_output = std::move(on_output)});
    ++open_requests_;
    lock.unlock();
    wake_.notify_one();
    return id;
  }

  void Abort(int64_t id) {
    {
      const std::lock_guard lock(mutex_);
      aborted_.push_back(id);
    }
    wake_.notify_one();
  }

  void Drain() {
    const std::lock_guard lock(mutex_);
    draining_ = true;
  }
  bool draining() const {
    const std::lock_guard lock(mutex_);
    return draining_;
  }
  bool idle() const {
    const std::lock_guard lock(mutex_);
    return open_requests_ == 0;
  }
  EngineStats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  int64_t max_model_len() const { return engine_->max_model_len(); }

 private:
  struct Submitted {
    int64_t id = 0;
    Request request;
    OnOutput on_output;
  };
  struct Open {
    int64_t id = 0;
    OnOutput on_output;
  };

  void Run() {
    while (TakeMessages()) {
      if (!engine_->HasWork()) continue;
      const int64_t tokens_before = engine_->stats().computed_tokens;
      std::vector<RequestOutput> outputs = engine_->Step();
      Publish();  // first: whoever has an answer finds it counted
      if (on_step_) on_step_(engine_->stats().computed_tokens - tokens_before);
      for (RequestOutput& output : outputs) Deliver(std::move(output));
    }
    for (const auto& [engine_id, open] : open_) {
      RequestOutput output;
      output.error = MakeError(ErrorCode::kCancelled, "the server is shutting down");
      output.finished = true;
      open.on_output(std::move(output));
    }
  }

  // What other threads asked for; waits for it where there is nothing else to do. False: stop.
  bool TakeMessages() {
    std::vector<Submitted> submitted;
    std::vector<int64_t> aborted;
    bool stopping = false;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || engine_->HasWork() || !submitted_.empty() || !aborted_.empty(); });
      submitted.swap(submitted_);
      aborted.swap(aborted_);
      stopping = stopping_;
    }
    for (Submitted& message : submitted) Admit(std::move(message));
    for (const int64_t id : aborted) AbortNow(id);
    if (!submitted.empty() || !aborted.empty()) Publish();
    return !stopping;
  }

  void Admit(Submitted message) {
    Result<int64_t> engine_id = engine_->Add(std::move(message.request));
    if (!engine_id) {
      RequestOutput output;
      output.error = tl::unexpected<Error>(std::move(engine_id).error());
      output.finished = true;
      Close();
      message.on_output(std::move(output));
      return;
    }
    engine_ids_[message.id] = *engine_id;
    open_[*engine_id] = {.id = message.id, .on_output = std::move(message.on_output)};
  }

  void AbortNow(int64_t id) {
    const auto found = engine_ids_.find(id);
    if (found == engine_ids_.end()) return;
    engine_->Abort(found->second);
    open_.erase(found->second);
    engine_ids_.erase(found);
    Close();
  }

  void Deliver(RequestOutput output) {
    const auto found = open_.find(output.request_id);
    if (found == open_.end()) return;
    output.request_id = found->second.id;
    if (!output.finished) {
      found->second.on_output(std::move(output));
      return;
    }
    const Open open = std::move(found->second);
    engine_ids_.erase(open.id);
    open_.erase(found);
    Close();
    open.on_output(std::move(output));
  }

  void Close() {
    const std::lock_guard lock(mutex_);
    --open_requests_;
  }

  void Publish() {
    const std::lock_guard lock(mutex_);
    stats_ = engine_->stats();
  }

  const std::unique_ptr<Engine> engine_;  // the thread's alone, but for Check, now and max_model_len
  const int64_t max_waiting_;
  const OnStep on_step_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<Submitted> submitted_;
  std::vector<int64_t> aborted_;
  EngineStats stats_;
  int64_t open_requests_ = 0;
  int64_t next_id_ = 1;
  bool draining_ = false;
  bool stopping_ = false;

  // The thread's alone.
  std::map<int64_t, int64_t> engine_ids_;  // by our id
  std::map<int64_t, Open> open_;           // by the engine's id

  std::thread thread_;
};

Result<std::unique_ptr<AsyncEngine>> AsyncEngine::Start(const Weights& weights, Mode mode, const Tokenizer* tokenizer,
                                                        const AsyncEngineOptions& options, OnStep on_step) {
  SWIFTKV_ASSIGN_OR_RETURN(auto engine, Engine::Create(weights, mode, tokenizer, options.engine));
  return std::make_unique<AsyncEngine>(std::move(engine), options.max_waiting, std::move(on_step));
}

AsyncEngine::AsyncEngine(std::unique_ptr<Engine> engine, int64_t max_waiting, OnStep on_step)
    : impl_(std::make_unique<Impl>(std::move(engine), max_waiting, std::move(on_step))) {}
AsyncEngine::~AsyncEngine() = default;

Result<int64_t> AsyncEngine::Submit(Request request, OnOutput on_output) {
  return impl_->Submit(std::move(request), std::move(on_output));
}
void AsyncEngine::Abort(int64_t request_id) { impl_->Abort(request_id); }
void AsyncEngine::Drain() { impl_->Drain(); }
bool AsyncEngine::draining() const { return impl_->draining(); }
bool AsyncEngine::idle() const { return impl_->idle(); }
EngineStats AsyncEngine::stats() const { return impl_->stats(); }
int64_t AsyncEngine::max_model_len() const { return impl_->max_model_len(); }

}  // namespace swiftkv
