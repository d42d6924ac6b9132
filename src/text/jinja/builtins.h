// What templates find ready-made: filters, tests, methods of strings, lists and dicts, global functions.
#ifndef SWIFTKV_TEXT_JINJA_BUILTINS_H_
#define SWIFTKV_TEXT_JINJA_BUILTINS_H_

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"

namespace swiftkv::jinja {

// nullptr if there is none of that name.
Builtin FindFilter(std::string_view name);
Builtin FindTest(std::string_view name);
Builtin FindGlobal(std::string_view name);

// The tables behind them, by file.
struct NamedBuiltin {
  std::string_view name;
  Builtin function;
};
Builtin FindIn(const NamedBuiltin* begin, const NamedBuiltin* end, std::string_view name);
Builtin FindScalarFilter(std::string_view name);
Builtin FindSequenceFilter(std::string_view name);
Builtin FindStringMethod(std::string_view name);
Builtin FindContainerMethod(Kind kind, std::string_view name);

// The method `name` of `object`, or kMissing.
Result<Value> BindMethod(Runtime& runtime, const Value& object, std::string_view name);
// A function that applies `function` to `self`.
Value MakeFunction(Budget* budget, const Value& self, Builtin function, std::string_view name);
// Would the method change the object? The sandbox refuses those.
bool ChangesObject(Kind kind, std::string_view name);

// Arguments in the order of the parameters' names; nullptr where not given.
// Errors as Python's: too many, unknown, or fewer than `required`.
using Bound = std::vector<const Value*>;
Result<Bound> Bind(const Arguments& arguments, std::string_view function,
                   std::initializer_list<std::string_view> parameters, size_t required);

// markupsafe.escape
std::string EscapeHtml(std::string_view text);

// "..." % arguments
Result<Value> FormatPercent(Runtime& runtime, const Value& format, const Value& arguments);
// "...".format(arguments)
Result<Value> FormatBraces(Runtime& runtime, const Value& format, const Arguments& arguments);
// format(value, specification), of str.format and its fields.
Status FormatValue(Runtime& runtime, std::string* out, const Value& value, std::string_view specification);

// float(text), int(text, base) as Python reads them.
std::optional<double> ParseFloat(std::string_view text);
std::optional<Int> ParseInt(std::string_view text, int base);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_BUILTINS_H_
