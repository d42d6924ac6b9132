#include "text/jinja/lexer.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "text/jinja/unicode.h"
#include "text/unicode.h"

namespace swiftkv::jinja {
namespace {

bool IsDecimalDigit(char c) { return c >= '0' && c <= '9'; }

std::string NormalizeNewlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      result += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      result += source[i];
    }
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

int HexDigit(char c) {
  if (IsDecimalDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Python's string escapes. `text` is what stands between the quotes. nullptr, or what is wrong.
class Unescaper {
 public:
  explicit Unescaper(std::string_view text) : text_(text) {}

  const char* Run(std::string* out) {
    while (position_ < text_.size()) {
      const char c = text_[position_++];
      if (c != '\\') {
        *out += c;
      } else if (const char* error = Escape(out); error != nullptr) {
        return error;
      }
    }
    return nullptr;
  }

 private:
  const char* Escape(std::string* out) {
    const char c = text_[position_++];  // the lexer's strings never end in a single backslash
    constexpr std::string_view kNames = "abfnrtv\\'\"";
    constexpr std::string_view kValues = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t at = kNames.find(c); at != std::string_view::npos) {
      *out += kValues[at];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      return Hex(out, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (c >= '0' && c <= '7') {
      Octal(out, c);
    } else if (c == 'N') {
      return "\\N{...} escapes are not supported";
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      NonAscii(out);
    } else if (c != '\n') {
      *out += '\\';
      *out += c;
    }
    return nullptr;
  }

  const char* Hex(std::string* out, int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const int digit = position_ < text_.size() ? HexDigit(text_[position_]) : -1;
      if (digit < 0) return "truncated \\x, \\u or \\U escape";
      value = value << 4 | static_cast<uint32_t>(digit);
      ++position_;
    }
    if (value > 0x10ffff) return "illegal Unicode character";
    if (value >= 0xd800 && value < 0xe000) return "a surrogate is no character";
    AppendUtf8(value, *out);
    return nullptr;
  }

  void Octal(std::string* out, char first) {
    auto value = static_cast<uint32_t>(first - '0');
    for (int i = 0; i < 2 && position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '7'; ++i) {
      value = value * 8 + static_cast<uint32_t>(text_[position_++] - '0');
    }
    AppendUtf8(value, *out);
  }

  // jinja2 first writes the character itself as \x, \u or \U, whose backslash is then the escaped one.
  void NonAscii(std::string* out) {
    size_t length;
    const auto c = static_cast<uint32_t>(CharAt(text_, position_ - 1, &length));
    position_ += length - 1;
    *out += c < 0x100     ? fmt::format("\\x{:02x}", c)
            : c < 0x10000 ? fmt::format("\\u{:04x}", c)
                          : fmt::format("\\U{:08x}", c);
  }

  std::string_view text_;
  size_t position_ = 0;
};

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  tl::expected<std::vector<Token>, SyntaxError> Run() {
    while (position_ < source_.size() && !error_) {
      if (!LexText()) break;
    }
    if (error_) return tl::unexpected<SyntaxError>(*error_);
    Push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(position_); }
  bool At(std::string_view text) const { return Rest().substr(0, text.size()) == text; }

  void Push(TokenKind kind, std::string_view text) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = text;
    tokens_.push_back(std::move(token));
  }

  bool Fail(std::string message) {
    if (!error_) error_ = SyntaxError{std::move(message), line_};
    return false;
  }

  // Moves to `end`, counting lines.
  void MoveTo(size_t end) {
    line_ += static_cast<int32_t>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                             source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    line_starting_ = end > 0 && source_[end - 1] == '\n';
    position_ = end;
  }

  size_t SkipSpace(size_t at) const {
    size_t length;
    while (at < source_.size() && IsSpace(CharAt(source_, at, &length))) at += length;
    return at;
  }

  // The end of a tag's closing mark at `at` ("-%}" with the space after it, "%}" with the newline after it), or 0.
  size_t TagEnd(size_t at, std::string_view mark, bool trims_newline, bool allows_plus) const {
    const std::string_view rest = std::string_view(source_).substr(at);
    if (rest.substr(0, 1) == "-" && rest.substr(1, 2) == mark) return SkipSpace(at + 3);
    if (allows_plus && rest.substr(0, 1) == "+" && rest.substr(1, 2) == mark) return at + 3;
    if (rest.substr(0, 2) != mark) return 0;
    return trims_newline && rest.substr(2, 1) == "\n" ? at + 3 : at + 2;
  }

  // Text before a tag, without the space that the tag takes away.
  std::string_view StripBefore(std::string_view text, char sign, bool lstrip) const {
    if (sign == '-') return Strip(text, nullptr, false, true);
    if (sign == '+' || !lstrip) return text;
    const size_t line_start = text.rfind('\n') + 1;
    if (line_start == 0 && !line_starting_) return text;
    return Strip(text.substr(line_start), nullptr, true, false).empty() ? text.substr(0, line_start) : text;
  }

  char SignAt(size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
  }

  bool LexText() {
    size_t tag = source_.find('{', position_);
    while (tag != std::string::npos &&
           (tag + 1 >= source_.size() || std::string_view("%{#").find(source_[tag + 1]) == std::string_view::npos)) {
      tag = source_.find('{', tag + 1);
    }
    if (tag == std::string::npos) {
      Push(TokenKind::kData, Rest());
      MoveTo(source_.size());
      return true;
    }
    const char kind = source_[tag + 1];
    const std::string_view text = std::string_view(source_).substr(position_, tag - position_);
    const std::string_view kept = StripBefore(text, SignAt(tag + 2), kind != '{');
    if (!kept.empty()) Push(TokenKind::kData, kept);
    MoveTo(tag);
    const size_t inside = SignAt(tag + 2) != '\0' ? tag + 3 : tag + 2;
    if (kind == '#') return LexComment(inside);
    if (kind == '%') {
      if (const size_t raw = RawBegin(inside); raw != 0) return LexRaw(raw);
    }
    Push(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    MoveTo(inside);
    return LexTag(kind == '%');
  }

  bool LexComment(size_t inside) {
    for (size_t at = source_.find('#', inside); at != std::string::npos; at = source_.find('#', at + 1)) {
      if (at + 1 >= source_.size() || source_[at + 1] != '}') continue;
      const bool signed_mark = at > inside && SignAt(at - 1) != '\0';
      MoveTo(TagEnd(signed_mark ? at - 1 : at, "#}", true, true));
      return true;
    }
    return Fail("Missing end of comment tag");
  }

  // The end of "raw %}" at `at`, or 0.
  size_t RawBegin(size_t at) const {
    at = SkipSpace(at);
    if (source_.compare(at, 3, "raw") != 0) return 0;
    return TagEnd(SkipSpace(at + 3), "%}", false, false);
  }

  bool LexRaw(size_t inside) {
    MoveTo(inside);
    for (size_t at = source_.find("{%", inside); at != std::string::npos; at = source_.find("{%", at + 1)) {
      const char sign = SignAt(at + 2);
      const size_t word = SkipSpace(sign != '\0' ? at + 3 : at + 2);
      if (source_.compare(word, 6, "endraw") != 0) continue;
      const size_t end = TagEnd(SkipSpace(word + 6), "%}", true, true);
      if (end == 0) continue;
      const std::string_view text = std::string_view(source_).substr(inside, at - inside);
      const std::string_view kept = StripBefore(text, sign, true);
      if (!kept.empty()) Push(TokenKind::kData, kept);
      MoveTo(end);
      return true;
    }
    return Fail("Missing end of raw directive");
  }

  bool LexTag(bool block) {
    std::string brackets;  // the closing ones still expected
    while (true) {
      if (brackets.empty()) {
        if (const size_t end = TagEnd(position_, block ? "%}" : "}}", block, block); end != 0) {
          Push(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
          MoveTo(end);
          return true;
        }
      }
      if (position_ >= source_.size()) return true;  // the parser says what is missing
      if (const size_t end = SkipSpace(position_); end != position_) {
        MoveTo(end);
      } else if (!LexNumber() && !LexName() && !LexString() && !LexOperator(&brackets)) {
        if (error_) return false;
        size_t length;
        CharAt(source_, position_, &length);
        return Fail(fmt::format("unexpected char '{}' at {}", Rest().substr(0, length),
                                CountChars(std::string_view(source_).substr(0, position_))));
      }
    }
  }

  // Digits with single underscores between them, from `at`; returns their end (`at` if there are none).
  size_t Digits(size_t at) const {
    size_t end = at;
    while (end < source_.size() &&
           (IsDecimalDigit(source_[end]) ||
            (source_[end] == '_' && end > at && end + 1 < source_.size() && IsDecimalDigit(source_[end + 1])))) {
      ++end;
    }
    return end;
  }

  // The end of a float literal at the current position, or 0.
  size_t FloatEnd() const {
    if (position_ > 0 && source_[position_ - 1] == '.') return 0;
    size_t end = Digits(position_);
    if (end == position_) return 0;
    bool fraction = false;
    if (end + 1 < source_.size() && source_[end] == '.' && Digits(end + 1) != end + 1) {
      end = Digits(end + 1);
      fraction = true;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const size_t digits = SignAt(end + 1) != '\0' ? end + 2 : end + 1;
      if (Digits(digits) != digits) return Digits(digits);
    }
    return fraction ? end : 0;
  }

  static std::string WithoutUnderscores(std::string_view text) {
    std::string result(text);
    result.erase(std::remove(result.begin(), result.end(), '_'), result.end());
    return result;
  }

  bool LexNumber() {
    if (!IsDecimalDigit(source_[position_])) return false;
    if (const size_t end = FloatEnd(); end != 0) {
      Push(TokenKind::kFloat, Rest().substr(0, end - position_));
      tokens_.back().real = std::strtod(WithoutUnderscores(tokens_.back().text).c_str(), nullptr);
      MoveTo(end);
      return true;
    }
    return LexInteger();
  }

  bool LexInteger() {
    size_t end = position_ + 1;
    int base = 10;
    if (source_[position_] == '0') {
      const char mark = end < source_.size() ? static_cast<char>(source_[end] | 0x20) : '\0';
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      const size_t digits = base == 10 ? position_ : position_ + 2;
      end = digits;
      while (end < source_.size()) {
        const size_t at = source_[end] == '_' ? end + 1 : end;
        const int digit = at < source_.size() ? HexDigit(source_[at]) : -1;
        if (digit < 0 || digit >= (base == 10 ? 1 : base)) break;
        end = at + 1;
      }
      if (end == digits) base = 10, end = position_ + 1;
    } else {
      end = Digits(position_);
    }
    return PushInteger(end, base);
  }

  bool PushInteger(size_t end, int base) {
    Push(TokenKind::kInteger, Rest().substr(0, end - position_));
    Int value = 0;
    for (const char c : WithoutUnderscores(tokens_.back().text.substr(base == 10 ? 0 : 2))) {
      if (__builtin_mul_overflow(value, static_cast<Int>(base), &value) ||
          __builtin_add_overflow(value, static_cast<Int>(HexDigit(c)), &value)) {
        return Fail("the integer does not fit 128 bits");
      }
    }
    tokens_.back().integer = value;
    MoveTo(end);
    return true;
  }

  bool LexName() {
    size_t end = position_, length;
    while (end < source_.size()) {
      const char32_t c = CharAt(source_, end, &length);
      if (!(c < 0x80 ? (c == '_' || IsDecimalDigit(static_cast<char>(c)) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
                     : IsIdentifierPart(c))) {
        break;
      }
      end += length;
    }
    if (end == position_) return false;
    if (!IsIdentifierStart(CharAt(source_, position_, &length))) return Fail("Invalid character in identifier");
    Push(TokenKind::kName, Rest().substr(0, end - position_));
    MoveTo(end);
    return true;
  }

  bool LexString() {
    const char quote = source_[position_];
    if (quote != '\'' && quote != '"') return false;
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return false;
    Push(TokenKind::kString, "");
    const char* error = Unescaper(Rest().substr(1, end - position_ - 1)).Run(&tokens_.back().text);
    if (error != nullptr) return Fail(error);
    MoveTo(end + 1);
    return true;
  }

  bool LexOperator(std::string* brackets) {
    constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                               "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view name : kOperators) {
      if (!At(name)) continue;
      const char c = name[0];
      if (c == '{' || c == '(' || c == '[') brackets->push_back(c == '{' ? '}' : c == '(' ? ')' : ']');
      if (c == '}' || c == ')' || c == ']') {
        if (brackets->empty()) return Fail(fmt::format("unexpected '{}'", c));
        if (brackets->back() != c) return Fail(fmt::format("unexpected '{}', expected '{}'", c, brackets->back()));
        brackets->pop_back();
      }
      Push(TokenKind::kOperator, name);
      MoveTo(position_ + name.size());
      return true;
    }
    return false;
  }

  std::string source_;
  size_t position_ = 0;
  int32_t line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
  std::optional<SyntaxError> error_;
};

}  // namespace

tl::expected<std::vector<Token>, SyntaxError> Tokenize(std::string_view source) {
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace swiftkv::jinja
