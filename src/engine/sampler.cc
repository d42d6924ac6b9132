#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "engine/random.h"

namespace swiftkv {
namespace {

using Candidate = SamplerScratch::Candidate;

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

// The first of equal maxima; NaN counts as forbidden.
int32_t ArgMax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best] || std::isnan(logits[best])) best = i;
  }
  return static_cast<int32_t>(best);
}

bool Allows(std::span<const uint64_t> mask, int32_t id) {
  return (mask[static_cast<size_t>(id / 64)] >> (id % 64)) & 1;
}

bool AllowsNone(std::span<const uint64_t> mask) {
  return std::all_of(mask.begin(), mask.end(), [](uint64_t word) { return word == 0; });
}

void Forbid(std::span<const uint64_t> mask, std::span<float> logits) {
  constexpr size_t kWord = 64;
  for (size_t begin = 0; begin < logits.size(); begin += kWord) {
    const std::span<float> part = logits.subspan(begin, std::min(kWord, logits.size() - begin));
    const uint64_t allowed = mask[begin / kWord];
    if (allowed == ~uint64_t{0}) continue;
    for (size_t i = 0; i < part.size(); ++i) part[i] = (allowed >> i) & 1 ? part[i] : kForbidden;
  }
}

int32_t FirstAllowed(std::span<const uint64_t> mask) {
  const auto word = std::find_if(mask.begin(), mask.end(), [](uint64_t bits) { return bits != 0; });
  return static_cast<int32_t>((word - mask.begin()) * 64 + std::countr_zero(*word));
}

double TotalWeight(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& candidate) { return sum + candidate.weight; });
}

void KeepTopK(size_t k, SamplerScratch* scratch) {
  std::vector<Candidate>& candidates = scratch->candidates;
  if (k >= candidates.size()) return;
  scratch->values.clear();
  for (const Candidate& candidate : candidates) scratch->values.push_back(candidate.logit);
  const auto kth = scratch->values.begin() + static_cast<int64_t>(k) - 1;
  std::nth_element(scratch->values.begin(), kth, scratch->values.end(), std::greater<>());
  std::erase_if(candidates, [threshold = *kth](const Candidate& candidate) { return candidate.logit < threshold; });
}

// Keeps a token if the tokens more likely than it hold less than `top_p` of the mass.
void KeepTopP(double top_p, std::vector<Candidate>* candidates) {
  const double total = TotalWeight(*candidates);
  // All tokens below this weight together hold less than 1 - top_p: they go, and need not be sorted.
  const double negligible = (1 - top_p) * total / static_cast<double>(candidates->size());
  std::erase_if(*candidates, [negligible](const Candidate& candidate) { return candidate.weight < negligible; });
  std::sort(candidates->begin(), candidates->end(), [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token_id < b.token_id;
  });
  double before = 0;
  size_t kept = 0;
  while (kept < candidates->size() && (kept == 0 || before < top_p * total)) before += (*candidates)[kept++].weight;
  candidates->resize(kept);
}

}  // namespace

void SamplerScratch::Reserve(int64_t vocab_size) {
  logits.reserve(static_cast<size_t>(vocab_size));
  candidates.reserve(static_cast<size_t>(vocab_size));
  values.reserve(static_cast<size_t>(vocab_size));
  mask.reserve(static_cast<size_t>((vocab_size + 63) / 64));
}

Sampler::Sampler(const SamplingParams& params, uint64_t seed, int32_t choice, std::span<const int32_t> prompt,
                 std::vector<int32_t> end_tokens)
    : temperature_(params.temperature),
      top_k_(params.top_k),
      top_p_(params.top_p),
      min_p_(params.min_p),
      repetition_penalty_(params.repetition_penalty),
      presence_penalty_(params.presence_penalty),
      frequency_penalty_(params.frequency_penalty),
      min_tokens_(params.min_tokens),
      logit_bias_(params.logit_bias),
      end_tokens_(std::move(end_tokens)),
      seed_(seed),
      choice_(static_cast<uint32_t>(choice)) {
  if (repetition_penalty_ != 1) {
    for (const int32_t id : prompt) output_counts_.try_emplace(id, 0);
  }
}

bool Sampler::ChangesLogits() const {
  return !logit_bias_.empty() || accepted_ < min_tokens_ || repetition_penalty_ != 1 || !output_counts_.empty();
}

bool Sampler::NeedsLogits() const { return temperature_ >= kGreedyTemperature || ChangesLogits(); }

std::optional<kernels::TokenDraw> Sampler::PlainDraw() const {
  if (temperature_ < kGreedyTemperature || ChangesLogits()) return std::nullopt;
  return kernels::TokenDraw{
      .temperature = static_cast<float>(temperature_),
      .top_k = static_cast<int32_t>(std::min<int64_t>(top_k_, std::numeric_limits<int32_t>::max())),
      .top_p = static_cast<float>(top_p_),
      .min_p = static_cast<float>(min_p_),
      .uniform = UniformDraw(seed_, static_cast<uint64_t>(accepted_), choice_)};
}

void Sampler::Accept(int32_t token_id) {
  ++accepted_;
  if (repetition_penalty_ != 1 || presence_penalty_ != 0 || frequency_penalty_ != 0) ++output_counts_[token_id];
}

bool Sampler::FillMask(TokenConstraint* constraint, std::span<uint64_t> mask) const {
  if (!constraint->FillMask(mask)) return false;
  const bool early = accepted_ < min_tokens_;
  if (early) {  // a stop token may be text to the grammar
    for (const int32_t id : end_tokens_) mask[static_cast<size_t>(id / 64)] &= ~(uint64_t{1} << (id % 64));
  }
  if ((constraint->MayEnd() && !early) || AllowsNone(mask)) {
    for (const int32_t id : end_tokens_) mask[static_cast<size_t>(id / 64)] |= uint64_t{1} << (id % 64);
  }
  return true;
}

int32_t Sampler::Sample(std::span<const float> raw, SamplerScratch* scratch, std::span<const uint64_t> mask) const {
  scratch->logits.assign(raw.begin(), raw.end());
  const std::span<float> logits = scratch->logits;
  if (!mask.empty()) {
    Forbid(mask, logits);
  } else if (accepted_ < min_tokens_) {
    for (const int32_t id : end_tokens_) logits[static_cast<size_t>(id)] = kForbidden;
  }
  for (const auto& [id, bias] : logit_bias_) logits[static_cast<size_t>(id)] += bias;
  Penalize(logits);
  const int32_t token = temperature_ < kGreedyTemperature ? ArgMax(logits) : Draw(logits, scratch);
  // Where no allowed token has a number for a logit, a broken model must not break the constraint too.
  return mask.empty() || Allows(mask, token) ? token : FirstAllowed(mask);
}

void Sampler::Penalize(std::span<float> logits) const {
  for (const auto& [id, count] : output_counts_) {
    double logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / repetition_penalty_ : logit * repetition_penalty_;
    if (count > 0) logit -= frequency_penalty_ * count + presence_penalty_;
    logits[static_cast<size_t>(id)] = static_cast<float>(logit);
  }
}

int32_t Sampler::Draw(std::span<const float> logits, SamplerScratch* scratch) const {
  const int32_t likeliest = ArgMax(logits);
  const double max = logits[static_cast<size_t>(likeliest)];
  std::vector<Candidate>& candidates = scratch->candidates;
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((logits[i] - max) / temperature_);
    // Written so that NaN, from a broken model, is left out.
    if (weight >= min_p_ && weight > 0) candidates.push_back({weight, logits[i], static_cast<int32_t>(i)});
  }
  if (candidates.empty()) return likeliest;
  if (top_k_ > 0) KeepTopK(static_cast<size_t>(top_k_), scratch);
  if (top_p_ < 1) KeepTopP(top_p_, &candidates);

  double left = UniformDraw(seed_, static_cast<uint64_t>(accepted_), choice_) * TotalWeight(candidates);
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.token_id;
  }
  return candidates.back().token_id;
}

void ComputeLogprobs(std::span<const float> logits, const kernels::LogitStats& stats, int32_t token_id, int32_t top,
                     PositionLogprobs* result) {
  const float chosen = logits[static_cast<size_t>(token_id)];
  result->token = {token_id, chosen - stats.log_sum_exp, 1};
  for (const float logit : logits) result->token.rank += logit > chosen ? 1 : 0;

  // A short list kept sorted: `top` is at most kMaxLogprobs.
  std::vector<TokenLogprob>& list = result->top;
  list.clear();
  for (size_t i = 0; i < logits.size() && top > 0; ++i) {
    const float logprob = logits[i] - stats.log_sum_exp;
    const bool full = list.size() == static_cast<size_t>(top);
    if (full && !(logprob > list.back().logprob)) continue;
    if (full) list.pop_back();
    const auto place = std::find_if(list.begin(), list.end(),
                                    [logprob](const TokenLogprob& other) { return logprob > other.logprob; });
    list.insert(place, {static_cast<int32_t>(i), logprob, 0});
  }
  for (size_t i = 0; i < list.size(); ++i) list[i].rank = static_cast<int32_t>(i) + 1;
}

}  // namespace swiftkv
