// Prompts of a wanted length made of random words, so that no two share a prefix and each has its length exactly.
//
//   SWIFTKV_ASSIGN_OR_RETURN(PromptMaker maker, PromptMaker::Create(*tokenizer, /*seed=*/0));
//   const std::string prompt = maker.MakeText(2000);
#ifndef SWIFTKV_BENCH_PROMPTS_H_
#define SWIFTKV_BENCH_PROMPTS_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace swiftkv {

// Ids in [0, vocab_size), for an engine that needs no text.
std::vector<int32_t> RandomTokenIds(int64_t tokens, int64_t vocab_size, std::mt19937_64* random);

class PromptMaker {
 public:
  // Error kInvalidInput: the vocabulary has too few tokens that are a space and a word.
  static Result<PromptMaker> Create(const Tokenizer& tokenizer, uint64_t seed);

  // A text that encodes to `tokens` tokens, what the tokenizer adds (BOS) included; in the rare case that none is
  // found, a few more or less: count again where it matters.
  std::string MakeText(int64_t tokens);

 private:
  PromptMaker(const Tokenizer& tokenizer, std::vector<std::string> words, uint64_t seed)
      : tokenizer_(&tokenizer), words_(std::move(words)), random_(seed) {}

  const Tokenizer* tokenizer_;
  std::vector<std::string> words_;  // each one token after a space
  std::mt19937_64 random_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_PROMPTS_H_
