#include "text/jinja/builtins.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/jinja/format.h"
#include "text/jinja/ops.h"
#include "text/jinja/unicode.h"

namespace swiftkv::jinja {
namespace {

struct BuiltinObject : FunctionObject {
  BuiltinObject(Budget* budget, const Value& object, Builtin function, std::string_view function_name)
      : FunctionObject(budget, 128), self(object), builtin(function), name(function_name) {
    SetNesting(object.nesting() + 1);
  }
  Result<Value> Call(Runtime& runtime, const Arguments& arguments) override {
    return builtin(runtime, self, arguments);
  }
  std::string Repr() const override { return "<function " + std::string(name) + ">"; }

  Value self;
  Builtin builtin;
  std::string name;
};

// The text without surrounding space and without the underscores that Python allows between digits; nullopt if an
// underscore stands elsewhere.
std::optional<std::string> Digits(std::string_view text) {
  text = Strip(text, nullptr, true, true);
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      result += text[i];
      continue;
    }
    const auto is_digit = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
  }
  return result;
}

}  // namespace

Builtin FindIn(const NamedBuiltin* begin, const NamedBuiltin* end, std::string_view name) {
  const NamedBuiltin* found = std::find_if(begin, end, [&](const NamedBuiltin& entry) { return entry.name == name; });
  return found == end ? nullptr : found->function;
}

Builtin FindFilter(std::string_view name) {
  const Builtin scalar = FindScalarFilter(name);
  return scalar != nullptr ? scalar : FindSequenceFilter(name);
}

Value MakeFunction(Budget* budget, const Value& self, Builtin function, std::string_view name) {
  return Value::FromObject(Kind::kFunction, new BuiltinObject(budget, self, function, name));
}

Result<Value> BindMethod(Runtime& runtime, const Value& object, std::string_view name) {
  if ((object.Is(Kind::kInt) || object.Is(Kind::kBool)) && (name == "real" || name == "numerator")) {
    return Value::Integer(object.integer());
  }
  if (object.Is(Kind::kRange) && (name == "start" || name == "stop" || name == "step")) {
    const RangeObject& range = object.range();
    return Value::Integer(name == "start" ? range.start : name == "stop" ? range.stop : range.step);
  }
  const Builtin method = object.Is(Kind::kString) ? FindStringMethod(name) : FindContainerMethod(object.kind(), name);
  return method == nullptr ? Value() : MakeFunction(&runtime.budget, object, method, name);
}

bool ChangesObject(Kind kind, std::string_view name) {
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (kind == Kind::kDict) return is_one_of({"clear", "pop", "popitem", "setdefault", "update"});
  return kind == Kind::kList && is_one_of({"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"});
}

Result<Bound> Bind(const Arguments& arguments, std::string_view function,
                   std::initializer_list<std::string_view> parameters, size_t required) {
  Bound bound(parameters.size(), nullptr);
  if (arguments.positional.size() > parameters.size()) {
    return InvalidInput("{}() takes at most {} argument(s) ({} given)", function, parameters.size(),
                        arguments.positional.size());
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    if (found == parameters.end()) {
      return InvalidInput("{}() got an unexpected keyword argument '{}'", function, name);
    }
    const Value*& slot = bound[static_cast<size_t>(found - parameters.begin())];
    if (slot != nullptr) return InvalidInput("{}() got multiple values for argument '{}'", function, name);
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound[i] == nullptr) {
      return InvalidInput("{}() missing 1 required positional argument: '{}'", function, parameters.begin()[i]);
    }
  }
  return bound;
}

std::string EscapeHtml(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&#34;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::optional<double> ParseFloat(std::string_view text) {
  const std::optional<std::string> digits = Digits(text);
  if (!digits || digits->empty()) return std::nullopt;
  std::string lower = ToLower(*digits);
  const bool negative = lower[0] == '-';
  const std::string_view magnitude = std::string_view(lower).substr(lower[0] == '-' || lower[0] == '+' ? 1 : 0);
  if (magnitude == "inf" || magnitude == "infinity") return negative ? -HUGE_VAL : HUGE_VAL;
  if (magnitude == "nan") return std::nan("");
  if (magnitude.empty() || magnitude.find_first_not_of("0123456789.e+-") != std::string_view::npos) return std::nullopt;
  if (magnitude[0] == '+' || magnitude[0] == '-') return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(lower.c_str(), &end);
  if (end != lower.c_str() + lower.size()) return std::nullopt;
  return value;
}

std::optional<Int> ParseInt(std::string_view text, int base) {
  const std::optional<std::string> digits = Digits(text);
  if (!digits || digits->empty() || base < 0 || base == 1 || base > 36) return std::nullopt;
  std::string_view rest = *digits;
  const bool negative = rest[0] == '-';
  if (rest[0] == '-' || rest[0] == '+') rest.remove_prefix(1);
  if (rest.size() > 2 && rest[0] == '0') {
    const char mark = static_cast<char>(rest[1] | 0x20);
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == 0 || base == marked)) {
      base = marked;
      rest.remove_prefix(2);
    }
  }
  if (rest.empty()) return std::nullopt;
  if (base == 0) base = 10;
  Int value = 0;
  for (const char c : rest) {
    const char lower = static_cast<char>(c | 0x20);
    const int digit = c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
    if (digit >= base || __builtin_mul_overflow(value, static_cast<Int>(base), &value) ||
        __builtin_add_overflow(value, static_cast<Int>(digit), &value)) {
      return std::nullopt;
    }
  }
  return negative ? -value : value;
}

}  // namespace swiftkv::jinja
