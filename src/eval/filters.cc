#include "eval/filters.h"

#include <algorithm>
#include <optional>

#include "text/unicode.h"

namespace swiftkv {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNumberCharacter(char c) { return IsDigit(c) || c == '.' || c == ','; }

// Python's str.isspace counts four separators that Unicode's White_Space does not.
bool IsSpace(char32_t c) { return (c >= 0x1c && c <= 0x1f) || PropertiesOf(c).IsSpace(); }

bool IsLetterAToD(char c) { return c >= 'A' && c <= 'D'; }

// Where the number that starts at `begin` ends: -?[0-9.,]+; nullopt if none does.
std::optional<size_t> NumberEnd(std::string_view text, size_t begin, bool closed) {
  const size_t first = begin < text.size() && text[begin] == '-' ? begin + 1 : begin;
  size_t end = first;
  while (end < text.size() && IsNumberCharacter(text[end])) ++end;
  // The regular expression gives back its last character where nothing else is left for the closing one.
  if (closed && (end == text.size() || text[end] == '\n') && end > first) --end;
  if (end == first) return std::nullopt;
  return end;
}

// Where the match of `(-?[$0-9.,]{2,})|(-?[0-9]+)` that starts at `begin` ends; nullopt if none does.
std::optional<size_t> LooseNumberEnd(std::string_view text, size_t begin) {
  const size_t first = text[begin] == '-' ? begin + 1 : begin;
  size_t end = first;
  while (end < text.size() && (IsNumberCharacter(text[end]) || text[end] == '$')) ++end;
  if (end - first >= 2) return end;
  if (end - first == 1 && IsDigit(text[first])) return end;
  return std::nullopt;
}

}  // namespace

std::string_view Strip(std::string_view text) {
  size_t begin = 0;
  size_t end = 0;  // behind the last character that is no space
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (IsSpace(NextCodePoint(text, at))) continue;
    if (!inside) begin = start;
    inside = true;
    end = at;
  }
  return text.substr(begin, end - begin);
}

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, begin)) {
    result.append(text.substr(begin, at - begin)).append(to);
    begin = at + from.size();
  }
  return result.append(text.substr(begin));
}

std::string Capitalize(std::string_view text) {
  std::string result(text);
  for (size_t i = 0; i < result.size(); ++i) {
    char& c = result[i];
    if (i == 0 && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (i > 0 && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

int64_t Characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

std::string FirstLetter(std::string_view text) {
  const auto found = std::find_if(text.begin(), text.end(), IsLetterAToD);
  return found == text.end() ? std::string(kInvalidAnswer) : std::string(1, *found);
}

std::string BestAnswer(std::string_view text) {
  constexpr std::string_view kPrefix = "The best answer is ";
  for (size_t at = text.find(kPrefix); at != std::string_view::npos; at = text.find(kPrefix, at + 1)) {
    const size_t letter = at + kPrefix.size();
    if (letter < text.size() && IsLetterAToD(text[letter])) return std::string(1, text[letter]);
  }
  return std::string(kInvalidAnswer);
}

std::string NumberAfter(std::string_view text, std::string_view prefix, bool closed) {
  for (size_t at = text.find(prefix); at != std::string_view::npos; at = text.find(prefix, at + 1)) {
    const size_t begin = at + prefix.size();
    if (const auto end = NumberEnd(text, begin, closed)) return std::string(text.substr(begin, *end - begin));
  }
  return std::string(kInvalidAnswer);
}

std::string LastNumber(std::string_view text) {
  std::string_view last = kInvalidAnswer;
  for (size_t at = 0; at < text.size();) {
    if (const auto end = LooseNumberEnd(text, at)) {
      last = text.substr(at, *end - at);
      at = *end;
    } else {
      ++at;
    }
  }
  return std::string(last);
}

std::string NormalizeNumber(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c != ',' && c != '$') result += c;
  }
  constexpr std::string_view kMark = "#### ";
  if (const size_t mark = result.rfind(kMark); mark != std::string::npos) result.erase(0, mark + kMark.size());
  // `$` also stands before a newline that ends the text.
  const size_t end = result.ends_with('\n') ? result.size() - 1 : result.size();
  if (end > 0 && result[end - 1] == '.') result.erase(end - 1, 1);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

}  // namespace swiftkv
