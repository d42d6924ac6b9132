#include "bench/engine_load.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "engine/memory.h"

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

// How often a wait for the next arrival asks whether it was cancelled.
constexpr double kLongestWait = 0.1;

int64_t BlockTokens(int64_t tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens * kKvBlockTokens; }

// Tokens of cache for the requests that may run at once; the longest at least.
int64_t ChooseCacheTokens(const Weights& weights, Mode mode, const std::vector<LoadRequest>& requests,
                          const EngineLoadOptions& options) {
  if (options.kv_cache_tokens > 0) return options.kv_cache_tokens;
  std::vector<int64_t> lengths;
  lengths.reserve(requests.size());
  for (const LoadRequest& request : requests) {
    lengths.push_back(BlockTokens(request.prompt_tokens + request.output_tokens));
  }
  std::sort(lengths.rbegin(), lengths.rend());
  lengths.resize(std::min(lengths.size(), static_cast<size_t>(options.scheduler.max_num_seqs)));
  int64_t tokens = 0;
  for (const int64_t length : lengths) tokens += length;
  const KvLayout layout = CacheLayout(weights, mode, options.kv_cache_dtype);
  const int64_t available = AvailableBytes(*layout.memory);
  // A GPU is ours alone: what is left is for the work memory of a step.
  const int64_t share = layout.memory->is_host() ? available / 2 : available / 10 * 8;
  if (available > 0) tokens = std::min(tokens, share / layout.bytes_per_token());
  return std::max(tokens, lengths.front());
}

class EngineLoad {
 public:
  EngineLoad(std::unique_ptr<Engine> engine, const std::vector<LoadRequest>& requests, const EngineLoadOptions& options)
      : engine_(std::move(engine)), requests_(requests), options_(options), start_(Clock::now()) {
    run_.outcomes.resize(requests.size());
  }

  Result<LoadRun> Run();

 private:
  double Now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  Status AddDue();
  void Record(const RequestOutput& output, double now);

  std::unique_ptr<Engine> engine_;
  const std::vector<LoadRequest>& requests_;
  const EngineLoadOptions& options_;
  const Clock::time_point start_;
  size_t next_ = 0;                    // the first request that has not arrived
  std::map<int64_t, size_t> running_;  // requests under way, by the engine's id
  int64_t done_ = 0;
  LoadRun run_;
};

Result<LoadRun> EngineLoad::Run() {
  while (next_ < requests_.size() || engine_->HasWork()) {
    if (options_.cancelled && options_.cancelled()) return MakeError(ErrorCode::kCancelled, "interrupted");
    SWIFTKV_RETURN_IF_ERROR(AddDue());
    if (!engine_->HasWork()) {
      const double wait = std::min(requests_[next_].arrival - Now(), kLongestWait);
      std::this_thread::sleep_for(std::chrono::duration<double>(std::max(wait, 0.0)));
      continue;
    }
    const std::vector<RequestOutput> outputs = engine_->Step();
    const double now = Now();
    for (const RequestOutput& output : outputs) Record(output, now);
  }
  run_.duration = Now();
  return std::move(run_);
}

// A request counts from when it was due, also if a step was running then.
Status EngineLoad::AddDue() {
  for (; next_ < requests_.size() && requests_[next_].arrival <= Now(); ++next_) {
    const LoadRequest& due = requests_[next_];
    SWIFTKV_ASSIGN_OR_RETURN(
        const int64_t id,
        engine_->Add({.prompt_token_ids = due.prompt_token_ids,
                      .sampling = {.temperature = 0, .max_tokens = due.output_tokens, .ignore_eos = true}}));
    running_[id] = next_;
    run_.outcomes[next_].start = due.arrival;
    run_.outcomes[next_].prompt_tokens = due.prompt_tokens;
    run_.max_concurrent = std::max(run_.max_concurrent, std::ssize(running_));
  }
  return Ok();
}

void EngineLoad::Record(const RequestOutput& output, double now) {
  const auto found = running_.find(output.request_id);
  if (found == running_.end()) return;
  RequestOutcome& outcome = run_.outcomes[found->second];
  const double seconds = now - outcome.start;
  if (!output.token_ids.empty()) {
    if (outcome.output_tokens == 0) {
      outcome.ttft = seconds;
    } else {
      outcome.inter_token.push_back(seconds - outcome.latency);
    }
    outcome.latency = seconds;
    outcome.output_tokens += std::ssize(output.token_ids);
  }
  if (!output.finished) return;
  if (!output.error) outcome.failure = RequestFailure{"engine", output.error.error().message};
  running_.erase(found);
  if (options_.progress) options_.progress(++done_);
}

}  // namespace

Result<LoadRun> RunEngineLoad(const Weights& weights, Mode mode, const std::vector<LoadRequest>& requests,
                              const EngineLoadOptions& options) {
  EngineOptions engine_options;
  engine_options.scheduler = options.scheduler;
  engine_options.kv_cache_dtype = options.kv_cache_dtype;
  engine_options.kv_cache_tokens = ChooseCacheTokens(weights, mode, requests, options);
  SWIFTKV_ASSIGN_OR_RETURN(auto engine, Engine::Create(weights, mode, nullptr, engine_options));
  return EngineLoad(std::move(engine), requests, options).Run();
}

}  // namespace swiftkv
