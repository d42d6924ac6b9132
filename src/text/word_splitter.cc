#include "text/word_splitter.h"

#include <array>

#include "text/unicode.h"

namespace swiftkv {
namespace {

constexpr char32_t kLongS = 0x17f;  // ſ is an s to a case-insensitive match

// The character at one position of a text; past the end it is of no class.
struct Char {
  char32_t code_point = 0;
  CharProperties properties{0};
  size_t end = 0;  // where the next character begins
  bool exists = false;

  bool IsNewline() const { return exists && (code_point == '\r' || code_point == '\n'); }
  bool IsLetter() const { return properties.IsLetter(); }
  bool IsNumber() const { return properties.IsNumber(); }
  bool IsSpace() const { return properties.IsSpace(); }
  // [^\s\p{L}\p{N}]
  bool IsRest() const { return exists && !IsLetter() && !IsNumber() && !IsSpace(); }
};

Char CharAt(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const char32_t code_point = NextCodePoint(text, at);
  return {code_point, PropertiesOf(code_point), at, true};
}

// End of the run of characters from `begin` on that satisfy `member`, at most `limit` of them.
template <class Member>
size_t RunEnd(std::string_view text, size_t begin, const Member& member, size_t limit = SIZE_MAX) {
  size_t end = begin;
  for (size_t count = 0; count < limit; ++count) {
    const Char next = CharAt(text, end);
    if (!next.exists || !member(next)) break;
    end = next.end;
  }
  return end;
}

// 's 't 'm 'd 're 've 'll: the end of the contraction at the apostrophe `begin`, or `begin` if there is none.
size_t ContractionEnd(std::string_view text, size_t begin, bool ignore_case) {
  const auto letter_at = [&](size_t at, size_t& end) -> char32_t {
    const Char c = CharAt(text, at);
    end = c.end;
    if (!ignore_case) return c.code_point;
    if (c.code_point == kLongS) return 's';
    return c.code_point >= 'A' && c.code_point <= 'Z' ? c.code_point + ('a' - 'A') : c.code_point;
  };
  size_t first_end;
  size_t second_end;
  const char32_t first = letter_at(begin + 1, first_end);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return first_end;
  if (first != 'r' && first != 'v' && first != 'l') return begin;
  const char32_t second = letter_at(first_end, second_end);
  return second == (first == 'l' ? U'l' : U'e') ? second_end : begin;
}

// \s+(?!\S)|\s+ on a text whose character at `begin` is a space: the run without its last character, which belongs to
// the word behind it; the whole run at the end of the text or where it is a single character.
size_t SpacesEnd(std::string_view text, size_t begin) {
  size_t last = begin;
  size_t end = begin;
  for (Char next = CharAt(text, end); next.IsSpace(); next = CharAt(text, end)) {
    last = end;
    end = next.end;
  }
  return end == text.size() || last == begin ? end : last;
}

size_t Gpt2WordEnd(std::string_view text, size_t begin) {
  const Char first = CharAt(text, begin);
  if (first.code_point == '\'') {
    const size_t end = ContractionEnd(text, begin, /*ignore_case=*/false);
    if (end != begin) return end;
  }
  const size_t start = first.code_point == ' ' ? first.end : begin;
  const Char lead = CharAt(text, start);
  if (lead.IsLetter()) return RunEnd(text, lead.end, [](const Char& c) { return c.IsLetter(); });
  if (lead.IsNumber()) return RunEnd(text, lead.end, [](const Char& c) { return c.IsNumber(); });
  if (lead.IsRest()) return RunEnd(text, lead.end, [](const Char& c) { return c.IsRest(); });
  return SpacesEnd(text, begin);
}

size_t Llama3WordEnd(std::string_view text, size_t begin, size_t digits) {
  const Char first = CharAt(text, begin);
  if (first.code_point == '\'') {
    const size_t end = ContractionEnd(text, begin, /*ignore_case=*/true);
    if (end != begin) return end;
  }
  // [^\r\n\p{L}\p{N}]?\p{L}+
  const auto is_letter = [](const Char& c) { return c.IsLetter(); };
  if (first.IsLetter()) return RunEnd(text, first.end, is_letter);
  if (first.IsNumber())
    return RunEnd(
        text, begin, [](const Char& c) { return c.IsNumber(); }, digits);
  const Char second = CharAt(text, first.end);
  if (!first.IsNewline() && second.IsLetter()) return RunEnd(text, second.end, is_letter);
  // " ?[^\s\p{L}\p{N}]+[\r\n]*"
  if (first.IsRest() || (first.code_point == ' ' && second.IsRest())) {
    const size_t end = RunEnd(text, first.end, [](const Char& c) { return c.IsRest(); });
    return RunEnd(text, end, [](const Char& c) { return c.IsNewline(); });
  }
  // \s*[\r\n]+ ends behind the last line break of the spaces.
  size_t after_newline = begin;
  size_t end = begin;
  for (Char next = first; next.IsSpace(); next = CharAt(text, end)) {
    end = next.end;
    if (next.IsNewline()) after_newline = end;
  }
  return after_newline != begin ? after_newline : SpacesEnd(text, begin);
}

}  // namespace

std::optional<WordPattern> FindWordPattern(std::string_view regex) {
  struct Known {
    std::string_view regex;
    WordPattern pattern;
  };
  static constexpr std::array<Known, 5> kKnown = {{
      {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", WordPattern::kGpt2},
      {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", WordPattern::kGpt2},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       WordPattern::kLlama3},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       WordPattern::kQwen2},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       WordPattern::kQwen2},
  }};
  for (const Known& known : kKnown) {
    if (known.regex == regex) return known.pattern;
  }
  return std::nullopt;
}

size_t WordEnd(WordPattern pattern, std::string_view text, size_t begin) {
  switch (pattern) {
    case WordPattern::kGpt2:
      return Gpt2WordEnd(text, begin);
    case WordPattern::kLlama3:
      return Llama3WordEnd(text, begin, 3);
    case WordPattern::kQwen2:
      return Llama3WordEnd(text, begin, 1);
  }
  return text.size();
}

}  // namespace swiftkv
