// A model for tests of what is around it: its next token is a function of the tokens that it reads back from the cache,
// so that a lost, shared or overwritten block shows in the answer. Each block stores the tokens themselves.
#ifndef SWIFTKV_ENGINE_STUB_MODEL_H_
#define SWIFTKV_ENGINE_STUB_MODEL_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "engine/engine.h"

namespace swiftkv {

class StubModel final : public ModelRunner {
 public:
  static constexpr int64_t kVocab = 32;

  StubModel() {
    traits_ = {.vocab_size = kVocab,
               .max_position_embeddings = 4096,
               .eos_token_ids = {},
               .cache_layout = {.groups = 1, .block_bytes = kKvBlockTokens * static_cast<int64_t>(sizeof(uint64_t))},
               .token_flops = 2,
               .skipping_token_flops = 1,
               .skips_layers = true};
  }

  // Called before every step; an error makes the step fail.
  std::function<Status(const Step&)> before_run = nullptr;

  // The greedy answer, by the definition alone.
  static std::vector<int32_t> Answer(const Request& request) {
    std::vector<int32_t> answer;
    uint64_t state = 0;
    for (const int32_t token : request.prompt_token_ids) state = Next(state, token);
    for (int64_t i = 0; i < request.sampling.max_tokens; ++i) {
      answer.push_back(static_cast<int32_t>(state % kVocab));
      state = Next(state, answer.back());
    }
    return answer;
  }

  const ModelTraits& traits() const override { return traits_; }

  Status Run(const Step& step, KvCache* cache) override {
    if (before_run) SWIFTKV_RETURN_IF_ERROR(before_run(step));
    states_.clear();
    auto logit_row = step.logit_rows.begin();
    for (const SequenceChunk& chunk : step.chunks) {
      uint64_t state = chunk.position == 0 ? 0 : *Slot(cache, chunk, chunk.position - 1);
      for (int64_t i = 0; i < chunk.tokens; ++i) {
        const int64_t row = chunk.token_begin + i;
        state = Next(state, step.token_ids[static_cast<size_t>(row)]);
        *Slot(cache, chunk, chunk.position + i) = state;
        if (logit_row != step.logit_rows.end() && *logit_row == row) {
          states_.push_back(state);
          ++logit_row;
        }
      }
    }
    return Ok();
  }

  Status ReadLogits(int64_t begin, int64_t count, const LogitReads& reads) override {
    std::fill(reads.logits, reads.logits + count * kVocab, 0.0F);
    for (int64_t i = 0; i < count; ++i) {
      reads.logits[i * kVocab + Token(begin + i)] = 1;
      reads.stats[i] = {.argmax = static_cast<int32_t>(Token(begin + i))};
    }
    return Ok();
  }

 private:
  static uint64_t Next(uint64_t state, int32_t token) {
    state = (state + static_cast<uint64_t>(token) + 1) * 0x9E3779B97F4A7C15U;
    return state ^ (state >> 29);
  }
  // The hash of all tokens up to `position`, which stands in for keys and values.
  static uint64_t* Slot(KvCache* cache, const SequenceChunk& chunk, int64_t position) {
    const int32_t block = chunk.block_table[static_cast<size_t>(position / kKvBlockTokens)];
    std::byte* data = cache->Group(0) + block * cache->layout().block_bytes;
    return reinterpret_cast<uint64_t*>(data) + position % kKvBlockTokens;
  }
  int64_t Token(int64_t row) const { return static_cast<int64_t>(states_[static_cast<size_t>(row)] % kVocab); }

  ModelTraits traits_;
  std::vector<uint64_t> states_;  // [logit rows]
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_STUB_MODEL_H_
