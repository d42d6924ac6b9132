#include "engine/engine.h"

#include <sys/random.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <new>
#include <set>
#include <utility>

#include "base/parallel.h"
#include "engine/memory.h"
#include "engine/random.h"
#include "engine/sampler.h"
#include "engine/stop_matcher.h"

namespace swiftkv {
namespace {

constexpr int64_t kMaxBatchedTokens = 1 << 20;  // of one step
constexpr int32_t kNoToken = -1;                // the row's constraint found no memory

uint64_t NewSeed() {
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<uint64_t>(time(nullptr));
  return seed;
}

RequestTimes::Time Deadline(RequestTimes::Time arrival, double timeout_s) {
  constexpr double kYear = 365.0 * 24 * 3600;
  return arrival + std::chrono::duration_cast<RequestTimes::Time::duration>(
                       std::chrono::duration<double>(std::min(timeout_s, kYear)));
}

std::vector<int32_t> EosTokenIds(const ModelTraits& traits, const Tokenizer* tokenizer) {
  std::vector<int32_t> ids = traits.eos_token_ids;
  if (tokenizer != nullptr && tokenizer->eos_token_id()) ids.push_back(*tokenizer->eos_token_id());
  std::erase_if(ids, [&](int32_t id) { return id < 0 || id >= traits.vocab_size; });
  return ids;
}

// Sequence::skipping_token_cost of that model: its share of the arithmetic, and a part of what it skips, since time
// does not shrink with arithmetic alone (keys and values are written for all layers; docs/results/server-ratios.md).
int64_t SkippingTokenCost(const ModelTraits& traits) {
  constexpr double kTimeOfSkipped = 1.0 / 16;
  const double share = traits.skipping_token_flops / traits.token_flops;
  return std::max<int64_t>(std::llround(kFullTokenCost * (share + (1 - share) * kTimeOfSkipped)), 1);
}

// Work memory for the largest step that `options` allow. Before the cache takes its share: a step that found no memory
// would end all of its requests.
Status ReserveWorkMemory(const EngineOptions& options, int64_t max_model_len, ModelRunner* model) {
  const int64_t budget = options.scheduler.max_num_batched_tokens;
  int64_t rows = budget * kFullTokenCost / SkippingTokenCost(model->traits());
  const bool takes_share = options.kv_cache_tokens == 0 && options.kv_cache_memory > 0;
  const int64_t cache_tokens = options.kv_cache_tokens == 0 ? max_model_len : options.kv_cache_tokens;
  if (!takes_share) rows = std::min(rows, cache_tokens + kKvBlockTokens);  // each row has a place in the cache
  const Status reserved = model->Reserve(rows, std::min(rows, budget));
  if (reserved) return Ok();
  return MakeError(reserved.error().code, "{}; a step of fewer tokens (max_num_batched_tokens) needs less",
                   reserved.error().message);
}

// Tokens that the cache is to hold where `available` bytes are free.
int64_t CacheTokens(const EngineOptions& options, int64_t max_model_len, const KvLayout& layout, int64_t available) {
  if (options.kv_cache_tokens != 0) return options.kv_cache_tokens;
  constexpr double kMost = 1e15;  // beyond any memory, within int64_t
  const double unit = options.kv_cache_memory <= 1 ? static_cast<double>(available) : 1;
  const double tokens = options.kv_cache_memory * unit / static_cast<double>(layout.bytes_per_token());
  return std::max(max_model_len, static_cast<int64_t>(std::min(tokens, kMost)));
}

}  // namespace

// One of the n completions of a request.
struct Engine::Choice : Sequence {
  int64_t request_id = 0;
  int32_t index = 0;
  std::shared_ptr<const Request> request;
  std::vector<int32_t> end_tokens;
  std::optional<Sampler> sampler;
  std::unique_ptr<TokenConstraint> constraint;  // null: none
  std::optional<StreamDecoder> decoder;
  StopMatcher stop;
  // What the step that has just run found: the next token, scores of the prompt.
  std::optional<int32_t> sampled;
  PositionLogprobs sampled_logprobs;
  std::vector<PositionLogprobs> prompt_logprobs;

  int64_t prompt_length() const { return static_cast<int64_t>(request->prompt_token_ids.size()); }
  int64_t output_length() const { return length() - prompt_length(); }
  int64_t scored_tokens() const { return static_cast<int64_t>(prompt_logprobs.size()); }
};

// A request on its way.
struct Engine::Running {
  std::vector<std::unique_ptr<Choice>> choices;  // those that still run or wait
  RequestTimes times;
  std::optional<RequestTimes::Time> deadline;
};

// A row of the step whose logits are wanted: to score the prompt token that follows, or to sample the next one.
struct Engine::LogitRow {
  Choice* choice = nullptr;
  int32_t scored_token = -1;  // -1: sample

  // Alternatives whose log-probabilities are asked for; nullopt: not even the token's own.
  std::optional<int32_t> logprobs() const {
    const SamplingParams& sampling = choice->request->sampling;
    return scored_token >= 0 ? sampling.prompt_logprobs : sampling.logprobs;
  }
};

// What was read from one logit row of a tile.
struct Engine::RowResult {
  int32_t token_id = kNoToken;
  PositionLogprobs logprobs;
};

Result<std::unique_ptr<Engine>> Engine::Create(const Weights& weights, Mode mode, const Tokenizer* tokenizer,
                                               const EngineOptions& options) {
  if (options.kv_cache_dtype) SWIFTKV_RETURN_IF_ERROR(weights.backend->CheckCacheType(*options.kv_cache_dtype));
  return Create(MakeModelRunner(weights, mode, options.kv_cache_dtype), tokenizer, options);
}

Result<std::unique_ptr<Engine>> Engine::Create(std::unique_ptr<ModelRunner> model, const Tokenizer* tokenizer,
                                               const EngineOptions& options) {
  const int64_t limit = model->traits().max_position_embeddings;
  const int64_t max_model_len = options.max_model_len == 0 ? limit : options.max_model_len;
  if (max_model_len < 1 || max_model_len > limit) {
    return InvalidInput("max_model_len is {}; this model's context holds 1 to {} tokens", max_model_len, limit);
  }
  if (options.scheduler.max_num_batched_tokens < 1 || options.scheduler.max_num_batched_tokens > kMaxBatchedTokens ||
      options.scheduler.max_num_seqs < 1) {
    return InvalidInput("max_num_seqs must be at least 1, max_num_batched_tokens 1 to {}", kMaxBatchedTokens);
  }
  SWIFTKV_RETURN_IF_ERROR(ReserveWorkMemory(options, max_model_len, model.get()));
  const KvLayout layout = model->traits().cache_layout;
  // Linux lends more memory than it has and later kills who uses it, so the cache is held against what there is.
  const int64_t available = AvailableBytes(*layout.memory);
  const int64_t cache_tokens = CacheTokens(options, max_model_len, layout, available);
  const int64_t blocks = (cache_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  if (available > 0 && blocks > available / std::max<int64_t>(layout.groups * layout.block_bytes, 1)) {
    return ResourceExhausted("the K/V cache for {} tokens does not fit into the {} MiB of {}memory available",
                             cache_tokens, available >> 20, layout.memory->is_host() ? "" : "the GPU's ");
  }
  SWIFTKV_ASSIGN_OR_RETURN(KvCache cache, KvCache::Create(layout, blocks));
  return std::unique_ptr<Engine>(new Engine(std::move(model), tokenizer, options, max_model_len, std::move(cache)));
}

Engine::Engine(std::unique_ptr<ModelRunner> model, const Tokenizer* tokenizer, const EngineOptions& options,
               int64_t max_model_len, KvCache cache)
    : model_(std::move(model)),
      tokenizer_(tokenizer),
      options_(options),
      max_model_len_(max_model_len),
      eos_token_ids_(EosTokenIds(model_->traits(), tokenizer)),
      cache_(std::move(cache)),
      scheduler_(options.scheduler, &cache_),
      pace_({.target_s = options.tpot_target_s,
             .step_cost = options.scheduler.max_num_batched_tokens * kFullTokenCost}) {}

Engine::~Engine() = default;

Status Engine::Check(const Request& request) const {
  const SamplingParams& sampling = request.sampling;
  const int64_t vocab_size = model_->traits().vocab_size;
  SWIFTKV_RETURN_IF_ERROR(Validate(sampling, vocab_size));
  if (request.prompt_token_ids.empty()) return InvalidInput("the prompt is empty");
  for (const int32_t id : request.prompt_token_ids) {
    if (id < 0 || id >= vocab_size) {
      return InvalidInput("the prompt has token {}; the vocabulary has 0 to {}", id, vocab_size - 1);
    }
  }
  const auto length = static_cast<int64_t>(request.prompt_token_ids.size());
  const int64_t needed = sampling.max_tokens == 0 ? length : length + 1;
  if (needed > max_model_len_) {
    return InvalidInput("the prompt has {} tokens; the context holds {}{}", length, max_model_len_,
                        needed > length ? ", the answer included" : "");
  }
  if (const int64_t longest = LongestLength(request); longest > cache_.blocks() * kKvBlockTokens) {
    return InvalidInput("the request may need {} tokens of K/V cache; the cache holds {}", longest,
                        cache_.blocks() * kKvBlockTokens);
  }
  if (sampling.n > options_.scheduler.max_num_seqs) {
    return InvalidInput("n is {}; at most {} sequences run at once", sampling.n, options_.scheduler.max_num_seqs);
  }
  if (request.constraint != nullptr) SWIFTKV_RETURN_IF_ERROR(CheckConstraint(request));
  if (!sampling.stop.empty() && tokenizer_ == nullptr) return InvalidInput("stop strings need a tokenizer");
  if (!(request.timeout_s >= 0)) return InvalidInput("timeout_s is {}; it must not be negative", request.timeout_s);
  return Ok();
}

// A constrained output ends by an end token, and nowhere else.
Status Engine::CheckConstraint(const Request& request) const {
  const SamplingParams& sampling = request.sampling;
  const int64_t vocab_size = model_->traits().vocab_size;
  if (request.constraint->vocab_size() != vocab_size) {
    return InvalidInput("the constraint is for {} tokens; the vocabulary has {}", request.constraint->vocab_size(),
                        vocab_size);
  }
  if (sampling.ignore_eos) return InvalidInput("ignore_eos does not go together with structured output");
  if (eos_token_ids_.empty() && sampling.stop_token_ids.empty()) {
    return InvalidInput("structured output needs an end-of-sequence token; this model has none");
  }
  return Ok();
}

int64_t Engine::LongestLength(const Request& request) const {
  const std::optional<int64_t>& max_tokens = request.sampling.max_tokens;
  if (!max_tokens) return max_model_len_;
  const auto length = static_cast<int64_t>(request.prompt_token_ids.size());
  return std::min(length + std::min(*max_tokens, max_model_len_), max_model_len_);
}

Result<int64_t> Engine::Add(Request request) {
  SWIFTKV_RETURN_IF_ERROR(Check(request));
  const int64_t id = next_id_++;
  if (!request.sampling.seed) {
    // Not the sum of both: a seed's second request would draw as the next seed's first.
    request.sampling.seed = options_.seed ? RandomBits(*options_.seed, static_cast<uint64_t>(id), 0) : NewSeed();
  }
  Running running{.choices = {}, .times = {.arrival = request.arrival.value_or(now())}, .deadline = {}};
  if (request.timeout_s > 0) {
    running.deadline = Deadline(running.times.arrival, request.timeout_s);
    deadlines_.emplace(*running.deadline, id);
  }
  running.choices.push_back(MakeChoice(id, std::make_shared<const Request>(std::move(request)), 0));
  scheduler_.Add(running.choices[0].get());
  requests_.emplace(id, std::move(running));
  return id;
}

std::unique_ptr<Engine::Choice> Engine::MakeChoice(int64_t id, std::shared_ptr<const Request> request,
                                                   int32_t index) const {
  const SamplingParams& sampling = request->sampling;
  auto choice = std::make_unique<Choice>();
  choice->token_ids = request->prompt_token_ids;
  choice->max_length = LongestLength(*request);
  choice->choices = index == 0 ? sampling.n : 1;
  choice->priority = request->priority;
  if (sampling.prompt_logprobs && index == 0) {
    choice->shareable = sampling.prompt_logprobs_begin - 1;  // logits of what follows are wanted
  } else {
    choice->skipping_token_cost = SkippingTokenCost(model_->traits());
  }
  choice->request_id = id;
  choice->index = index;
  if (!sampling.ignore_eos) choice->end_tokens = eos_token_ids_;
  choice->end_tokens.insert(choice->end_tokens.end(), sampling.stop_token_ids.begin(), sampling.stop_token_ids.end());
  choice->sampler.emplace(sampling, *sampling.seed, index, choice->token_ids, choice->end_tokens);
  if (request->constraint != nullptr) choice->constraint = request->constraint->New();
  choice->stop = StopMatcher(sampling.stop);
  if (tokenizer_ != nullptr) {
    // The prompt's last tokens decide whether the first word of the output begins with a space.
    constexpr int64_t kContext = 8;
    choice->decoder.emplace(*tokenizer_, DecodeOptions{.skip_special_tokens = sampling.skip_special_tokens});
    for (int64_t i = std::max<int64_t>(choice->length() - kContext, 0); i < choice->length(); ++i) {
      choice->decoder->Push(choice->token_ids[static_cast<size_t>(i)]);
    }
  }
  choice->request = std::move(request);
  return choice;
}

void Engine::Abort(int64_t request_id) {
  const auto found = requests_.find(request_id);
  if (found == requests_.end()) return;
  for (const auto& choice : found->second.choices) scheduler_.Remove(choice.get());
  Forget(found);
}

void Engine::Forget(Requests::iterator request) {
  if (request->second.deadline) deadlines_.erase({*request->second.deadline, request->first});
  requests_.erase(request);
}

RequestOutput Engine::Fail(int64_t request_id, Error error) {
  RequestOutput output;
  output.request_id = request_id;
  output.times = requests_.at(request_id).times;
  output.times.last_output = options_.now();
  output.error = tl::unexpected<Error>(std::move(error));
  output.finished = true;
  Abort(request_id);
  return output;
}

void Engine::EndOverdue(std::vector<RequestOutput>* outputs) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= options_.now()) {
    const int64_t id = deadlines_.begin()->second;
    outputs->push_back(Fail(id, Error{ErrorCode::kCancelled, "the request's time limit has passed"}));
  }
}

std::vector<RequestOutput> Engine::Step() {
  std::vector<RequestOutput> outputs;
  try {
    RunStep(&outputs);
  } catch (const std::bad_alloc&) {
    // How far the step came is not known, so nothing that it may have touched goes on.
    while (!requests_.empty()) {
      outputs.push_back(
          Fail(requests_.begin()->first, Error{ErrorCode::kResourceExhausted, "no memory for the next step"}));
    }
  }
  return outputs;
}

void Engine::RunStep(std::vector<RequestOutput>* outputs) {
  EndOverdue(outputs);
  const RequestTimes::Time begin = options_.now();
  const std::vector<Scheduler::Chunk> chunks = scheduler_.Schedule(pace_.PromptCostLimit(scheduler_.decode_load()));
  if (chunks.empty()) return;
  swiftkv::Step step;
  const std::vector<LogitRow> rows = PlanStep(chunks, &step);
  for (const Scheduler::Chunk& chunk : chunks) {
    RequestTimes& times = requests_.at(static_cast<Choice*>(chunk.sequence)->request_id).times;
    if (times.scheduled == RequestTimes::Time()) times.scheduled = begin;
  }
  Status status = model_->Run(step, &cache_);
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t tile_rows = model_->traits().logit_rows_at_once;
  for (int64_t first = 0; first < count && status; first += tile_rows) {
    status = ReadTile(rows, first, std::min(tile_rows, count - first));
  }
  if (!status) {
    std::set<int64_t> ids;
    for (const Scheduler::Chunk& chunk : chunks) ids.insert(static_cast<Choice*>(chunk.sequence)->request_id);
    for (const int64_t id : ids) outputs->push_back(Fail(id, status.error()));
    return;
  }
  CountStep(chunks, count, begin);
  scheduler_.Complete(chunks);

  std::set<int64_t> failed;
  for (const LogitRow& row : rows) {
    if (row.choice->sampled == kNoToken) failed.insert(row.choice->request_id);
  }
  for (const Scheduler::Chunk& chunk : chunks) {
    auto* choice = static_cast<Choice*>(chunk.sequence);
    if (failed.contains(choice->request_id)) continue;
    if (choice->computed < choice->length()) continue;  // an unfinished prompt
    if (choice->choices > 1) ForkChoices(choice);
    outputs->push_back(Advance(choice));
    if (outputs->back().finish_reason) Retire(choice);
    outputs->back().finished = requests_.count(outputs->back().request_id) == 0;
  }
  for (const int64_t id : failed) {
    outputs->push_back(Fail(id, Error{ErrorCode::kResourceExhausted, "no memory for the output's grammar"}));
  }
}

// What the step was and how long it took; before the chunks are complete.
void Engine::CountStep(const std::vector<Scheduler::Chunk>& chunks, int64_t logit_rows, RequestTimes::Time begin) {
  int64_t tokens = 0;
  int64_t prompt_cost = 0;
  DecodeLoad load;
  for (const Scheduler::Chunk& chunk : chunks) {
    tokens += chunk.tokens;
    if (chunk.tokens == 1) {
      ++load.sequences;
      load.cached_tokens += chunk.sequence->length();
    } else {
      prompt_cost += Scheduler::Cost(chunk);
    }
  }
  pace_.Observe(load, prompt_cost, std::chrono::duration<double>(options_.now() - begin).count());
  const ModelTraits& traits = model_->traits();
  const auto skipping = static_cast<double>(tokens - logit_rows);
  ++stats_.steps;
  stats_.computed_tokens += tokens;
  stats_.computed_flops +=
      static_cast<double>(logit_rows) * traits.token_flops + skipping * traits.skipping_token_flops;
  stats_.skipped_flops += skipping * (traits.token_flops - traits.skipping_token_flops);
  if (traits.skips_layers) stats_.skipped_layers_tokens += tokens - logit_rows;
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.num_requests_running = scheduler_.running();
  stats.num_requests_waiting = scheduler_.waiting();
  stats.kv_cache_tokens = cache_.blocks() * kKvBlockTokens;
  stats.kv_cache_bytes_per_token = cache_.bytes_per_token();
  stats.kv_cache_usage = 1 - static_cast<double>(cache_.free_blocks()) / static_cast<double>(cache_.blocks());
  stats.prefix_cache_queries = scheduler_.counters().prefix_cache_queries;
  stats.prefix_cache_hits = scheduler_.counters().prefix_cache_hits;
  stats.num_preemptions = scheduler_.counters().preemptions;
  return stats;
}

std::vector<Engine::LogitRow> Engine::PlanStep(const std::vector<Scheduler::Chunk>& chunks, swiftkv::Step* step) const {
  std::vector<LogitRow> rows;
  for (const auto& [sequence, tokens] : chunks) {
    auto* choice = static_cast<Choice*>(sequence);
    const auto row_begin = static_cast<int64_t>(step->token_ids.size());
    const auto first = choice->token_ids.begin() + choice->computed;
    step->token_ids.insert(step->token_ids.end(), first, first + tokens);
    step->chunks.push_back({.token_begin = row_begin,
                            .tokens = tokens,
                            .position = static_cast<int32_t>(choice->computed),
                            .block_table = choice->block_table});
    const SamplingParams& sampling = choice->request->sampling;
    // Once answering, the scores have been given away: a preempted answer's prompt is not scored again.
    const bool scores = sampling.prompt_logprobs && choice->index == 0 && choice->output_length() == 0;
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t next = choice->computed + i + 1;
      LogitRow row{.choice = choice};
      if (next < choice->prompt_length()) {
        // What was scored before a preemption is known.
        if (!scores || next < sampling.prompt_logprobs_begin + choice->scored_tokens()) continue;
        row.scored_token = choice->token_ids[static_cast<size_t>(next)];
      } else if (next < choice->length() || next >= choice->max_length) {
        continue;
      }
      step->logit_rows.push_back(static_cast<int32_t>(row_begin + i));
      rows.push_back(row);
    }
  }
  return rows;
}

// What of those rows must come to the host: the logits of as few as can be, where a device has them.
LogitReads Engine::PlanReads(const std::vector<LogitRow>& rows, int64_t begin, int64_t count) {
  wanted_.assign(static_cast<size_t>(count), 0);
  draws_.assign(static_cast<size_t>(count), {});
  tokens_.assign(static_cast<size_t>(count), kNoToken);
  bool draws = false;
  for (int64_t i = 0; i < count; ++i) {
    const LogitRow& row = rows[static_cast<size_t>(begin + i)];
    const Choice& choice = *row.choice;
    const auto at = static_cast<size_t>(i);
    const bool samples = row.scored_token < 0 && (choice.constraint != nullptr || choice.sampler->NeedsLogits());
    const std::optional<kernels::TokenDraw> draw =
        samples && model_->traits().draws_tokens && choice.constraint == nullptr ? choice.sampler->PlainDraw()
                                                                                 : std::nullopt;
    if (draw) draws_[at] = *draw;
    draws |= draw.has_value();
    wanted_[at] = (samples && !draw) || row.logprobs() ? 1 : 0;
  }
  // A device that is asked for no row needs no place for any: 512 rows of a vocabulary of 128 K are 263 MB.
  const bool has_rows = !model_->traits().draws_tokens || std::count(wanted_.begin(), wanted_.end(), 1) > 0;
  const auto size = static_cast<size_t>(has_rows ? count * model_->traits().vocab_size : 0);
  logits_.resize(std::max(size, logits_.size()));
  LogitReads reads{.logits = logits_.data(), .wanted = wanted_, .stats = logit_stats_.data()};
  if (draws) reads.draws = draws_;
  if (draws) reads.tokens = tokens_.data();
  return reads;
}

// Logits of some rows, and what they say: a token each, and log-probabilities where asked for.
Status Engine::ReadTile(const std::vector<LogitRow>& rows, int64_t begin, int64_t count) {
  const int64_t vocab_size = model_->traits().vocab_size;
  const int64_t workers = std::min<int64_t>(Threads(), count);
  // Everything that the workers write has its memory before they start, for they must not throw.
  logit_stats_.resize(static_cast<size_t>(std::max(count, std::ssize(logit_stats_))));
  results_.resize(logit_stats_.size());
  for (RowResult& result : results_) result.logprobs.top.reserve(kMaxLogprobs);
  if (static_cast<int64_t>(scratch_.size()) < workers) scratch_.resize(static_cast<size_t>(workers));
  for (SamplerScratch& scratch : scratch_) scratch.Reserve(vocab_size);

  SWIFTKV_RETURN_IF_ERROR(model_->ReadLogits(begin, count, PlanReads(rows, begin, count)));
  ParallelFor(workers, [&](int64_t worker) {
    for (int64_t i = worker; i < count; i += workers) {
      const LogitRow& row = rows[static_cast<size_t>(begin + i)];
      std::span<const float> logits;  // where anyone looks at them
      if (wanted_[static_cast<size_t>(i)] != 0) logits = std::span(logits_).subspan(i * vocab_size, vocab_size);
      const kernels::LogitStats& stats = logit_stats_[static_cast<size_t>(i)];
      RowResult& result = results_[static_cast<size_t>(i)];
      const bool drawn = draws_[static_cast<size_t>(i)].temperature > 0;
      if (row.scored_token >= 0) {
        result.token_id = row.scored_token;
      } else if (drawn) {
        result.token_id = tokens_[static_cast<size_t>(i)];
      } else {
        result.token_id = SampleRow(*row.choice, logits, stats.argmax, &scratch_[static_cast<size_t>(worker)]);
      }
      if (row.logprobs() && result.token_id != kNoToken)
        ComputeLogprobs(logits, stats, result.token_id, *row.logprobs(), &result.logprobs);
    }
  });

  for (int64_t i = 0; i < count; ++i) {
    const LogitRow& row = rows[static_cast<size_t>(begin + i)];
    const RowResult& result = results_[static_cast<size_t>(i)];
    if (row.scored_token >= 0) {
      row.choice->prompt_logprobs.push_back(result.logprobs);
      ++row.choice->shareable;
    } else {
      row.choice->sampled = result.token_id;
      if (row.logprobs()) row.choice->sampled_logprobs = result.logprobs;
    }
  }
  return Ok();
}

int32_t Engine::SampleRow(const Choice& choice, std::span<const float> logits, int32_t argmax,
                          SamplerScratch* scratch) const {
  const Sampler& sampler = *choice.sampler;
  if (choice.constraint != nullptr) {
    scratch->mask.assign((logits.size() + 63) / 64, 0);
    if (!sampler.FillMask(choice.constraint.get(), scratch->mask)) return kNoToken;
    return sampler.Sample(logits, scratch, scratch->mask);
  }
  return sampler.NeedsLogits() ? sampler.Sample(logits, scratch) : argmax;
}

void Engine::ForkChoices(Choice* parent) {
  const int32_t count = parent->request->sampling.n;
  for (int32_t index = 1; index < count; ++index) {
    std::unique_ptr<Choice> child = MakeChoice(parent->request_id, parent->request, index);
    scheduler_.Fork(parent, child.get());
    requests_.at(parent->request_id).choices.push_back(std::move(child));
  }
}

// Takes the sampled token into the sequence and says what is new.
RequestOutput Engine::Advance(Choice* choice) {
  RequestOutput output;
  output.request_id = choice->request_id;
  output.index = choice->index;
  RequestTimes& times = requests_.at(choice->request_id).times;
  times.last_output = options_.now();
  if (choice->output_length() == 0) {
    output.prompt_logprobs = std::move(choice->prompt_logprobs);
    choice->shareable = std::numeric_limits<int64_t>::max();
    output.cached_tokens = choice->cached_tokens.value_or(0);
    if (choice->index == 0) stats_.prompt_tokens += choice->prompt_length();
    if (times.first_token == RequestTimes::Time()) times.first_token = times.last_output;
  }
  output.times = times;
  if (choice->sampled) {
    const int32_t token_id = *std::exchange(choice->sampled, std::nullopt);
    choice->token_ids.push_back(token_id);
    choice->sampler->Accept(token_id);
    if (choice->constraint != nullptr) choice->constraint->Accept(token_id);
    ++stats_.generation_tokens;
    output.token_ids.push_back(token_id);
    if (choice->request->sampling.logprobs) output.logprobs.push_back(std::move(choice->sampled_logprobs));
    AppendText(choice, token_id, &output);
  }
  if (!output.finish_reason && choice->length() >= choice->max_length) {
    if (choice->decoder) output.text += choice->stop.Push(choice->decoder->Finish());
    output.finish_reason = choice->stop.matched() != nullptr ? FinishReason::kStop : FinishReason::kLength;
  }
  if (!output.finish_reason) return output;
  if (const std::string* stop = choice->stop.matched()) output.stop_reason = *stop;
  output.text += choice->stop.Finish();
  return output;
}

void Engine::AppendText(Choice* choice, int32_t token_id, RequestOutput* output) {
  const std::vector<int32_t>& ends = choice->end_tokens;
  if (std::find(ends.begin(), ends.end(), token_id) != ends.end()) {
    if (choice->decoder) output->text += choice->stop.Push(choice->decoder->Finish());
    output->finish_reason = FinishReason::kStop;
    return;
  }
  if (!choice->decoder) return;
  const bool may_stop = choice->output_length() > choice->request->sampling.min_tokens;
  output->text += choice->stop.Push(choice->decoder->Push(token_id), may_stop);
  if (choice->stop.matched() != nullptr) output->finish_reason = FinishReason::kStop;
}

void Engine::Retire(Choice* choice) {
  scheduler_.Remove(choice);
  const auto found = requests_.find(choice->request_id);
  std::erase_if(found->second.choices, [choice](const auto& other) { return other.get() == choice; });
  if (found->second.choices.empty()) Forget(found);
}

Result<std::vector<GenerateResult>> Engine::Generate(std::vector<Request> requests,
                                                     const std::function<bool()>& cancelled) {
  std::vector<GenerateResult> results(requests.size());
  std::map<int64_t, size_t> places;
  const auto drop_all = [&] {
    for (const auto& [id, place] : places) Abort(id);
  };
  for (size_t i = 0; i < requests.size(); ++i) {
    results[i].completions.resize(static_cast<size_t>(std::clamp(requests[i].sampling.n, 1, kMaxChoices)));
    Result<int64_t> id = Add(std::move(requests[i]));
    if (!id) {
      drop_all();
      return tl::unexpected<Error>(std::move(id).error());
    }
    places[*id] = i;
  }
  while (HasWork()) {
    if (cancelled && cancelled()) {
      drop_all();
      return MakeError(ErrorCode::kCancelled, "generation was cancelled");
    }
    for (RequestOutput& output : Step()) {
      const auto place = places.find(output.request_id);
      if (place == places.end()) continue;
      if (!output.error) {
        drop_all();
        return tl::unexpected<Error>(std::move(output.error).error());
      }
      GenerateResult& result = results[place->second];
      if (!output.prompt_logprobs.empty()) result.prompt_logprobs = std::move(output.prompt_logprobs);
      Completion& completion = result.completions[static_cast<size_t>(output.index)];
      Append(std::move(output), &completion);
    }
  }
  return results;
}

void Append(RequestOutput output, Completion* completion) {
  completion->index = output.index;
  completion->token_ids.insert(completion->token_ids.end(), output.token_ids.begin(), output.token_ids.end());
  completion->text += output.text;
  for (PositionLogprobs& logprobs : output.logprobs) completion->logprobs.push_back(std::move(logprobs));
  if (output.finish_reason) completion->finish_reason = *output.finish_reason;
  if (!output.stop_reason.empty()) completion->stop_reason = std::move(output.stop_reason);
}

}  // namespace swiftkv
