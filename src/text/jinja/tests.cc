// The tests of "value is test".
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/ops.h"
#include "text/jinja/unicode.h"

namespace swiftkv::jinja {
namespace {

template <bool (*Predicate)(const Value&)>
Result<Value> Simple(Runtime&, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "test", {}, 0));
  return Value::Bool(Predicate(self));
}

bool IsDefined(const Value& value) { return !value.Is(Kind::kUndefined); }
bool IsUndefined(const Value& value) { return value.Is(Kind::kUndefined); }
bool IsNone(const Value& value) { return value.Is(Kind::kNone); }
bool IsBoolean(const Value& value) { return value.Is(Kind::kBool); }
bool IsTrue(const Value& value) { return value.Is(Kind::kBool) && value.boolean(); }
bool IsFalse(const Value& value) { return value.Is(Kind::kBool) && !value.boolean(); }
bool IsIntegerValue(const Value& value) { return value.Is(Kind::kInt); }
bool IsFloatValue(const Value& value) { return value.Is(Kind::kFloat); }
bool IsNumberValue(const Value& value) { return value.IsNumber(); }
bool IsString(const Value& value) { return value.Is(Kind::kString); }
bool IsMapping(const Value& value) { return value.Is(Kind::kDict); }
bool IsCallable(const Value& value) { return value.Is(Kind::kFunction) || value.Is(Kind::kUndefined); }
bool IsEscaped(const Value& value) { return value.Is(Kind::kString) && value.markup(); }
bool IsIterable(const Value& value) { return Iterator::Over(value).has_value(); }

// Has a length and can be subscripted.
bool IsSequence(const Value& value) {
  return value.IsSequence() || value.Is(Kind::kString) || value.Is(Kind::kDict) || value.Is(Kind::kRange) ||
         value.Is(Kind::kUndefined);
}

template <Operator op>
Result<Value> Comparison(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "test", {"other"}, 1));
  SWIFTKV_ASSIGN_OR_RETURN(const bool holds, Compare(runtime, op, self, *bound[0]));
  return Value::Bool(holds);
}

Result<Value> RemainderIs(Runtime& runtime, const Value& self, const Value& divisor, Int remainder) {
  SWIFTKV_ASSIGN_OR_RETURN(const Value rest, Arithmetic(runtime, Operator::kModulo, self, divisor));
  return Value::Bool(Equals(&runtime.budget, rest, Value::Integer(remainder)));
}

Result<Value> IsOdd(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "odd", {}, 0));
  return RemainderIs(runtime, self, Value::Integer(2), 1);
}

Result<Value> IsEven(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "even", {}, 0));
  return RemainderIs(runtime, self, Value::Integer(2), 0);
}

Result<Value> IsDivisibleBy(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "divisibleby", {"num"}, 1));
  return RemainderIs(runtime, self, *bound[0], 0);
}

Result<Value> IsSameAs(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "sameas", {"other"}, 1));
  const Value& other = *bound[0];
  if (self.kind() != other.kind()) return Value::Bool(false);
  const bool scalar = self.object() == nullptr || self.Is(Kind::kString);
  return Value::Bool(scalar ? Equals(&runtime.budget, self, other) : self.object() == other.object());
}

// str.islower and str.isupper: at least one letter with a case, and none of the other case.
template <bool lower>
Result<Value> HasCase(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, lower ? "lower" : "upper", {}, 0));
  const Value text = Value::String(&runtime.budget, Str(&runtime.budget, self));
  return FindStringMethod(lower ? "islower" : "isupper")(runtime, text, Arguments());
}

template <Builtin (*Find)(std::string_view)>
Result<Value> IsNameOf(Runtime& runtime, const Value& self, const Arguments& arguments) {
  SWIFTKV_RETURN_IF_ERROR(Bind(arguments, "test", {}, 0));
  SWIFTKV_RETURN_IF_ERROR(CheckHashable(&runtime.budget, self));
  return Value::Bool(self.Is(Kind::kString) && Find(self.text()) != nullptr);
}

constexpr NamedBuiltin kTests[] = {
    {"defined", Simple<IsDefined>},
    {"string", Simple<IsString>},
    {"none", Simple<IsNone>},
    {"mapping", Simple<IsMapping>},
    {"iterable", Simple<IsIterable>},
    {"sequence", Simple<IsSequence>},
    {"undefined", Simple<IsUndefined>},
    {"boolean", Simple<IsBoolean>},
    {"true", Simple<IsTrue>},
    {"false", Simple<IsFalse>},
    {"integer", Simple<IsIntegerValue>},
    {"float", Simple<IsFloatValue>},
    {"number", Simple<IsNumberValue>},
    {"callable", Simple<IsCallable>},
    {"escaped", Simple<IsEscaped>},
    {"odd", IsOdd},
    {"even", IsEven},
    {"divisibleby", IsDivisibleBy},
    {"sameas", IsSameAs},
    {"lower", HasCase<true>},
    {"upper", HasCase<false>},
    {"filter", IsNameOf<FindFilter>},
    {"test", IsNameOf<FindTest>},
    {"in", Comparison<Operator::kIn>},
    {"eq", Comparison<Operator::kEqual>},
    {"equalto", Comparison<Operator::kEqual>},
    {"==", Comparison<Operator::kEqual>},
    {"ne", Comparison<Operator::kNotEqual>},
    {"!=", Comparison<Operator::kNotEqual>},
    {"lt", Comparison<Operator::kLess>},
    {"lessthan", Comparison<Operator::kLess>},
    {"<", Comparison<Operator::kLess>},
    {"le", Comparison<Operator::kLessEqual>},
    {"<=", Comparison<Operator::kLessEqual>},
    {"gt", Comparison<Operator::kGreater>},
    {"greaterthan", Comparison<Operator::kGreater>},
    {">", Comparison<Operator::kGreater>},
    {"ge", Comparison<Operator::kGreaterEqual>},
    {">=", Comparison<Operator::kGreaterEqual>},
};

}  // namespace

Builtin FindTest(std::string_view name) { return FindIn(std::begin(kTests), std::end(kTests), name); }

}  // namespace swiftkv::jinja
