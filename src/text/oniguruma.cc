#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/oniguruma.h"

#include <pcre2.h>
#include <unicode/uset.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>
#include <vector>

#include "base/printable.h"
#include "text/unicode.h"

namespace swiftkv {
namespace {

constexpr std::string_view kSpaces =
    R"(\t-\r\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWords =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
// Only outside of classes do these match \w, too.
constexpr std::string_view kMoreWords = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kHexDigits = "0-9A-Fa-f";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// The members of an escape whose meaning differs between the two engines; empty if it does not.
std::string_view EscapeMembers(char escape) {
  switch (escape) {
    case 's':
    case 'S':
      return kSpaces;
    case 'w':
    case 'W':
      return kWords;
    case 'h':
    case 'H':
      return kHexDigits;
    default:
      return {};
  }
}

// The same for [:name:].
std::string_view PosixMembers(std::string_view name) {
  if (name == "alpha") return R"(\p{Alphabetic})";
  if (name == "alnum") return R"(\p{Alphabetic}\p{Nd})";
  if (name == "lower") return R"(\p{Lowercase})";
  if (name == "upper") return R"(\p{Uppercase})";
  if (name == "punct") return R"(\p{P}\p{S})";
  if (name == "space") return kSpaces;
  if (name == "word") return kWords;
  return {};
}

// PCRE2 takes the plain name of a script for its extensions: \p{Han} would match "、".
bool IsScript(std::string_view name) {
  const std::string probe = fmt::format("\\p{{sc:{}}}", name);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(probe.data()), probe.size(), PCRE2_UTF, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

// Whether case folding makes one character of several or several of one: "ss" and "ß". PCRE2 folds one to one.
bool FoldsToAnotherLength(std::u32string_view text) {
  USet* set = uset_openEmpty();
  if (text.size() == 1) {
    uset_add(set, static_cast<UChar32>(text[0]));
  } else {
    std::u16string utf16;
    for (const char32_t c : text) {
      if (c >= 0x10000) utf16 += static_cast<char16_t>(0xd7c0 + (c >> 10));
      utf16 += static_cast<char16_t>(c >= 0x10000 ? 0xdc00 + (c & 0x3ff) : c);
    }
    uset_addString(set, utf16.data(), static_cast<int32_t>(utf16.size()));
  }
  uset_closeOver(set, USET_CASE_INSENSITIVE);
  bool characters = false;
  bool strings = false;
  for (int32_t i = 0; i < uset_getItemCount(set); ++i) {
    UErrorCode error = U_ZERO_ERROR;
    UChar32 first, last;
    (uset_getItem(set, i, &first, &last, nullptr, 0, &error) == 0 ? characters : strings) = true;
  }
  uset_close(set);
  return characters && strings;
}

// One pass over the expression, writing the other.
class Translator {
 public:
  explicit Translator(std::string_view regex) : regex_(regex) {}

  Result<std::string> Run() {
    while (at_ < regex_.size()) SWIFTKV_RETURN_IF_ERROR(Next());
    SWIFTKV_RETURN_IF_ERROR(EndLiterals());
    out_.append(open_[0].isolated, ')');
    return std::move(out_);
  }

 private:
  struct Group {
    size_t start = 0;     // in out_
    size_t isolated = 0;  // options such as (?i), which hold to the end of the group, became groups within it
    bool outer_any_case = false;
    bool transparent = false;  // (?:...): literals on both sides of its edges are neighbours
  };
  // How what a quantifier would repeat is quantified already.
  enum class Repeated { kNot, kSimply, kTimes, kBetween, kForGood };

  char Peek(size_t ahead = 0) const { return at_ + ahead < regex_.size() ? regex_[at_ + ahead] : '\0'; }
  bool StartsWith(std::string_view text) const { return regex_.substr(at_).starts_with(text); }
  void Copy(size_t bytes) {
    out_ += regex_.substr(at_, bytes);
    at_ = std::min(at_ + bytes, regex_.size());
  }
  // Up to and with the next `end`, or all that is left.
  void CopyThrough(char end) {
    const size_t found = regex_.find(end, at_);
    Copy(found == regex_.npos ? regex_.size() - at_ : found + 1 - at_);
  }
  static tl::unexpected<Error> Unsupported(std::string_view what) {
    return InvalidInput("'{}' is not supported", Printable(what));
  }

  Status Next() {
    switch (Peek()) {
      case '(':
        return OpenGroup();
      case ')':
        return CloseGroup();
      case '*':
      case '+':
      case '?':
        return Quantify(std::string(1, regex_[at_++]), Repeated::kSimply);
      case '{':
        return Interval();
      case '[':
        SWIFTKV_RETURN_IF_ERROR(BeginAtom());
        return Class();
      case '\\':
        return Escape();
      case '|':
      case '.':
      case '^':
      case '$':
        SWIFTKV_RETURN_IF_ERROR(BeginAtom());
        Copy(1);
        return Ok();
      default:
        return Literal(Utf8Length(Peek()));
    }
  }

  // ---- Atoms.

  Status BeginAtom() {
    SWIFTKV_RETURN_IF_ERROR(EndLiterals());
    atom_ = out_.size();
    repeated_ = Repeated::kNot;
    literal_ = false;
    return Ok();
  }

  // A character that stands for itself, `bytes` long in the expression.
  Status Literal(size_t bytes) {
    const std::string_view text = regex_.substr(at_, bytes);
    size_t end = 0;
    AddLiteral(NextCodePoint(text, end));
    if (text == "{") out_ += '\\';
    Copy(bytes);
    return Ok();
  }

  // Before it is written.
  void AddLiteral(char32_t c) {
    atom_ = out_.size();
    repeated_ = Repeated::kNot;
    literal_ = true;
    if (any_case_) literals_ += c;
  }

  // No further character follows directly on the last one.
  Status EndLiterals() {
    const std::u32string text = std::exchange(literals_, {});
    for (size_t i = 0; i < text.size(); ++i) {
      for (const size_t length : {1, 2, 3}) {
        const std::u32string_view part = std::u32string_view(text).substr(i, length);
        if (part.size() < length || !FoldsToAnotherLength(part)) continue;
        std::string utf8;  // only letters and marks fold
        for (const char32_t c : part) AppendUtf8(c, utf8);
        return InvalidInput("'{}' in either case is not supported, because it matches text of another length", utf8);
      }
    }
    return Ok();
  }

  // ---- Quantifiers.

  // {n}, {n,}, {n,m} or {,m}; anything else is a literal brace.
  Status Interval() {
    size_t end = at_ + 1;
    const auto number = [&] {
      const size_t begin = end;
      while (end < regex_.size() && IsDigit(regex_[end])) ++end;
      return regex_.substr(begin, end - begin);
    };
    const std::string_view low = number();
    const bool comma = end < regex_.size() && regex_[end] == ',';
    if (comma) ++end;
    const std::string_view high = comma ? number() : std::string_view();
    if (end >= regex_.size() || regex_[end] != '}' || (low.empty() && high.empty())) return Literal(1);
    at_ = end + 1;
    return Quantify(fmt::format("{{{}{}{}}}", low.empty() ? "0" : low, comma ? "," : "", high),
                    comma ? Repeated::kBetween : Repeated::kTimes);
  }

  // Behind a quantifier, "?" and "+" change it in both syntaxes, but for "+" behind an interval and "?" behind {n}.
  // Those, and all other quantifiers, repeat the repetition in Oniguruma.
  Status Quantify(const std::string& quantifier, Repeated repeated) {
    if (literal_ && !literals_.empty()) literals_.pop_back();
    literal_ = false;
    SWIFTKV_RETURN_IF_ERROR(EndLiterals());
    const bool changes = (quantifier == "?" && (repeated_ == Repeated::kSimply || repeated_ == Repeated::kBetween)) ||
                         (quantifier == "+" && repeated_ == Repeated::kSimply);
    if (atom_ && !changes && repeated_ != Repeated::kNot) {
      out_.insert(*atom_, "(?:");
      out_ += ')';
    }
    out_ += quantifier;
    repeated_ = changes ? Repeated::kForGood : repeated;
    return Ok();
  }

  // ---- Groups.

  Status OpenGroup() {
    if (StartsWith("(?#")) return Comment();
    if (StartsWith("(*")) return Unsupported("(*");
    if (StartsWith("(?") && (std::isalpha(static_cast<unsigned char>(Peek(2))) != 0 || Peek(2) == '-')) {
      return Options();
    }
    const bool transparent = StartsWith("(?:");
    if (!transparent) SWIFTKV_RETURN_IF_ERROR(EndLiterals());
    Push(any_case_, transparent);
    if (StartsWith("(?<") && Peek(3) != '=' && Peek(3) != '!') {
      CopyThrough('>');
    } else if (StartsWith("(?'")) {
      Copy(3);
      CopyThrough('\'');
    } else if (StartsWith("(?<")) {
      Copy(4);
    } else {
      Copy(Peek(1) != '?' ? 1 : Peek(2) == '(' ? 2 : 2 + Utf8Length(Peek(2)));
    }
    return Ok();
  }

  void Push(bool any_case, bool transparent) {
    open_.push_back({.start = out_.size(), .outer_any_case = any_case_, .transparent = transparent});
    any_case_ = any_case;
    atom_.reset();
  }

  Status Comment() {
    at_ = regex_.find(')', at_);
    if (at_ == regex_.npos) return InvalidInput("unfinished comment");
    ++at_;
    return Ok();
  }

  // (?i-m:...), or (?i-m) to the end of the group, alternatives included. Oniguruma's m is PCRE2's s.
  Status Options() {
    SWIFTKV_RETURN_IF_ERROR(EndLiterals());
    bool any_case = any_case_;
    bool on = true;
    std::string options = "(?";
    for (at_ += 2; Peek() != ':' && Peek() != ')'; ++at_) {
      if (Peek() == '-') on = false;
      if (Peek() == 'i') any_case = on;
      if (Peek() != '-' && Peek() != 'i' && Peek() != 'm') {
        return at_ < regex_.size() ? Unsupported("(?" + std::string(1, Peek())) : InvalidInput("unfinished option");
      }
      options += Peek() == 'm' ? 's' : Peek();
    }
    if (regex_[at_++] == ':') {
      Push(any_case, false);
    } else {
      ++open_.back().isolated;
      any_case_ = any_case;
      atom_.reset();
    }
    out_ += options + ":";
    return Ok();
  }

  Status CloseGroup() {
    if (open_.size() == 1) {
      Copy(1);
      return Ok();
    }
    const Group group = open_.back();
    open_.pop_back();
    if (!group.transparent || any_case_ != group.outer_any_case) SWIFTKV_RETURN_IF_ERROR(EndLiterals());
    any_case_ = group.outer_any_case;
    out_.append(group.isolated, ')');
    Copy(1);
    atom_ = group.start;
    repeated_ = Repeated::kNot;
    literal_ = false;
    return Ok();
  }

  // ---- Escapes.

  Status Escape() {
    const char escape = Peek(1);
    if (escape == 'x' || escape == 'u') return CodePoint(/*in_class=*/false);
    SWIFTKV_RETURN_IF_ERROR(BeginAtom());
    if (escape == 'b' || escape == 'B') {
      at_ += 2;
      out_ += fmt::format("(?:(?<=[{0}{1}])(?{2}[{0}{1}])|(?<![{0}{1}])(?{3}[{0}{1}]))", kWords, kMoreWords,
                          escape == 'b' ? '!' : '=', escape == 'b' ? '=' : '!');
      return Ok();
    }
    if (const std::string_view members = EscapeMembers(escape); !members.empty()) {
      at_ += 2;
      out_ += fmt::format("[{}{}{}]", escape >= 'A' && escape <= 'Z' ? "^" : "", members,
                          members == kWords ? kMoreWords : "");
      return Ok();
    }
    return CommonEscape();
  }

  Status EscapeInClass() {
    const char escape = Peek(1);
    if (escape == 'x' || escape == 'u') return CodePoint(/*in_class=*/true);
    const std::string_view members = EscapeMembers(escape);
    if (members.empty()) return CommonEscape();
    if (escape >= 'A' && escape <= 'Z') {
      return InvalidInput("'\\{}' inside a character class is not supported", escape);
    }
    at_ += 2;
    out_ += members;
    return Ok();
  }

  // What is written alike in and outside classes.
  Status CommonEscape() {
    switch (Peek(1)) {
      case 'p':
      case 'P':
        return Property();
      case 'v':  // a class of its own in PCRE2
        at_ += 2;
        out_ += "\\x0b";
        return Ok();
      case 'V':
      case 'Q':
      case 'E':
        return Unsupported(regex_.substr(at_, 2));
      case 'k':
      case 'g':
        Copy(2);
        if (Peek() != '<' && Peek() != '\'') return Ok();
        Copy(1);
        CopyThrough(regex_[at_ - 1] == '<' ? '>' : '\'');
        return Ok();
      case 'o':
        Copy(2);
        if (Peek() == '{') CopyThrough('}');
        return Ok();
      case 'c':
        Copy(2);
        break;
      default:
        Copy(1);
        break;
    }
    if (!IsDigit(Peek())) {
      Copy(Utf8Length(Peek()));
      return Ok();
    }
    for (int digits = 0; digits < 3 && IsDigit(Peek()); ++digits) Copy(1);  // an octal number or a reference
    return Ok();
  }

  Status Property() {
    bool negated = Peek(1) == 'P';
    const size_t end = regex_.find('}', at_);
    if (Peek(2) != '{' || end == regex_.npos) return Unsupported(regex_.substr(at_, 3));
    std::string_view name = regex_.substr(at_ + 3, end - at_ - 3);
    at_ = end + 1;
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    out_ += fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', name.size() > 2 && IsScript(name) ? "sc:" : "", name);
    return Ok();
  }

  // \xH, \xHH, \x{H...} and \uHHHH: a character.
  Status CodePoint(bool in_class) {
    const bool braces = Peek(2) == '{';
    const bool is_x = Peek(1) == 'x';
    const size_t begin = at_ + (braces ? 3 : 2);
    size_t end = begin;
    while (end < regex_.size() && end - begin < (braces ? 8u : is_x ? 2u : 4u) && IsHexDigit(regex_[end])) ++end;
    const std::string digits(regex_.substr(begin, end - begin));
    const bool complete = braces ? is_x && end < regex_.size() && regex_[end] == '}' : is_x || digits.size() == 4;
    const unsigned long value = digits.empty() ? 0 : std::stoul(digits, nullptr, 16);
    // Without braces \x is a byte, which above 0x7f is only part of a character.
    if (digits.empty() || !complete || value > 0x10ffff || (is_x && !braces && value > 0x7f)) {
      return Unsupported(regex_.substr(at_, end - at_));
    }
    if (!in_class) {
      AddLiteral(static_cast<char32_t>(value));
    } else if (any_case_) {
      literals_ += static_cast<char32_t>(value);
      SWIFTKV_RETURN_IF_ERROR(EndLiterals());
    }
    out_ += fmt::format("\\x{{{}}}", digits);
    at_ = end + (braces ? 1 : 0);
    return Ok();
  }

  // ---- Classes.

  Status Class() {
    Copy(1);
    if (Peek() == '^') Copy(1);
    if (Peek() == ']') {
      out_ += '\\';
      Copy(1);
    }
    while (at_ < regex_.size() && Peek() != ']') {
      if (Peek() == '\\') {
        SWIFTKV_RETURN_IF_ERROR(EscapeInClass());
      } else if (StartsWith("[:")) {
        SWIFTKV_RETURN_IF_ERROR(PosixClass());
      } else if (Peek() == '[' || StartsWith("&&")) {
        return InvalidInput("nested character classes are not supported");
      } else {
        const size_t bytes = Utf8Length(Peek());
        size_t end = 0;
        if (any_case_) literals_ += NextCodePoint(regex_.substr(at_, bytes), end);
        SWIFTKV_RETURN_IF_ERROR(EndLiterals());
        Copy(bytes);
      }
    }
    Copy(1);
    return Ok();
  }

  Status PosixClass() {
    const size_t end = regex_.find(":]", at_);
    if (end == regex_.npos) return InvalidInput("unfinished character class");
    const std::string_view name = regex_.substr(at_ + 2, end - at_ - 2);
    if (name.starts_with('^') && !PosixMembers(name.substr(1)).empty()) {
      return Unsupported(fmt::format("[:{}:]", name));
    }
    if (const std::string_view members = PosixMembers(name); !members.empty()) {
      out_ += members;
      at_ = end + 2;
    } else {
      Copy(end + 2 - at_);
    }
    return Ok();
  }

  std::string_view regex_;
  size_t at_ = 0;
  std::string out_;
  std::vector<Group> open_ = std::vector<Group>(1);  // the first is the whole expression
  std::optional<size_t> atom_;                       // where in out_ what a quantifier would repeat starts
  Repeated repeated_ = Repeated::kNot;
  bool literal_ = false;     // the atom is the last of literals_
  bool any_case_ = false;    // the option i
  std::u32string literals_;  // neighbours that match in either case
};

}  // namespace

Result<std::string> OnigurumaToPcre2(std::string_view regex) { return Translator(regex).Run(); }

}  // namespace swiftkv
