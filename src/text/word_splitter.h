// The pre-tokenizer patterns of GPT-2, SmolLM, Llama 3 and Qwen 2/3 by hand: linear time on any text, the character
// classes of `tokenizers`, and no engine's limits (docs/decisions/0005-tokenizer.md).
#ifndef SWIFTKV_TEXT_WORD_SPLITTER_H_
#define SWIFTKV_TEXT_WORD_SPLITTER_H_

#include <cstddef>
#include <optional>
#include <string_view>

namespace swiftkv {

enum class WordPattern {
  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kGpt2,
  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
  // \s+(?!\S)|\s+
  kLlama3,
  // The same with \p{N} for \p{N}{1,3}.
  kQwen2,
};

// The pattern whose regular expression this is, if it is one of the above.
std::optional<WordPattern> FindWordPattern(std::string_view regex);

// End of the match that begins at text[begin]; begin < text.size(). Every text is covered by matches.
// `text` must be valid UTF-8.
size_t WordEnd(WordPattern pattern, std::string_view text, size_t begin);

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_WORD_SPLITTER_H_
