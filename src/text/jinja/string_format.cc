// "%s" % value and "{}".format(value), with Python's flags, widths and precisions.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/ops.h"
#include "text/jinja/unicode.h"
#include "text/unicode.h"

namespace swiftkv::jinja {
namespace {

constexpr int64_t kMaxPrecision = 1000;  // of floats; also bounds what a double can print

struct Spec {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '^', '=' (padding after the sign)
  char sign = '-';
  bool alternate = false;
  char grouping = '\0';  // ',' or '_'
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

std::string Digits(unsigned __int128 value, unsigned base, bool upper) {
  // The alphabet has a name because g++ 12 with -fsanitize=undefined computes the index of (a ? b : c)[i] in one branch
  // only.
  const char* const alphabet = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  do {
    digits += alphabet[static_cast<size_t>(value % base)];
    value /= base;
  } while (value != 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

// "1234567" -> "1,234,567"
std::string Grouped(std::string_view digits, char separator, size_t group) {
  std::string result;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % group == 0) result += separator;
    result += digits[i];
  }
  return result;
}

std::string PrintDouble(double value, char type, int precision, bool alternate) {
  const char format[] = {
      '%', alternate ? '#' : '.', alternate ? '.' : '*', alternate ? '*' : type, alternate ? type : '\0', '\0'};
  char buffer[1500];
  const int length = std::snprintf(buffer, sizeof(buffer), format, precision, value);
  return std::string(buffer, static_cast<size_t>(std::clamp(length, 0, static_cast<int>(sizeof(buffer)) - 1)));
}

// The digits of a float without its sign.
std::string FloatDigits(double value, const Spec& spec) {
  const double magnitude = std::abs(value);
  const bool upper = spec.type == 'E' || spec.type == 'F' || spec.type == 'G';
  if (!std::isfinite(value)) {
    const std::string_view text = std::isnan(value) ? "nan" : "inf";
    return fmt::format("{}{}", upper ? ToUpper(text) : text, spec.type == '%' ? "%" : "");
  }
  std::string digits;
  if (spec.type == '\0' && spec.precision < 0) {
    digits = FloatText(magnitude);
  } else if (spec.type == '\0') {
    digits = PrintDouble(magnitude, 'g', static_cast<int>(std::max<int64_t>(spec.precision, 1)), spec.alternate);
    if (digits.find_first_of(".e") == std::string::npos) digits += ".0";
  } else {
    const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
    const char type = spec.type == '%' ? 'f' : spec.type == 'n' ? 'g' : spec.type;
    digits = PrintDouble(spec.type == '%' ? magnitude * 100 : magnitude, type, precision, spec.alternate);
  }
  if (spec.grouping != '\0') {
    const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
    digits = Grouped(digits.substr(0, whole), spec.grouping, 3) + digits.substr(whole);
  }
  return spec.type == '%' ? digits + "%" : digits;
}

// Prefix ("0x"), digits; without the sign.
std::pair<std::string, std::string> IntegerDigits(Int value, const Spec& spec) {
  const auto magnitude = value < 0 ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  const unsigned base = spec.type == 'x' || spec.type == 'X' ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
  std::string digits = Digits(magnitude, base, spec.type == 'X');
  if (spec.grouping != '\0') digits = Grouped(digits, spec.grouping, base == 10 ? 3 : 4);
  std::string prefix;
  if (spec.alternate && base != 10) prefix = {'0', spec.type};
  return {prefix, digits};
}

// Appends sign, prefix and digits, or a text, padded to the width.
Status AppendPadded(Runtime& runtime, std::string* out, const std::string& front, std::string_view text,
                    const Spec& spec, char default_align) {
  const auto size = static_cast<int64_t>(front.size() + CountChars(text));
  const int64_t pad = std::max<int64_t>(spec.width - size, 0);
  const char align = spec.align != '\0' ? spec.align : default_align;
  if (pad > runtime.budget.string_bytes / 4 ||
      !runtime.budget.MayGrow(out->size(), front.size() + text.size() + static_cast<size_t>(pad) * spec.fill.size())) {
    runtime.budget.Exhaust("output_bytes");
    return runtime.Exhausted();
  }
  const int64_t left = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
  if (align == '=') *out += front;
  for (int64_t i = 0; i < left; ++i) *out += spec.fill;
  if (align != '=') *out += front;
  *out += text;
  for (int64_t i = left; i < pad; ++i) *out += spec.fill;
  return Ok();
}

std::string Sign(bool negative, const Spec& spec) {
  if (negative) return "-";
  return spec.sign == '+' || spec.sign == ' ' ? std::string(1, spec.sign) : std::string();
}

std::string_view FirstChars(std::string_view text, int64_t count) {
  return count < 0 ? text : text.substr(0, CharOffset(text, static_cast<size_t>(count)));
}

Status AppendNumber(Runtime& runtime, std::string* out, const Value& value, const Spec& spec) {
  if (spec.precision > kMaxPrecision) return InvalidInput("precision too big");
  const bool as_float = value.Is(Kind::kFloat) || std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  if (as_float && !(spec.type == '\0' && !value.Is(Kind::kFloat))) {
    const double number = value.number();
    return AppendPadded(runtime, out, Sign(std::signbit(number) && !std::isnan(number), spec),
                        FloatDigits(number, spec), spec, '>');
  }
  const auto [prefix, digits] = IntegerDigits(value.integer(), spec);
  return AppendPadded(runtime, out, Sign(value.integer() < 0, spec) + prefix, digits, spec, '>');
}

// ---- Percent.

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Value& format, const Value& arguments)
      : runtime_(runtime), markup_(format.markup()), text_(format.text()), arguments_(arguments) {}

  Result<Value> Run() {
    while (position_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', position_), text_.size());
      if (!runtime_.budget.MayGrow(out_.size(), percent - position_)) return runtime_.Exhausted();
      out_ += text_.substr(position_, percent - position_);
      position_ = percent + 1;
      if (percent == text_.size()) break;
      SWIFTKV_RETURN_IF_ERROR(Directive());
    }
    const bool single = !arguments_.Is(Kind::kTuple);
    // Python takes whatever has a subscript for a mapping, all of which need not be used.
    const bool mapping = arguments_.Is(Kind::kDict) || arguments_.Is(Kind::kList) || arguments_.Is(Kind::kRange) ||
                         arguments_.Is(Kind::kUndefined);
    const bool unused = single ? next_ == 0 && !mapping : next_ < arguments_.items().size();
    if (unused && !named_) return InvalidInput("not all arguments converted during string formatting");
    return Value::String(&runtime_.budget, std::move(out_), markup_);
  }

 private:
  char Peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

  Result<Value> NextArgument() {
    if (!arguments_.Is(Kind::kTuple)) {
      if (next_++ > 0) return InvalidInput("not enough arguments for format string");
      return arguments_;
    }
    if (next_ >= arguments_.items().size()) return InvalidInput("not enough arguments for format string");
    return arguments_.items()[next_++];
  }

  Result<int64_t> Number() {
    if (Peek() == '*') {
      ++position_;
      SWIFTKV_ASSIGN_OR_RETURN(const Value value, NextArgument());
      if (!value.IsInteger()) return InvalidInput("* wants int");
      return ToIndex(value);
    }
    int64_t number = 0;
    for (; Peek() >= '0' && Peek() <= '9'; ++position_) {
      number = number * 10 + (Peek() - '0');
      if (number > int64_t{1} << 40) return InvalidInput("width too big");
    }
    return number;
  }

  // "(name)" after the percent sign.
  Result<Value> Named() {
    size_t depth = 1, end = position_ + 1;
    for (; end < text_.size() && depth > 0; ++end) depth += text_[end] == '(' ? 1 : text_[end] == ')' ? -1 : 0;
    if (depth > 0) return InvalidInput("incomplete format key");
    const std::string_view name = text_.substr(position_ + 1, end - position_ - 2);
    position_ = end;
    named_ = true;
    if (!arguments_.Is(Kind::kDict)) return InvalidInput("format requires a mapping");
    const Value* found = arguments_.dict().Find(&runtime_.budget, Value::Text(name));
    if (found == nullptr) return InvalidInput("'{}'", name);
    return *found;
  }

  Status Directive() {
    SWIFTKV_RETURN_IF_ERROR(runtime_.Step());
    Value value;
    if (Peek() == '(') {
      SWIFTKV_ASSIGN_OR_RETURN(value, Named());
    }
    Spec spec;
    bool zero = false;
    for (; Peek() != '\0' && std::string_view("-+ #0").find(Peek()) != std::string_view::npos; ++position_) {
      if (Peek() == '-') spec.align = '<';
      if (Peek() == '+' || (Peek() == ' ' && spec.sign != '+')) spec.sign = Peek();
      if (Peek() == '#') spec.alternate = true;
      if (Peek() == '0') zero = true;
    }
    SWIFTKV_ASSIGN_OR_RETURN(spec.width, Number());
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = spec.width < -(int64_t{1} << 40) ? int64_t{1} << 40 : -spec.width;
    }
    if (Peek() == '.') {
      ++position_;
      SWIFTKV_ASSIGN_OR_RETURN(spec.precision, Number());
      spec.precision = std::max<int64_t>(spec.precision, 0);
    }
    while (Peek() == 'l' || Peek() == 'h' || Peek() == 'L') ++position_;
    if (position_ >= text_.size()) return InvalidInput("incomplete format");
    spec.type = text_[position_++];
    if (spec.type == '%') {
      out_ += '%';
      return Ok();
    }
    if (value.Is(Kind::kMissing)) {
      SWIFTKV_ASSIGN_OR_RETURN(value, NextArgument());
    }
    return Convert(value, spec, zero);
  }

  Status Convert(const Value& value, Spec spec, bool zero) {
    switch (spec.type) {
      case 's':
      case 'r':
      case 'a':
        return ConvertText(value, spec);
      case 'c':
        return ConvertChar(value, spec);
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return ConvertNumber(value, spec, zero);
      default:
        return InvalidInput("unsupported format character '{}' ({:#x}) at index {}", spec.type,
                            static_cast<unsigned char>(spec.type), CountChars(text_.substr(0, position_ - 1)));
    }
  }

  Status ConvertText(const Value& value, const Spec& spec) {
    std::string text = spec.type == 's' ? Str(&runtime_.budget, value) : Repr(&runtime_.budget, value);
    if (markup_ && !value.markup()) text = EscapeHtml(text);
    return AppendPadded(runtime_, &out_, "", FirstChars(text, spec.precision), spec, '>');
  }

  Status ConvertChar(const Value& value, const Spec& spec) {
    std::string text;
    if (value.IsInteger() && value.integer() >= 0 && value.integer() < 0x110000 &&
        (value.integer() < 0xd800 || value.integer() >= 0xe000)) {
      AppendUtf8(static_cast<char32_t>(value.integer()), text);
    } else if (value.Is(Kind::kString) && CountChars(value.text()) == 1) {
      text = value.text();
    } else {
      return InvalidInput("%c requires int or char");
    }
    return AppendPadded(runtime_, &out_, "", text, spec, '>');
  }

  Status ConvertNumber(const Value& value, Spec spec, bool zero) {
    const bool as_float = std::string_view("eEfFgG").find(spec.type) != std::string_view::npos;
    if (!value.IsNumber() ||
        (!as_float && value.Is(Kind::kFloat) && std::string_view("xXo").find(spec.type) != std::string_view::npos)) {
      if (value.Is(Kind::kUndefined)) return UndefinedError(value);
      if (as_float) return InvalidInput("must be real number, not {}", TypeName(value));
      return InvalidInput("%{} format: {} is required, not {}", spec.type,
                          spec.type == 'd' || spec.type == 'i' || spec.type == 'u' ? "a real number" : "an integer",
                          TypeName(value));
    }
    if (zero && spec.align == '\0') {
      spec.fill.assign(1, '0');
      spec.align = '=';
    }
    if (as_float) return AppendNumber(runtime_, &out_, value, spec);
    if (value.Is(Kind::kFloat) && !(std::abs(value.real()) < 1e38)) {
      return InvalidInput("cannot convert float {} to integer", FloatText(value.real()));
    }
    const Int number = value.Is(Kind::kFloat) ? static_cast<Int>(value.real()) : value.integer();
    if (spec.precision > kMaxPrecision) return InvalidInput("precision too big");
    auto [prefix, digits] = IntegerDigits(number, spec);
    const auto wanted = static_cast<size_t>(std::max<int64_t>(spec.precision, 0));
    if (digits.size() < wanted) digits.insert(0, wanted - digits.size(), '0');
    return AppendPadded(runtime_, &out_, Sign(number < 0, spec) + prefix, digits, spec, '>');
  }

  Runtime& runtime_;
  bool markup_;
  std::string_view text_;
  const Value& arguments_;
  size_t position_ = 0;
  size_t next_ = 0;
  bool named_ = false;
  std::string out_;
};

// ---- Braces.

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Value& format, const Arguments& arguments)
      : runtime_(runtime), markup_(format.markup()), arguments_(arguments) {}

  Status Run(std::string_view text, int depth, std::string* out) {
    if (depth > 2) return InvalidInput("Max string recursion exceeded");
    size_t position = 0;
    while (position < text.size()) {
      const char c = text[position];
      const bool doubled = position + 1 < text.size() && text[position + 1] == c;
      if ((c == '{' || c == '}') && doubled) {
        *out += c;
        position += 2;
      } else if (c == '}') {
        return InvalidInput("Single '}}' encountered in format string");
      } else if (c == '{') {
        SWIFTKV_ASSIGN_OR_RETURN(position, Field(text, position + 1, depth, out));
      } else {
        const size_t end = std::min(text.find_first_of("{}", position), text.size());
        if (!runtime_.budget.MayGrow(out->size(), end - position)) return runtime_.Exhausted();
        *out += text.substr(position, end - position);
        position = end;
      }
    }
    return Ok();
  }

 private:
  // One replacement field; `position` is behind its "{". Returns the position behind its "}".
  Result<size_t> Field(std::string_view text, size_t position, int depth, std::string* out) {
    SWIFTKV_RETURN_IF_ERROR(runtime_.Step());
    size_t end = position;
    int open = 1, brackets = 0;
    size_t mark = std::string_view::npos;  // the first "!" or ":"
    for (; end < text.size(); ++end) {
      const char c = text[end];
      if (mark == std::string_view::npos && c == '[') ++brackets;
      if (mark == std::string_view::npos && c == ']') brackets = 0;
      if (brackets > 0) continue;
      if (c == '{') ++open;
      if (c == '}' && --open == 0) break;
      if ((c == '!' || c == ':') && mark == std::string_view::npos) mark = end;
    }
    if (end >= text.size()) return InvalidInput("expected '}}' before end of string");
    const size_t name_end = std::min(mark, end);
    size_t specification = name_end;
    char conversion = '\0';
    if (mark < end && text[mark] == '!') {
      if (mark + 1 >= end) return InvalidInput("unmatched '{{' in format spec");
      conversion = text[mark + 1];
      specification = mark + 2;
      if (specification < end && text[specification] != ':') {
        return InvalidInput("expected ':' after conversion specifier");
      }
    }
    SWIFTKV_ASSIGN_OR_RETURN(Value value, Lookup(text.substr(position, name_end - position)));
    if (conversion != '\0') {
      SWIFTKV_ASSIGN_OR_RETURN(value, Converted(value, conversion));
    }
    std::string spec;
    if (specification < end) {
      SWIFTKV_RETURN_IF_ERROR(Run(text.substr(specification + 1, end - specification - 1), depth + 1, &spec));
    }
    SWIFTKV_RETURN_IF_ERROR(Append(value, spec, depth, out));
    return end + 1;
  }

  Status Append(const Value& value, const std::string& spec, int depth, std::string* out) {
    if (!markup_ || depth > 0 || (value.Is(Kind::kString) && value.markup())) {
      return FormatValue(runtime_, out, value, spec);
    }
    std::string text;
    SWIFTKV_RETURN_IF_ERROR(FormatValue(runtime_, &text, value, spec));
    *out += EscapeHtml(text);
    return Ok();
  }

  Result<Value> Converted(const Value& value, char conversion) {
    if (conversion == 's') return Value::String(&runtime_.budget, Str(&runtime_.budget, value));
    if (conversion == 'r' || conversion == 'a') return Value::String(&runtime_.budget, Repr(&runtime_.budget, value));
    return InvalidInput("Unknown conversion specifier {}", conversion);
  }

  // name, 0, .attribute, [key]
  Result<Value> Lookup(std::string_view field) {
    const size_t end = std::min(field.find_first_of(".["), field.size());
    SWIFTKV_ASSIGN_OR_RETURN(Value value, Argument(field.substr(0, end)));
    field.remove_prefix(end);
    while (!field.empty()) {
      const bool attribute = field[0] == '.';
      if (!attribute && field[0] != '[')
        return InvalidInput("Only '.' or '[' may follow ']' in format field specifier");
      size_t stop = attribute ? std::min(field.find_first_of(".[", 1), field.size()) : field.find(']');
      if (stop == std::string_view::npos) return InvalidInput("Missing ']' in format string");
      const Value name = Value::String(&runtime_.budget, std::string(field.substr(1, stop - 1)));
      if (name.text().empty()) return InvalidInput("Empty attribute in format string");
      if (attribute) {
        SWIFTKV_ASSIGN_OR_RETURN(value, GetAttribute(runtime_, value, name));
      } else {
        const bool index = name.text().find_first_not_of("0123456789") == std::string_view::npos;
        const std::optional<Int> number = index ? ParseInt(name.text(), 10) : std::nullopt;
        SWIFTKV_ASSIGN_OR_RETURN(value, GetItem(runtime_, value, number ? Value::Integer(*number) : name));
        ++stop;
      }
      field.remove_prefix(stop);
    }
    return value;
  }

  Result<Value> Argument(std::string_view name) {
    const bool numbered = name.find_first_not_of("0123456789") == std::string_view::npos;
    if (!numbered) {
      SWIFTKV_RETURN_IF_ERROR(runtime_.Step(static_cast<int64_t>(arguments_.keyword.size() >> 3)));
      for (const auto& [key, value] : arguments_.keyword) {
        if (key == name) return value;
      }
      return InvalidInput("'{}'", name);
    }
    if (name.empty() ? manual_ : automatic_ > 0) {
      return InvalidInput("cannot switch between manual and automatic field numbering");
    }
    manual_ = manual_ || !name.empty();
    const std::optional<Int> index = name.empty() ? static_cast<Int>(automatic_++) : ParseInt(name, 10);
    if (!index || *index >= static_cast<Int>(arguments_.positional.size())) {
      return InvalidInput("Replacement index {} out of range for positional args tuple",
                          name.empty() ? std::to_string(automatic_ - 1) : std::string(name));
    }
    return arguments_.positional[static_cast<size_t>(*index)];
  }

  Runtime& runtime_;
  bool markup_;
  const Arguments& arguments_;
  int64_t automatic_ = 0;
  bool manual_ = false;
};

// [[fill]align][sign][#][0][width][grouping][.precision][type]
Result<Spec> ParseSpec(std::string_view text) {
  Spec spec;
  size_t at = 0, length = 0;
  const auto is_align = [&](size_t i) {
    return i < text.size() && std::string_view("<>=^").find(text[i]) != std::string_view::npos;
  };
  if (!text.empty()) CharAt(text, 0, &length);
  if (!text.empty() && is_align(length)) {
    spec.fill = text.substr(0, length);
    spec.align = text[length];
    at = length + 1;
  } else if (is_align(0)) {
    spec.align = text[at++];
  }
  if (at < text.size() && std::string_view("+- ").find(text[at]) != std::string_view::npos) spec.sign = text[at++];
  if (at < text.size() && text[at] == '#') spec.alternate = true, ++at;
  if (at < text.size() && text[at] == '0') {
    if (spec.align == '\0') spec.fill.assign(1, '0'), spec.align = '=';
    ++at;
  }
  const auto number = [&]() -> Result<int64_t> {
    int64_t value = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
      value = value * 10 + (text[at] - '0');
      if (value > int64_t{1} << 40) return InvalidInput("Too many decimal digits in format string");
    }
    return value;
  };
  SWIFTKV_ASSIGN_OR_RETURN(spec.width, number());
  if (at < text.size() && (text[at] == ',' || text[at] == '_')) spec.grouping = text[at++];
  if (at < text.size() && text[at] == '.') {
    const size_t digits = ++at;
    SWIFTKV_ASSIGN_OR_RETURN(spec.precision, number());
    if (at == digits) return InvalidInput("Format specifier missing precision");
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) return InvalidInput("Invalid format specifier");
  return spec;
}

}  // namespace

Status FormatValue(Runtime& runtime, std::string* out, const Value& value, std::string_view specification) {
  if (specification.empty()) {
    std::string text = Str(&runtime.budget, value);
    if (!runtime.budget.MayGrow(out->size(), text.size())) return runtime.Exhausted();
    *out += text;
    return Ok();
  }
  SWIFTKV_ASSIGN_OR_RETURN(Spec spec, ParseSpec(specification));
  const auto unknown = [&]() -> Status {
    return InvalidInput("Unknown format code '{}' for object of type '{}'", spec.type, TypeName(value));
  };
  if (value.Is(Kind::kString)) {
    if (spec.type != '\0' && spec.type != 's') return unknown();
    if (spec.sign != '-') return InvalidInput("Sign not allowed in string format specifier");
    if (spec.align == '=' && spec.fill == "0") spec.align = '<';
    if (spec.align == '=') return InvalidInput("'=' alignment not allowed in string format specifier");
    return AppendPadded(runtime, out, "", FirstChars(value.text(), spec.precision), spec, '<');
  }
  if (!value.IsNumber()) {
    return InvalidInput("unsupported format string passed to {}.__format__", TypeName(value));
  }
  if (value.Is(Kind::kBool) && spec.type == '\0') {
    return AppendPadded(runtime, out, "", value.boolean() ? "True" : "False", spec, '<');
  }
  constexpr std::string_view kIntegerTypes = "bcdoxXn", kFloatTypes = "eEfFgG%n";
  if (spec.type != '\0' && kFloatTypes.find(spec.type) == std::string_view::npos &&
      (value.Is(Kind::kFloat) || kIntegerTypes.find(spec.type) == std::string_view::npos)) {
    return unknown();
  }
  const bool integer_type = spec.type == '\0' || kIntegerTypes.find(spec.type) != std::string_view::npos;
  if (value.IsInteger() && integer_type && spec.precision >= 0) {
    return InvalidInput("Precision not allowed in integer format specifier");
  }
  return AppendNumber(runtime, out, value, spec);
}

Result<Value> FormatPercent(Runtime& runtime, const Value& format, const Value& arguments) {
  runtime.budget.SpendBytes(format.text().size());
  return PercentFormatter(runtime, format, arguments).Run();
}

Result<Value> FormatBraces(Runtime& runtime, const Value& format, const Arguments& arguments) {
  runtime.budget.SpendBytes(format.text().size());
  std::string out;
  SWIFTKV_RETURN_IF_ERROR(BraceFormatter(runtime, format, arguments).Run(format.text(), 0, &out));
  return Value::String(&runtime.budget, std::move(out), format.markup());
}

}  // namespace swiftkv::jinja
