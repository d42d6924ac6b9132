#include "text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace swiftkv {
namespace {

struct Part {
  PatternMatch range;
  bool is_match = false;
};

// The whole of a text as matches and what lies between them.
std::vector<Part> Partition(size_t size, const std::vector<PatternMatch>& matches, bool invert) {
  std::vector<Part> parts;
  size_t done = 0;
  for (const PatternMatch& match : matches) {
    if (done != match.begin) parts.push_back({{done, match.begin}, invert});
    parts.push_back({match, !invert});
    done = match.end;
  }
  if (done != size) parts.push_back({{done, size}, invert});
  return parts;
}

// `parts` with matches joined to their neighbours as the behavior says; `parts` may be in reverse order.
template <class Join>
std::vector<Part> Joined(const std::vector<Part>& parts, const Join& joins_previous) {
  std::vector<Part> joined;
  bool previous_match = false;
  for (const Part& part : parts) {
    if (!joined.empty() && joins_previous(part.is_match, previous_match)) {
      PatternMatch& last = joined.back().range;
      last = {std::min(last.begin, part.range.begin), std::max(last.end, part.range.end)};
    } else {
      joined.push_back(part);
    }
    previous_match = part.is_match;
  }
  return joined;
}

std::vector<Part> Behave(std::vector<Part> parts, SplitBehavior behavior) {
  const auto lone_match = [](bool is_match, bool previous_match) { return is_match && !previous_match; };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      break;
    case SplitBehavior::kRemoved:
      std::erase_if(parts, [](const Part& part) { return part.is_match; });
      break;
    case SplitBehavior::kContiguous:
      return Joined(parts, [](bool is_match, bool previous_match) { return is_match == previous_match; });
    case SplitBehavior::kMergedWithPrevious:
      return Joined(parts, lone_match);
    case SplitBehavior::kMergedWithNext:
      std::reverse(parts.begin(), parts.end());
      parts = Joined(parts, lone_match);
      std::reverse(parts.begin(), parts.end());
      break;
  }
  return parts;
}

// Cuts each piece at what `find_all(piece, matches)` finds in it.
template <class FindAll>
void CutPieces(SplitText& split, SplitBehavior behavior, bool invert, const FindAll& find_all) {
  std::vector<PatternMatch> pieces;
  std::vector<PatternMatch> matches;
  for (size_t i = 0; i < split.pieces.size(); ++i) {
    const std::string_view piece = split.Piece(i);
    const size_t offset = split.pieces[i].begin;
    matches.clear();
    find_all(piece, matches);
    for (const Part& part : Behave(Partition(piece.size(), matches, invert), behavior)) {
      if (part.range.begin == part.range.end) continue;
      pieces.push_back({offset + part.range.begin, offset + part.range.end});
    }
  }
  split.pieces = std::move(pieces);
}

// Replaces each piece by what `rewrite(piece, first, out)` appends to `out`.
template <class Rewrite>
void RewritePieces(SplitText& split, const Rewrite& rewrite) {
  std::string text;
  text.reserve(split.text.size() + split.text.size() / 4);
  for (size_t i = 0; i < split.pieces.size(); ++i) {
    const size_t begin = text.size();
    rewrite(split.Piece(i), split.at_start && split.pieces[i].begin == 0, text);
    split.pieces[i] = {begin, text.size()};
  }
  split.storage = std::move(text);
  split.text = split.storage;
}

class PatternSplit : public PreTokenizer {
 public:
  PatternSplit(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void Apply(SplitText& split) const override {
    CutPieces(split, behavior_, invert_,
              [this](std::string_view piece, std::vector<PatternMatch>& matches) { pattern_.FindAll(piece, matches); });
  }
  bool KeepsText() const override { return behavior_ != SplitBehavior::kRemoved; }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Cuts at the single characters that `Member` accepts.
template <class Member>
class CharSplit : public PreTokenizer {
 public:
  CharSplit(Member member, SplitBehavior behavior) : member_(member), behavior_(behavior) {}
  void Apply(SplitText& split) const override {
    CutPieces(split, behavior_, false, [this](std::string_view piece, std::vector<PatternMatch>& matches) {
      for (size_t at = 0; at < piece.size();) {
        const size_t begin = at;
        if (member_(NextCodePoint(piece, at))) matches.push_back({begin, at});
      }
    });
  }
  bool KeepsText() const override { return behavior_ != SplitBehavior::kRemoved; }

 private:
  Member member_;
  SplitBehavior behavior_;
};

template <class Member>
std::unique_ptr<PreTokenizer> MakeCharSplit(Member member, SplitBehavior behavior) {
  return std::make_unique<CharSplit<Member>>(member, behavior);
}

// \w+|[^\w\s]+
class Whitespace : public PreTokenizer {
 public:
  void Apply(SplitText& split) const override {
    CutPieces(split, SplitBehavior::kRemoved, true, [](std::string_view piece, std::vector<PatternMatch>& matches) {
      Kind previous = kSpace;
      for (size_t at = 0; at < piece.size();) {
        const size_t begin = at;
        const Kind kind = KindOf(NextCodePoint(piece, at));
        if (kind != kSpace && kind == previous) {
          matches.back().end = at;
        } else if (kind != kSpace) {
          matches.push_back({begin, at});
        }
        previous = kind;
      }
    });
  }

 private:
  enum Kind { kSpace, kWord, kRest };
  static Kind KindOf(char32_t c) {
    if (IsRustWord(c)) return kWord;
    return PropertiesOf(c).IsSpace() ? kSpace : kRest;
  }
};

class SpacePrefix : public PreTokenizer {
 public:
  void Apply(SplitText& split) const override {
    RewritePieces(split, [](std::string_view piece, bool, std::string& out) {
      if (!piece.starts_with(' ')) out.push_back(' ');
      out.append(piece);
    });
  }
  bool KeepsText() const override { return true; }
};

class ByteLevelSpelling : public PreTokenizer {
 public:
  bool SpellsBytes() const override { return true; }
  bool KeepsText() const override { return true; }
  void Apply(SplitText& split) const override {
    RewritePieces(split, [](std::string_view piece, bool, std::string& out) {
      for (const char byte : piece) AppendUtf8(ByteLevelChar(static_cast<uint8_t>(byte)), out);
    });
  }
};

class Metaspace : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
  void Apply(SplitText& split) const override {
    RewritePieces(split, [this](std::string_view piece, bool first, std::string& out) {
      const bool marked = piece.starts_with(' ') || piece.starts_with(replacement_);
      const bool prepend = scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && first);
      if (prepend && !marked) out.append(replacement_);
      for (const char byte : piece) {
        if (byte == ' ') {
          out.append(replacement_);
        } else {
          out.push_back(byte);
        }
      }
    });
    if (split_) CutBeforeReplacement(split);
  }
  bool KeepsText() const override { return !replacement_.empty(); }

 private:
  void CutBeforeReplacement(SplitText& split) const {
    CutPieces(split, SplitBehavior::kMergedWithNext, false,
              [this](std::string_view piece, std::vector<PatternMatch>& matches) {
                for (size_t at = piece.find(replacement_); at != piece.npos;) {
                  matches.push_back({at, at + replacement_.size()});
                  at = piece.find(replacement_, at + replacement_.size());
                }
              });
  }
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

}  // namespace

std::unique_ptr<PreTokenizer> MakeSplit(Pattern pattern, SplitBehavior behavior, bool invert) {
  return std::make_unique<PatternSplit>(std::move(pattern), behavior, invert);
}

std::unique_ptr<PreTokenizer> MakeDigits(bool individual) {
  return MakeCharSplit([](char32_t c) { return PropertiesOf(c).IsDigitsMember(); },
                       individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

std::unique_ptr<PreTokenizer> MakePunctuation(SplitBehavior behavior) {
  return MakeCharSplit([](char32_t c) { return PropertiesOf(c).IsPunctuationMember(); }, behavior);
}

std::unique_ptr<PreTokenizer> MakeWhitespaceSplit() {
  return MakeCharSplit([](char32_t c) { return PropertiesOf(c).IsSpace(); }, SplitBehavior::kRemoved);
}

std::unique_ptr<PreTokenizer> MakeWhitespace() { return std::make_unique<Whitespace>(); }

std::unique_ptr<PreTokenizer> MakeCharDelimiterSplit(char32_t delimiter) {
  return MakeCharSplit([delimiter](char32_t c) { return c == delimiter; }, SplitBehavior::kRemoved);
}

std::unique_ptr<PreTokenizer> MakeSpacePrefix() { return std::make_unique<SpacePrefix>(); }

std::unique_ptr<PreTokenizer> MakeByteLevelSpelling() { return std::make_unique<ByteLevelSpelling>(); }

std::unique_ptr<PreTokenizer> MakeMetaspace(std::string replacement, PrependScheme scheme, bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme, split);
}

}  // namespace swiftkv
