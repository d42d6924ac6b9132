#include "engine/engine.h"

#include <sys/random.h>

#include <algorithm>
#include <ctime>
#include <set>
#include <utility>

#include "base/parallel.h"
#include "engine/memory.h"
#include "engine/sampler.h"
#include "engine/stop_matcher.h"

namespace swiftkv {
namespace {

// Rows whose logits are in memory at once: 33 MB at a vocabulary of 128 K.
constexpr int64_t kLogitTileRows = 64;

uint64_t NewSeed() {
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<uint64_t>(time(nullptr));
  return seed;
}

std::vector<int32_t> EosTokenIds(const ModelConfig& config, const Tokenizer* tokenizer) {
  std::vector<int32_t> ids = config.eos_token_id;
  if (tokenizer != nullptr && tokenizer->eos_token_id()) ids.push_back(*tokenizer->eos_token_id());
  std::erase_if(ids, [&](int32_t id) { return id < 0 || id >= config.vocab_size; });
  return ids;
}

}  // namespace

// One of the n completions of a request.
struct Engine::Choice : Sequence {
  int64_t request_id = 0;
  int32_t index = 0;
  std::shared_ptr<const Request> request;
  std::vector<int32_t> end_tokens;
  std::optional<Sampler> sampler;
  std::optional<StreamDecoder> decoder;
  StopMatcher stop;
  int64_t cached_tokens = 0;
  // What the step that has just run found: the next token, scores of the prompt.
  std::optional<int32_t> sampled;
  PositionLogprobs sampled_logprobs;
  std::vector<PositionLogprobs> prompt_logprobs;

  int64_t prompt_length() const { return static_cast<int64_t>(request->prompt_token_ids.size()); }
  int64_t output_length() const { return length() - prompt_length(); }
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
  int32_t token_id = 0;
  PositionLogprobs logprobs;
};

Result<std::unique_ptr<Engine>> Engine::Create(const Weights& weights, Mode mode, const Tokenizer* tokenizer,
                                               const EngineOptions& options) {
  const int64_t limit = weights.config.max_position_embeddings;
  const int64_t max_model_len = options.max_model_len == 0 ? limit : options.max_model_len;
  if (max_model_len < 1 || max_model_len > limit) {
    return InvalidInput("max_model_len is {}; this model's context holds 1 to {} tokens", max_model_len, limit);
  }
  if (options.scheduler.max_num_batched_tokens < 1 || options.scheduler.max_num_seqs < 1) {
    return InvalidInput("max_num_batched_tokens and max_num_seqs must be at least 1");
  }
  Forward forward(weights, mode);
  const int64_t cache_tokens = options.kv_cache_tokens == 0 ? max_model_len : options.kv_cache_tokens;
  const int64_t blocks = (cache_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  const KvLayout layout = forward.cache_layout();
  // Linux lends more memory than it has and later kills who uses it, so the cache is held against what there is.
  const int64_t available = ReadMemoryInfo().available_bytes;
  if (available > 0 && blocks > available / std::max<int64_t>(layout.groups * layout.block_bytes, 1)) {
    return ResourceExhausted("the K/V cache for {} tokens does not fit into the {} MiB of memory available",
                             cache_tokens, available >> 20);
  }
  SWIFTKV_ASSIGN_OR_RETURN(KvCache cache, KvCache::Create(layout, blocks));
  return std::unique_ptr<Engine>(
      new Engine(weights, std::move(forward), tokenizer, options, max_model_len, std::move(cache)));
}

Engine::Engine(const Weights& weights, Forward forward, const Tokenizer* tokenizer, const EngineOptions& options,
               int64_t max_model_len, KvCache cache)
    : weights_(&weights),
      tokenizer_(tokenizer),
      max_model_len_(max_model_len),
      eos_token_ids_(EosTokenIds(weights.config, tokenizer)),
      cache_(std::move(cache)),
      forward_(std::move(forward)),
      scheduler_(options.scheduler, &cache_) {}

Engine::~Engine() = default;

Result<int64_t> Engine::Add(Request request) {
  const SamplingParams& sampling = request.sampling;
  const int64_t vocab_size = weights_->config.vocab_size;
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
  if (!sampling.stop.empty() && tokenizer_ == nullptr) return InvalidInput("stop strings need a tokenizer");

  if (!sampling.seed) request.sampling.seed = NewSeed();
  const int64_t id = next_id_;
  std::unique_ptr<Choice> choice = MakeChoice(id, std::make_shared<const Request>(std::move(request)), 0);
  if (const int64_t blocks = Scheduler::BlocksNeeded(*choice); blocks > cache_.blocks()) {
    return InvalidInput("the request needs {} tokens of K/V cache for {} choices; the cache holds {}",
                        blocks * kKvBlockTokens, choice->choices, cache_.blocks() * kKvBlockTokens);
  }
  ++next_id_;
  scheduler_.Add(choice.get());
  requests_[id].push_back(std::move(choice));
  return id;
}

std::unique_ptr<Engine::Choice> Engine::MakeChoice(int64_t id, std::shared_ptr<const Request> request,
                                                   int32_t index) const {
  const SamplingParams& sampling = request->sampling;
  auto choice = std::make_unique<Choice>();
  choice->token_ids = request->prompt_token_ids;
  choice->max_length = max_model_len_;
  if (sampling.max_tokens) choice->max_length = std::min(choice->length() + *sampling.max_tokens, max_model_len_);
  choice->choices = index == 0 ? sampling.n : 1;
  // The last token is computed in any case, since its logits are wanted; so are tokens whose logits score the next one.
  choice->shareable = choice->length() - 1;
  if (sampling.prompt_logprobs && index == 0) {
    choice->shareable = std::min(choice->shareable, sampling.prompt_logprobs_begin - 1);
  }
  choice->request_id = id;
  choice->index = index;
  if (!sampling.ignore_eos) choice->end_tokens = eos_token_ids_;
  choice->end_tokens.insert(choice->end_tokens.end(), sampling.stop_token_ids.begin(), sampling.stop_token_ids.end());
  choice->sampler.emplace(sampling, *sampling.seed, index, choice->token_ids, choice->end_tokens);
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

void Engine::Abort(int64_t request_id) { Drop(request_id, /*keep=*/true); }

void Engine::Drop(int64_t request_id, bool keep) {
  const auto found = requests_.find(request_id);
  if (found == requests_.end()) return;
  for (const auto& choice : found->second) {
    scheduler_.Remove(choice.get(), keep && choice->request->keep_cache && choice->index == 0);
  }
  requests_.erase(found);
}

Result<std::vector<RequestOutput>> Engine::Step() {
  const std::vector<Scheduler::Chunk> chunks = scheduler_.Schedule();
  swiftkv::Step step;
  const std::vector<LogitRow> rows = PlanStep(chunks, &step);
  if (Status status = forward_.Run(step, &cache_); !status) {
    std::set<int64_t> ids;
    for (const Scheduler::Chunk& chunk : chunks) ids.insert(static_cast<Choice*>(chunk.sequence)->request_id);
    for (const int64_t id : ids) Drop(id, /*keep=*/false);
    return tl::unexpected<Error>(std::move(status).error());
  }
  for (const Scheduler::Chunk& chunk : chunks) chunk.sequence->computed += chunk.tokens;
  const auto count = static_cast<int64_t>(rows.size());
  for (int64_t begin = 0; begin < count; begin += kLogitTileRows) {
    ReadTile(rows, begin, std::min(kLogitTileRows, count - begin));
  }

  std::vector<RequestOutput> outputs;
  for (const Scheduler::Chunk& chunk : chunks) {
    auto* choice = static_cast<Choice*>(chunk.sequence);
    if (choice->computed < choice->length()) continue;  // an unfinished prompt
    if (choice->choices > 1) ForkChoices(choice);
    outputs.push_back(Advance(choice));
    if (outputs.back().finish_reason) Retire(choice);
  }
  return outputs;
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
    if (choice->output_length() == 0) choice->cached_tokens = std::max(choice->cached_tokens, choice->computed);

    const SamplingParams& sampling = choice->request->sampling;
    const bool scores = sampling.prompt_logprobs && choice->index == 0;
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t next = choice->computed + i + 1;
      LogitRow row{.choice = choice};
      if (next < choice->prompt_length()) {
        if (!scores || next < sampling.prompt_logprobs_begin) continue;
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

// Logits of some rows, and what they say: a token each, and log-probabilities where asked for.
void Engine::ReadTile(const std::vector<LogitRow>& rows, int64_t begin, int64_t count) {
  const int64_t vocab_size = weights_->config.vocab_size;
  const int64_t workers = std::min<int64_t>(Threads(), count);
  // Everything that the workers write has its memory before they start, for they must not throw.
  logits_.resize(static_cast<size_t>(std::max<int64_t>(count * vocab_size, static_cast<int64_t>(logits_.size()))));
  stats_.resize(kLogitTileRows);
  results_.resize(kLogitTileRows);
  for (RowResult& result : results_) result.logprobs.top.reserve(kMaxLogprobs);
  if (static_cast<int64_t>(scratch_.size()) < workers) scratch_.resize(static_cast<size_t>(workers));
  for (SamplerScratch& scratch : scratch_) scratch.Reserve(vocab_size);

  forward_.Logits(begin, count, logits_.data());
  weights_->backend->ComputeLogitStats(logits_.data(), count, vocab_size, stats_.data());
  ParallelFor(workers, [&](int64_t worker) {
    for (int64_t i = worker; i < count; i += workers) {
      const LogitRow& row = rows[static_cast<size_t>(begin + i)];
      const std::span<const float> logits(logits_.data() + i * vocab_size, static_cast<size_t>(vocab_size));
      const kernels::LogitStats& stats = stats_[static_cast<size_t>(i)];
      RowResult& result = results_[static_cast<size_t>(i)];
      if (row.scored_token >= 0) {
        result.token_id = row.scored_token;
      } else {
        const Sampler& sampler = *row.choice->sampler;
        result.token_id =
            sampler.NeedsLogits() ? sampler.Sample(logits, &scratch_[static_cast<size_t>(worker)]) : stats.argmax;
      }
      if (row.logprobs()) ComputeLogprobs(logits, stats, result.token_id, *row.logprobs(), &result.logprobs);
    }
  });

  for (int64_t i = 0; i < count; ++i) {
    const LogitRow& row = rows[static_cast<size_t>(begin + i)];
    const RowResult& result = results_[static_cast<size_t>(i)];
    if (row.scored_token >= 0) {
      row.choice->prompt_logprobs.push_back(result.logprobs);
    } else {
      row.choice->sampled = result.token_id;
      if (row.logprobs()) row.choice->sampled_logprobs = result.logprobs;
    }
  }
}

void Engine::ForkChoices(Choice* parent) {
  const int32_t count = parent->request->sampling.n;
  for (int32_t index = 1; index < count; ++index) {
    std::unique_ptr<Choice> child = MakeChoice(parent->request_id, parent->request, index);
    scheduler_.Fork(parent, child.get());
    requests_[parent->request_id].push_back(std::move(child));
  }
}

// Takes the sampled token into the sequence and says what is new.
RequestOutput Engine::Advance(Choice* choice) {
  RequestOutput output;
  output.request_id = choice->request_id;
  output.index = choice->index;
  if (choice->output_length() == 0) {
    output.prompt_logprobs = std::move(choice->prompt_logprobs);
    output.cached_tokens = choice->cached_tokens;
  }
  if (choice->sampled) {
    const int32_t token_id = *std::exchange(choice->sampled, std::nullopt);
    choice->token_ids.push_back(token_id);
    choice->sampler->Accept(token_id);
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
  const std::string piece = choice->decoder->Push(token_id);
  if (choice->output_length() <= choice->request->sampling.min_tokens) {
    output->text += piece;
    return;
  }
  output->text += choice->stop.Push(piece);
  if (choice->stop.matched() != nullptr) output->finish_reason = FinishReason::kStop;
}

void Engine::Retire(Choice* choice) {
  scheduler_.Remove(choice, choice->request->keep_cache && choice->index == 0);
  const auto found = requests_.find(choice->request_id);
  std::erase_if(found->second, [choice](const auto& other) { return other.get() == choice; });
  if (found->second.empty()) requests_.erase(found);
}

Result<std::vector<GenerateResult>> Engine::Generate(std::vector<Request> requests,
                                                     const std::function<bool()>& cancelled) {
  std::vector<GenerateResult> results(requests.size());
  std::map<int64_t, size_t> places;
  const auto drop_all = [&] {
    for (const auto& [id, place] : places) Drop(id, /*keep=*/false);
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
    auto outputs = Step();
    if (!outputs) {
      drop_all();
      return tl::unexpected<Error>(std::move(outputs).error());
    }
    for (RequestOutput& output : *outputs) {
      const auto place = places.find(output.request_id);
      if (place == places.end()) continue;
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
