// Filters of single values.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/ops.h"
#include "text/jinja/unicode.h"

namespace swiftkv::jinja {
namespace {

// markupsafe.soft_str: strings stay what they are, Markup included.
Value SoftString(Runtime& runtime, const Value& value) {
  return value.Is(Kind::kString) ? value : Value::String(&runtime.budget, Str(&runtime.budget, value));
}

Result<bool> Flag(const Value* value, bool otherwise) { return value == nullptr ? otherwise : Truth(*value); }

// ---- JSON.

Result<JsonOptions> BindJson(Runtime& runtime, const Bound& bound) {
  JsonOptions options;
  options.ensure_ascii = bound[0] != nullptr && Truth(*bound[0]);
  if (bound[1] != nullptr && !bound[1]->Is(Kind::kNone)) {
    if (bound[1]->Is(Kind::kString)) {
      options.indent = std::string(bound[1]->text());
    } else {
      SWIFTKV_ASSIGN_OR_RETURN(const int64_t width, ToIndex(*bound[1]));
      if (width > 1'000'000) return InvalidInput("tojson: the indent {} is too large", width);
      options.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
    options.item_separator.pop_back();
  }
  if (bound[2] != nullptr && !bound[2]->Is(Kind::kNone)) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> separators, ToVector(runtime, *bound[2]));
    if (separators.size() != 2 || !separators[0].Is(Kind::kString) || !separators[1].Is(Kind::kString)) {
      return InvalidInput("tojson: separators must be two strings");
    }
    options.item_separator = separators[0].text();
    options.key_separator = separators[1].text();
  }
  options.sort_keys = bound[3] != nullptr && Truth(*bound[3]);
  return options;
}

Result<Value> ToJson(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound,
                           Bind(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0));
  SWIFTKV_ASSIGN_OR_RETURN(const JsonOptions options, BindJson(runtime, bound));
  std::string text;
  SWIFTKV_RETURN_IF_ERROR(AppendJson(&runtime.budget, &text, self, options));
  return Value::String(&runtime.budget, std::move(text));
}

// ---- Text.

// A method of strings as a filter over any value.
template <std::string_view const& name>
Result<Value> AsMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return FindStringMethod(name)(runtime, SoftString(runtime, self), arguments);
}

constexpr std::string_view kStrip = "strip", kUpper = "upper", kLower = "lower", kCapitalize = "capitalize";

Result<Value> Trim(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "trim", {"chars"}, 0));
  return AsMethod<kStrip>(runtime, self, arguments);
}

// Words start after space and ( { [ < -, unlike those of str.title.
Result<Value> Title(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "title", {}, 0));
  const Value text = SoftString(runtime, self);
  const auto breaks = [](char32_t c) { return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || IsSpace(c); };
  std::string result;
  const auto add_word = [&](std::string_view word) {
    if (word.empty()) return;
    size_t first;
    CharAt(word, 0, &first);
    result += ToUpper(word.substr(0, first)) + ToLower(word.substr(first));
  };
  size_t word = 0;
  for (size_t i = 0, length; i < text.text().size(); i += length) {
    if (!breaks(CharAt(text.text(), i, &length))) continue;
    add_word(text.text().substr(word, i - word));
    result += text.text().substr(i, length);
    word = i + length;
  }
  add_word(text.text().substr(word));
  return Value::String(&runtime.budget, std::move(result));
}

Result<Value> String(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "string", {}, 0));
  return SoftString(runtime, self);
}

Result<Value> ReplaceFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "replace", {"old", "new", "count"}, 2));
  const auto plain = [&](const Value& value) {
    return value.Is(Kind::kString) ? Value::Text(value.text(), value.object())
                                   : Value::String(&runtime.budget, Str(&runtime.budget, value));
  };
  Arguments plain_arguments{{plain(*bound[0]), plain(*bound[1])}, {}, {}};
  if (bound[2] != nullptr && !bound[2]->Is(Kind::kNone)) plain_arguments.positional.push_back(*bound[2]);
  return FindStringMethod("replace")(runtime, plain(self), plain_arguments);
}

Result<Value> Safe(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "safe", {}, 0));
  const Value text = SoftString(runtime, self);
  return Value::Text(text.text(), text.object(), true);
}

Result<Value> Escape(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "escape", {}, 0));
  const Value text = SoftString(runtime, self);
  if (text.markup()) return text;
  if (!runtime.budget.AllowString(text.text().size())) return runtime.Exhausted();
  return Value::String(&runtime.budget, EscapeHtml(text.text()), true);
}

Result<Value> ForceEscape(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value text = SoftString(runtime, self);
  return Escape(runtime, Value::Text(text.text(), text.object()), arguments);
}

Result<Value> Indent(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "indent", {"width", "first", "blank"}, 0));
  if (self.Is(Kind::kUndefined)) return UndefinedError(self);
  if (!self.Is(Kind::kString)) {
    return InvalidInput("unsupported operand type(s) for +=: '{}' and 'str'", TypeName(self));
  }
  std::string indention(4, ' ');
  if (bound[0] != nullptr && bound[0]->Is(Kind::kString)) {
    indention = self.markup() ? EscapeHtml(bound[0]->text()) : std::string(bound[0]->text());
  } else if (bound[0] != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t width, ToIndex(*bound[0]));
    if (width > 1'000'000) return InvalidInput("indent: the width {} is too large", width);
    indention = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  SWIFTKV_ASSIGN_OR_RETURN(const bool first, Flag(bound[1], false));
  SWIFTKV_ASSIGN_OR_RETURN(const bool blank, Flag(bound[2], false));
  const Value text = Value::String(&runtime.budget, std::string(self.text()) + "\n");
  SWIFTKV_ASSIGN_OR_RETURN(const Value lines, FindStringMethod("splitlines")(runtime, text, Arguments()));
  std::string result = first ? indention : "";
  for (size_t i = 0; i < lines.items().size(); ++i) {
    const std::string_view line = lines.items()[i].text();
    if (!runtime.budget.MayGrow(result.size(), line.size() + indention.size() + 1)) return runtime.Exhausted();
    if (i > 0) result += '\n';
    if (i > 0 && (blank || !line.empty())) result += indention;
    result += line;
  }
  return Value::String(&runtime.budget, std::move(result), self.markup());
}

Result<Value> FormatFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value format = SoftString(runtime, self);
  if (arguments.keyword.empty()) {
    return FormatPercent(runtime, format, Value::Tuple(&runtime.budget, arguments.positional));
  }
  if (!arguments.positional.empty()) {
    return InvalidInput("can't handle positional and keyword arguments at the same time");
  }
  Dict named;
  for (const auto& [name, value] : arguments.keyword) {
    named.Set(&runtime.budget, Value::String(&runtime.budget, std::string(name)), value);
  }
  return FormatPercent(runtime, format, MakeDict(&runtime.budget, std::move(named)));
}

Result<Value> Center(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "center", {"width"}, 0));
  const Value width = bound[0] != nullptr ? *bound[0] : Value::Integer(80);
  return FindStringMethod("center")(runtime, SoftString(runtime, self), Arguments{{width}, {}, {}});
}

Result<Value> Truncate(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "truncate", {"length", "killwords", "end", "leeway"}, 0));
  int64_t length = 255, leeway = 5;
  if (bound[0] != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(length, ToIndex(*bound[0]));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const bool kill_words, Flag(bound[1], false));
  const Value end = bound[2] != nullptr ? *bound[2] : Value::Text("...");
  if (bound[3] != nullptr && !bound[3]->Is(Kind::kNone)) {
    SWIFTKV_ASSIGN_OR_RETURN(leeway, ToIndex(*bound[3]));
  }
  if (!self.Is(Kind::kString) || !end.Is(Kind::kString)) return InvalidInput("truncate needs a string");
  runtime.budget.SpendBytes(self.text().size() + end.text().size());
  const auto end_size = static_cast<int64_t>(CountChars(end.text()));
  if (length < end_size) return InvalidInput("expected length >= {}, got {}", end_size, length);
  if (leeway < 0) return InvalidInput("expected leeway >= 0, got {}", leeway);
  if (static_cast<Int>(CountChars(self.text())) <= static_cast<Int>(length) + leeway) return self;
  std::string_view kept = self.text().substr(0, CharOffset(self.text(), static_cast<size_t>(length - end_size)));
  if (!kill_words) kept = kept.substr(0, kept.rfind(' '));
  return Arithmetic(runtime, Operator::kAdd, Part(self, kept), end);
}

Result<Value> WordCount(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "wordcount", {}, 0));
  const Value text = SoftString(runtime, self);
  runtime.budget.SpendBytes(text.text().size());
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0, length; i < text.text().size(); i += length) {
    const char32_t c = CharAt(text.text(), i, &length);
    const bool word = c == '_' || IsAlnum(c);
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::Integer(words);
}

std::string Quote(std::string_view text, bool for_query) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && (std::isalnum(byte) != 0 || std::string_view("_.-~").find(c) != std::string_view::npos ||
                        (c == '/' && !for_query))) {
      result += c;
    } else if (c == ' ' && for_query) {
      result += '+';
    } else {
      result += fmt::format("%{:02X}", byte);
    }
  }
  return result;
}

Result<Value> UrlEncode(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "urlencode", {}, 0));
  if (self.Is(Kind::kString) || !Iterator::Over(self)) {
    const std::string text = Str(&runtime.budget, self);
    if (!runtime.budget.AllowString(text.size() * 3)) return runtime.Exhausted();
    return Value::String(&runtime.budget, Quote(text, false));
  }
  const Value pairs =
      self.Is(Kind::kDict)
          ? Value::FromObject(Kind::kDictView, new DictViewObject(&runtime.budget, self, DictViewObject::Part::kItems))
          : self;
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> items, ToVector(runtime, pairs));
  std::string result;
  for (const Value& item : items) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<Value> pair, ToVector(runtime, item));
    if (pair.size() != 2) return InvalidInput("not enough values to unpack (expected 2, got {})", pair.size());
    if (!result.empty()) result += '&';
    result += Quote(Str(&runtime.budget, pair[0]), true) + "=" + Quote(Str(&runtime.budget, pair[1]), true);
    if (!runtime.budget.MayGrow(result.size(), 0)) return runtime.Exhausted();
  }
  return Value::String(&runtime.budget, std::move(result));
}

// ---- Numbers.

Result<Value> IntFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "int", {"default", "base"}, 0));
  if (self.Is(Kind::kUndefined)) return UndefinedError(self);
  const Value otherwise = bound[0] != nullptr ? *bound[0] : Value::Integer(0);
  int64_t base = 10;
  if (self.IsInteger()) return Value::Integer(self.integer());
  if (bound[1] != nullptr && self.Is(Kind::kString)) {
    SWIFTKV_ASSIGN_OR_RETURN(base, ToIndex(*bound[1]));
  }
  std::optional<double> real;
  if (self.Is(Kind::kString)) {
    runtime.budget.SpendBytes(self.text().size());
    const auto bounded = static_cast<int>(std::clamp<int64_t>(base, -1, 100));
    if (const std::optional<Int> value = ParseInt(self.text(), bounded); value) return Value::Integer(*value);
    real = ParseFloat(self.text());
  } else if (self.Is(Kind::kFloat)) {
    real = self.real();
  }
  if (!real || !std::isfinite(*real)) return otherwise;
  if (std::abs(*real) >= 1.7e38) return InvalidInput("the integer does not fit 128 bits");
  return Value::Integer(static_cast<Int>(*real));
}

Result<Value> FloatFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "float", {"default"}, 0));
  if (self.Is(Kind::kUndefined)) return UndefinedError(self);
  if (self.IsNumber()) return Value::Float(self.number());
  if (self.Is(Kind::kString)) {
    runtime.budget.SpendBytes(self.text().size());
    if (const std::optional<double> value = ParseFloat(self.text()); value) return Value::Float(*value);
  }
  return bound[0] != nullptr ? *bound[0] : Value::Float(0.0);
}

Result<Value> Abs(Runtime&, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "abs", {}, 0));
  if (self.Is(Kind::kFloat)) return Value::Float(std::abs(self.real()));
  if (self.IsInteger()) return self.integer() < 0 ? Negate(self) : Value::Integer(self.integer());
  if (self.Is(Kind::kUndefined)) return UndefinedError(self);
  return InvalidInput("bad operand type for abs(): '{}'", TypeName(self));
}

// Python's round of a float: the exact binary value, rounded half to even, in decimal.
double RoundReal(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 330) return value;
  if (digits < -330) return std::copysign(0.0, value);
  if (digits < 0) {
    const double unit = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(value / unit) * unit;
  }
  char buffer[700];
  std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(digits), value);
  return std::strtod(buffer, nullptr);
}

Result<Value> RoundInteger(Runtime& runtime, const Value& self, int64_t digits) {
  if (digits >= 0) return Value::Integer(self.integer());
  if (digits < -38) return Value::Integer(0);
  SWIFTKV_ASSIGN_OR_RETURN(const Value unit,
                           Arithmetic(runtime, Operator::kPower, Value::Integer(10), Value::Integer(-digits)));
  const Int whole = unit.integer();
  Int rest = self.integer() % whole;
  if (rest < 0) rest += whole;
  const Int low = self.integer() - rest;
  const bool up = rest * 2 > whole || (rest * 2 == whole && (low / whole) % 2 != 0);
  return Value::Integer(up ? low + whole : low);
}

Result<Value> Round(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "round", {"precision", "method"}, 0));
  int64_t digits = 0;
  if (bound[0] != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(digits, ToIndex(*bound[0]));
  }
  const std::string method = bound[1] != nullptr ? Str(&runtime.budget, *bound[1]) : "common";
  if (method != "common" && method != "ceil" && method != "floor") {
    return InvalidInput("method must be common, ceil or floor");
  }
  if (self.Is(Kind::kUndefined)) return UndefinedError(self);
  if (!self.IsNumber()) return InvalidInput("type {} doesn't define __round__ method", TypeName(self));
  if (method == "common") {
    return self.IsInteger() ? RoundInteger(runtime, self, digits) : Value::Float(RoundReal(self.real(), digits));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const Value unit,
                           Arithmetic(runtime, Operator::kPower, Value::Integer(10), Value::Integer(digits)));
  SWIFTKV_ASSIGN_OR_RETURN(const Value scaled, Arithmetic(runtime, Operator::kMultiply, self, unit));
  Value rounded = scaled;
  if (scaled.Is(Kind::kFloat)) {
    if (!(std::abs(scaled.real()) < 1.7e38)) return InvalidInput("cannot convert float infinity to integer");
    rounded = Value::Integer(static_cast<Int>(method == "ceil" ? std::ceil(scaled.real()) : std::floor(scaled.real())));
  }
  return Arithmetic(runtime, Operator::kDivide, rounded, unit);
}

// ---- Any value.

Result<Value> Default(Runtime&, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "default", {"default_value", "boolean"}, 0));
  const bool boolean = bound[1] != nullptr && Truth(*bound[1]);
  if (!self.Is(Kind::kUndefined) && !(boolean && !Truth(self))) return self;
  return bound[0] != nullptr ? *bound[0] : Value::Text("");
}

Result<Value> LengthFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "length", {}, 0));
  if (self.Is(Kind::kString)) runtime.budget.SpendBytes(self.text().size());
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t length, Length(self));
  return Value::Integer(length);
}

// Attributes only, not the entries of a dict.
Result<Value> Attribute(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "attr", {"name"}, 1));
  if (!bound[0]->Is(Kind::kString)) return InvalidInput("attribute name must be string, not '{}'", TypeName(*bound[0]));
  if (self.Is(Kind::kDict) && FindContainerMethod(Kind::kDict, bound[0]->text()) == nullptr) {
    return Value::Undefined(*bound[0], Kind::kDict);
  }
  return GetAttribute(runtime, self, *bound[0]);
}

constexpr NamedBuiltin kFilters[] = {
    {"tojson", ToJson},
    {"trim", Trim},
    {"default", Default},
    {"d", Default},
    {"length", LengthFilter},
    {"count", LengthFilter},
    {"string", String},
    {"upper", AsMethod<kUpper>},
    {"lower", AsMethod<kLower>},
    {"capitalize", AsMethod<kCapitalize>},
    {"title", Title},
    {"replace", ReplaceFilter},
    {"safe", Safe},
    {"escape", Escape},
    {"e", Escape},
    {"forceescape", ForceEscape},
    {"indent", Indent},
    {"format", FormatFilter},
    {"center", Center},
    {"truncate", Truncate},
    {"wordcount", WordCount},
    {"urlencode", UrlEncode},
    {"int", IntFilter},
    {"float", FloatFilter},
    {"abs", Abs},
    {"round", Round},
    {"attr", Attribute},
};

}  // namespace

Builtin FindScalarFilter(std::string_view name) { return FindIn(std::begin(kFilters), std::end(kFilters), name); }

}  // namespace swiftkv::jinja
