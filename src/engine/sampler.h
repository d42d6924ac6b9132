// Chooses the next token of one sequence from its logits. The order is vLLM's (v1/sample/sampler.py): the constraint's
// mask, min_tokens, logit_bias, repetition penalty, frequency and presence penalty; then argmax if greedy, else
// temperature, min_p, top_k, top_p and a draw. Ties are kept as there: every token whose logit equals the k-th is kept.
//
//   Sampler sampler(params, seed, /*choice=*/0, prompt, end_tokens);
//   int32_t token = sampler.NeedsLogits() ? sampler.Sample(row, &scratch) : stats.argmax;
//   sampler.Accept(token);
//
// The token follows from the parameters, the seed, the choice, the tokens so far and the logits alone, never from what
// else runs. A row costs O(vocabulary), plus a sort of the tokens that top_p may keep.
#ifndef SWIFTKV_ENGINE_SAMPLER_H_
#define SWIFTKV_ENGINE_SAMPLER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/request.h"
#include "engine/token_constraint.h"
#include "kernels/ops.h"

namespace swiftkv {

// Work space of Sample, reused from row to row so that a step allocates nothing.
struct SamplerScratch {
  struct Candidate {
    double weight;  // exp((logit - max) / temperature)
    float logit;
    int32_t token_id;
  };
  std::vector<float> logits;  // the row after bias and penalties
  std::vector<Candidate> candidates;
  std::vector<float> values;
  std::vector<uint64_t> mask;  // of a constrained row: the allowed tokens, [ceil(vocab / 64)]
  // Makes room for a row of `vocab_size` logits; after it Sample does not allocate.
  void Reserve(int64_t vocab_size);
};

class Sampler {
 public:
  // `choice` is the index among the n completions: each draws from its own stream. `end_tokens` are forbidden before
  // min_tokens.
  Sampler(const SamplingParams& params, uint64_t seed, int32_t choice, std::span<const int32_t> prompt,
          std::vector<int32_t> end_tokens);

  // False: the argmax of the raw logits is the next token, so nobody need hand the row over.
  bool NeedsLogits() const;
  // How the next token is drawn where a device can do it; nullopt: greedily, or from logits that are changed before.
  std::optional<kernels::TokenDraw> PlainDraw() const;
  // What may come next under `constraint`, into the zeros of `mask` [ceil(vocab / 64)]: its tokens, and the end tokens
  // where the output may end, but not before min_tokens unless nothing else is left. False: not enough memory.
  bool FillMask(TokenConstraint* constraint, std::span<uint64_t> mask) const;
  // `logits`: the raw row [vocab]. `mask`, if not empty: from FillMask; the token is one of it, whatever the logits.
  // The position in the random stream is the number of tokens accepted.
  int32_t Sample(std::span<const float> logits, SamplerScratch* scratch, std::span<const uint64_t> mask = {}) const;
  // Tells the sampler the token that was chosen.
  void Accept(int32_t token_id);

 private:
  bool ChangesLogits() const;
  void Penalize(std::span<float> logits) const;
  int32_t Draw(std::span<const float> logits, SamplerScratch* scratch) const;

  double temperature_;
  int64_t top_k_;
  double top_p_;
  double min_p_;
  double repetition_penalty_;
  double presence_penalty_;
  double frequency_penalty_;
  int64_t min_tokens_;
  std::vector<std::pair<int32_t, float>> logit_bias_;
  std::vector<int32_t> end_tokens_;
  uint64_t seed_;
  uint32_t choice_;
  int64_t accepted_ = 0;
  // Occurrences in the output of each token of prompt (0 there) and output; empty when no penalty is asked for.
  std::unordered_map<int32_t, int32_t> output_counts_;
};

// What vLLM returns for `logprobs`: the token at this position, and the `top` most likely ones. Does not allocate where
// `result->top` has the capacity.
void ComputeLogprobs(std::span<const float> logits, const kernels::LogitStats& stats, int32_t token_id, int32_t top,
                     PositionLogprobs* result);

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_SAMPLER_H_
