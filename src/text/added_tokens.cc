#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace swiftkv {
namespace {

// The character that ends at `end`, which is not 0.
char32_t CharBefore(std::string_view text, size_t end, size_t& begin) {
  begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  size_t at = begin;
  return NextCodePoint(text, at);
}

bool IsSingleWord(std::string_view text, size_t begin, size_t end) {
  size_t ignored;
  if (begin > 0 && IsRustWord(CharBefore(text, begin, ignored))) return false;
  return end == text.size() || !IsRustWord(NextCodePoint(text, end));
}

size_t SkipSpacesBefore(std::string_view text, size_t end) {
  size_t begin;
  while (end > 0 && PropertiesOf(CharBefore(text, end, begin)).IsSpace()) end = begin;
  return end;
}

size_t SkipSpacesAfter(std::string_view text, size_t begin) {
  for (size_t next = begin; next < text.size(); begin = next) {
    if (!PropertiesOf(NextCodePoint(text, next)).IsSpace()) break;
  }
  return begin;
}

}  // namespace

void AddedTokenMatcher::Add(std::string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return;
  int32_t node = 0;
  for (const char byte : pattern) {
    int32_t child = Child(node, static_cast<unsigned char>(byte));
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_[node].children.emplace_back(static_cast<unsigned char>(byte), child);
      nodes_.emplace_back();
      if (node == 0) roots_[static_cast<unsigned char>(byte)] = child;
    }
    node = child;
  }
  if (nodes_[node].token >= 0) return;
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

int32_t AddedTokenMatcher::Child(int32_t node, unsigned char byte) const {
  for (const auto& [label, child] : nodes_[node].children) {
    if (label == byte) return child;
  }
  return -1;
}

AddedTokenMatcher::Match AddedTokenMatcher::LongestAt(std::string_view text, size_t begin) const {
  Match match;
  int32_t node = roots_[static_cast<unsigned char>(text[begin])];
  if (node == 0) return match;
  for (size_t at = begin + 1; node >= 0; ++at) {
    if (nodes_[node].token >= 0) match = {at, &tokens_[nodes_[node].token]};
    node = at < text.size() ? Child(node, static_cast<unsigned char>(text[at])) : -1;
  }
  return match;
}

std::vector<TextSegment> AddedTokenMatcher::Split(std::string_view text, bool parse_special) const {
  std::vector<TextSegment> segments;
  size_t done = 0;  // end of the last segment
  if (tokens_.empty() && !text.empty()) return {{0, text.size(), kNotAToken}};
  for (size_t at = 0; at < text.size();) {
    const Match match = LongestAt(text, at);
    if (!match.token) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = match.end;
    at = match.end;
    if (match.token->special && !parse_special) continue;
    if (match.token->single_word && !IsSingleWord(text, begin, end)) continue;
    if (match.token->lstrip) begin = std::max(SkipSpacesBefore(text, begin), done);
    if (match.token->rstrip) end = SkipSpacesAfter(text, end);
    if (done < begin) segments.push_back({done, begin, kNotAToken});
    segments.push_back({begin, end, match.token->id});
    done = end;
  }
  if (done < text.size()) segments.push_back({done, text.size(), kNotAToken});
  return segments;
}

}  // namespace swiftkv
