#include "bench/latency.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "base/parallel.h"
#include "bench/statistics.h"

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxSequences = 1024;

// The sequences of one test in one mode: their cache, filled up to `depth` once. Every repetition writes behind that.
class Bench {
 public:
  static Result<Bench> Create(const MeasuredModel& model, Mode mode, const LatencyTest& test);

  // The whole test once; `work` gets what it computed.
  Status Run(Work* work);
  // A short run that touches what the long one will.
  Status WarmUp();

 private:
  Bench(const Weights& weights, Mode mode, const LatencyTest& test, Forward forward, KvCache cache);
  // `tokens` of every sequence at `position`, in steps of at most batch_tokens; the last token's logits of each.
  Status Prefill(int64_t position, int64_t tokens, Work* work);
  // One token of every sequence at `position`.
  Status Decode(int64_t position, Work* work);
  Status RunStep(const Step& step, Work* work);
  void Append(int64_t sequence, int64_t position, int64_t tokens, Step* step) const;

  const Weights* weights_;
  Mode mode_;
  LatencyTest test_;
  Forward forward_;
  KvCache cache_;
  std::vector<std::vector<int32_t>> tables_;      // [sequences]
  std::vector<float> logits_;                     // [sequences, vocab]
  std::vector<kernels::LogitStats> logit_stats_;  // [sequences]
  std::vector<uint8_t> wanted_;                   // [sequences] 0: the most likely token is what an answer needs
};

Result<Bench> Bench::Create(const MeasuredModel& model, Mode mode, const LatencyTest& test) {
  Forward forward(model.weights, mode, test.kv_cache_dtype);
  const int64_t tokens = test.depth + test.prompt + test.generate;
  const int64_t blocks = (tokens + kKvBlockTokens - 1) / kKvBlockTokens * test.sequences;
  SWIFTKV_ASSIGN_OR_RETURN(KvCache cache, KvCache::Create(forward.cache_layout(), blocks));
  Bench bench(model.weights, mode, test, std::move(forward), std::move(cache));
  if (test.depth > 0) SWIFTKV_RETURN_IF_ERROR(bench.Prefill(0, test.depth, nullptr));
  return bench;
}

Bench::Bench(const Weights& weights, Mode mode, const LatencyTest& test, Forward forward, KvCache cache)
    : weights_(&weights), mode_(mode), test_(test), forward_(std::move(forward)), cache_(std::move(cache)) {
  const int64_t blocks = cache_.blocks() / test.sequences;
  for (int64_t sequence = 0; sequence < test.sequences; ++sequence) {
    tables_.emplace_back(static_cast<size_t>(blocks));
    std::iota(tables_.back().begin(), tables_.back().end(), static_cast<int32_t>(sequence * blocks));
  }
  logits_.resize(static_cast<size_t>(test.sequences * weights.config.vocab_size));
  logit_stats_.resize(static_cast<size_t>(test.sequences));
  wanted_.resize(static_cast<size_t>(test.sequences));
}

void Bench::Append(int64_t sequence, int64_t position, int64_t tokens, Step* step) const {
  step->chunks.push_back({.token_begin = static_cast<int64_t>(step->token_ids.size()),
                          .tokens = tokens,
                          .position = static_cast<int32_t>(position),
                          .block_table = tables_[static_cast<size_t>(sequence)]});
  for (int64_t i = 0; i < tokens; ++i) {
    const int64_t id = (position + i + 31 * sequence) * 7919 % weights_->config.vocab_size;
    step->token_ids.push_back(static_cast<int32_t>(id));
  }
}

Status Bench::RunStep(const Step& step, Work* work) {
  SWIFTKV_RETURN_IF_ERROR(forward_.Run(step, &cache_));
  if (!step.logit_rows.empty()) {
    SWIFTKV_RETURN_IF_ERROR(forward_.ReadLogits(
        0, std::ssize(step.logit_rows), {.logits = logits_.data(), .wanted = wanted_, .stats = logit_stats_.data()}));
  }
  if (work != nullptr) {
    const Work more = StepWork(step, *weights_, mode_, test_.kv_cache_dtype);
    work->flops += more.flops;
    work->bytes += more.bytes;
  }
  return Ok();
}

Status Bench::Prefill(int64_t position, int64_t tokens, Work* work) {
  Step step;
  for (int64_t sequence = 0; sequence < test_.sequences; ++sequence) {
    for (int64_t done = 0; done < tokens;) {
      const int64_t room = test_.batch_tokens - static_cast<int64_t>(step.token_ids.size());
      const int64_t count = std::min(room, tokens - done);
      Append(sequence, position + done, count, &step);
      done += count;
      if (done == tokens) step.logit_rows.push_back(static_cast<int32_t>(step.token_ids.size() - 1));
      const bool last = sequence + 1 == test_.sequences && done == tokens;
      if (std::ssize(step.token_ids) < test_.batch_tokens && !last) continue;
      SWIFTKV_RETURN_IF_ERROR(RunStep(step, work));
      step = Step();
    }
  }
  return Ok();
}

Status Bench::Decode(int64_t position, Work* work) {
  Step step;
  for (int64_t sequence = 0; sequence < test_.sequences; ++sequence) Append(sequence, position, 1, &step);
  step.logit_rows.resize(step.token_ids.size());
  std::iota(step.logit_rows.begin(), step.logit_rows.end(), 0);
  return RunStep(step, work);
}

Status Bench::Run(Work* work) {
  if (test_.prompt > 0) SWIFTKV_RETURN_IF_ERROR(Prefill(test_.depth, test_.prompt, work));
  for (int64_t i = 0; i < test_.generate; ++i) {
    SWIFTKV_RETURN_IF_ERROR(Decode(test_.depth + test_.prompt + i, work));
  }
  return Ok();
}

Status Bench::WarmUp() {
  if (test_.prompt > 0) {
    SWIFTKV_RETURN_IF_ERROR(Prefill(test_.depth, std::min(test_.prompt, test_.batch_tokens), nullptr));
  }
  return test_.generate > 0 ? Decode(test_.depth + test_.prompt, nullptr) : Ok();
}

Result<LatencyResult> MeasureTest(const MeasuredModel& model, const LatencyTest& test, const LatencyOptions& options,
                                  const std::function<void()>& done) {
  SetThreads(test.threads);
  LatencyResult result{.test = test, .modes = {}};
  std::vector<Bench> benches;
  for (const Mode mode : model.modes) {
    SWIFTKV_ASSIGN_OR_RETURN(Bench bench, Bench::Create(model, mode, test));
    benches.push_back(std::move(bench));
    if (options.warm_up) SWIFTKV_RETURN_IF_ERROR(benches.back().WarmUp());
    result.modes.push_back(
        {.mode = mode, .seconds = {}, .tokens = test.sequences * (test.prompt + test.generate), .work = {}});
  }
  for (int64_t repetition = 0; repetition < options.repetitions; ++repetition) {
    if (options.cancelled && options.cancelled()) return MakeError(ErrorCode::kCancelled, "interrupted");
    for (size_t i = 0; i < benches.size(); ++i) {
      Work work;
      const Clock::time_point start = Clock::now();
      SWIFTKV_RETURN_IF_ERROR(benches[i].Run(&work));
      result.modes[i].seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
      result.modes[i].work = work;
    }
    done();
  }
  return result;
}

}  // namespace

std::string TestName(const LatencyTest& test) {
  std::string name = test.prompt > 0 ? fmt::format("pp{}", test.prompt) : "";
  if (test.generate > 0) name += fmt::format("{}tg{}", name.empty() ? "" : "+", test.generate);
  if (test.depth > 0) name += fmt::format(" @ d{}", test.depth);
  return name;
}

Status Validate(const LatencyTest& test, const ModelConfig& config) {
  const int64_t context = config.max_position_embeddings;
  if (test.prompt < 0 || test.generate < 0 || test.depth < 0 || test.prompt + test.generate == 0) {
    return InvalidInput("a test needs prompt or output tokens, and a depth of 0 or more; this is pp {}, tg {}, d {}",
                        test.prompt, test.generate, test.depth);
  }
  if (test.prompt > context || test.generate > context || test.depth > context ||
      test.depth + test.prompt + test.generate > context) {
    return InvalidInput("{}: the model's context holds {} tokens", TestName(test), context);
  }
  if (test.sequences < 1 || test.sequences > kMaxSequences) {
    return InvalidInput("{} sequences at once: 1 to {} are possible", test.sequences, kMaxSequences);
  }
  if (test.batch_tokens < 1) return InvalidInput("a step of {} tokens: it must have at least 1", test.batch_tokens);
  if (test.threads < 1 || test.threads > kMaxThreads) {
    return InvalidInput("{} threads: 1 to {} are possible", test.threads, kMaxThreads);
  }
  return Ok();
}

std::vector<double> ModeLatency::speeds() const {
  std::vector<double> speeds;
  for (const double second : seconds) speeds.push_back(static_cast<double>(tokens) / second);
  return speeds;
}

double ModeLatency::tokens_per_second() const { return Mean(speeds()); }

Result<std::vector<LatencyResult>> MeasureLatency(const MeasuredModel& model, const std::vector<LatencyTest>& tests,
                                                  const LatencyOptions& options) {
  for (const LatencyTest& test : tests) SWIFTKV_RETURN_IF_ERROR(Validate(test, model.weights.config));
  std::vector<LatencyResult> results;
  int64_t repetitions_done = 0;
  const int64_t all = std::ssize(tests) * options.repetitions;
  for (const LatencyTest& test : tests) {
    SWIFTKV_ASSIGN_OR_RETURN(LatencyResult result, MeasureTest(model, test, options, [&] {
                               ++repetitions_done;
                               if (options.progress) options.progress(repetitions_done, all);
                             }));
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace swiftkv
