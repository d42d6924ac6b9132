// What a normalizer, pre-tokenizer or decoder looks for: a fixed string, a regular expression, or a word pattern.
#ifndef SWIFTKV_TEXT_PATTERN_H_
#define SWIFTKV_TEXT_PATTERN_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/word_splitter.h"

namespace swiftkv {

struct PatternMatch {
  size_t begin = 0;
  size_t end = 0;
};

class Pattern {
 public:
  static Pattern FromString(std::string literal);
  static Pattern FromWords(WordPattern words);
  // In the syntax of Oniguruma, which `tokenizers` uses; the common pre-tokenizers run without a regex engine.
  // Error kInvalidInput: the expression is wrong or uses what PCRE2 lacks.
  static Result<Pattern> FromRegex(const std::string& regex);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  // Appends all matches, in order and without overlap; an empty match right behind another is left out.
  // `text` must be valid UTF-8.
  void FindAll(std::string_view text, std::vector<PatternMatch>& matches) const;
  void ReplaceAll(std::string& text, std::string_view content) const;
  // The string looked for; empty for a regular expression.
  const std::string& literal() const { return literal_; }

 private:
  struct Regex;
  Pattern();
  std::string literal_;
  std::optional<WordPattern> words_;
  std::unique_ptr<Regex> regex_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_PATTERN_H_
