#include "bench/prompts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

namespace swiftkv {
namespace {

constexpr size_t kMinWords = 16;
constexpr size_t kMaxWords = 4096;
constexpr int kTries = 8;

// The word of a token that is a space and at least two small letters; empty for others. Vocabularies spell the space
// as byte-level BPE or as SentencePiece does.
std::string_view WordOf(std::string_view token) {
  for (const std::string_view space : {"\u0120", "\u2581"}) {
    if (!token.starts_with(space)) continue;
    token.remove_prefix(space.size());
    const bool is_word =
        token.size() > 1 && std::all_of(token.begin(), token.end(), [](char c) { return c >= 'a' && c <= 'z'; });
    return is_word ? token : std::string_view();
  }
  return {};
}

}  // namespace

std::vector<int32_t> RandomTokenIds(int64_t tokens, int64_t vocab_size, std::mt19937_64* random) {
  std::uniform_int_distribution<int32_t> uniform(0, static_cast<int32_t>(vocab_size - 1));
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (int32_t& id : ids) id = uniform(*random);
  return ids;
}

Result<PromptMaker> PromptMaker::Create(const Tokenizer& tokenizer, uint64_t seed) {
  std::vector<std::string> words;
  for (int32_t id = 0; id < tokenizer.vocab_size() && words.size() < kMaxWords; ++id) {
    const std::string_view word = WordOf(tokenizer.IdToToken(id));
    if (!word.empty()) words.emplace_back(word);
  }
  if (words.size() < kMinWords) {
    return InvalidInput("the tokenizer has {} tokens that are a space and a word; prompts need {}", words.size(),
                        kMinWords);
  }
  return PromptMaker(tokenizer, std::move(words), seed);
}

std::string PromptMaker::MakeText(int64_t tokens) {
  std::uniform_int_distribution<size_t> choose(0, words_.size() - 1);
  std::vector<std::string_view> chosen;
  std::string text;
  // The first word has no space before it, and may be more than one token; what is added at the front counts too.
  int64_t count = tokens;
  for (int i = 0; i < kTries; ++i) {
    chosen.resize(static_cast<size_t>(std::max<int64_t>(count, 1)));
    for (std::string_view& word : chosen) word = words_[choose(random_)];
    text = fmt::format("{}", fmt::join(chosen, " "));
    const int64_t difference = std::ssize(tokenizer_->Encode(text, {.add_special_tokens = true})) - tokens;
    if (difference == 0) break;
    count -= difference;
  }
  return text;
}

}  // namespace swiftkv
