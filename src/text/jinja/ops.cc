#include "text/jinja/ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/unicode.h"

namespace swiftkv::jinja {
namespace {

std::string_view Symbol(Operator op) {
  constexpr std::string_view kSymbols[] = {
      "+", "-", "*", "/", "//", "%", "** or pow()", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSymbols[static_cast<size_t>(op)];
}

tl::unexpected<Error> Unsupported(Operator op, const Value& left, const Value& right) {
  return InvalidInput("unsupported operand type(s) for {}: '{}' and '{}'", Symbol(op), TypeName(left), TypeName(right));
}

tl::unexpected<Error> TooLarge() { return InvalidInput("the integer does not fit 128 bits"); }

Result<Value> IntegerPower(Runtime& runtime, Int base, Int exponent) {
  if (exponent < 0) {
    if (base == 0) return InvalidInput("0.0 cannot be raised to a negative power");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  Int result = 1;
  while (exponent > 0) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step());
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return TooLarge();
    exponent >>= 1;
    if (exponent > 0 && base != 0 && base != 1 && base != -1 && __builtin_mul_overflow(base, base, &base)) {
      return TooLarge();
    }
    if (base == -1) base = 1;
  }
  return Value::Integer(result);
}

Result<Value> IntegerArithmetic(Runtime& runtime, Operator op, Int a, Int b) {
  Int result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return TooLarge();
      return Value::Integer(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return TooLarge();
      return Value::Integer(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return TooLarge();
      return Value::Integer(result);
    case Operator::kDivide:
      if (b == 0) return InvalidInput("division by zero");
      return Value::Float(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case Operator::kFloorDivide:
    case Operator::kModulo: {
      if (b == 0) return InvalidInput("integer division or modulo by zero");
      if (b == -1)
        return op == Operator::kModulo ? Value::Integer(0) : IntegerArithmetic(runtime, Operator::kSubtract, 0, a);
      const bool round_down = a % b != 0 && (a % b < 0) != (b < 0);
      if (op == Operator::kModulo) return Value::Integer(round_down ? a % b + b : a % b);
      return Value::Integer(round_down ? a / b - 1 : a / b);
    }
    default:
      return IntegerPower(runtime, a, b);
  }
}

Result<Value> FloatPower(double a, double b) {
  if (a == 0 && b < 0) return InvalidInput("0.0 cannot be raised to a negative power");
  if (a < 0 && std::isfinite(a) && std::isfinite(b) && std::trunc(b) != b) {
    return InvalidInput("complex numbers are not supported");
  }
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
    return InvalidInput("(34, 'Numerical result out of range')");
  }
  return Value::Float(result);
}

Result<Value> FloatArithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSubtract:
      return Value::Float(a - b);
    case Operator::kMultiply:
      return Value::Float(a * b);
    case Operator::kDivide:
      if (b == 0) return InvalidInput("float division by zero");
      return Value::Float(a / b);
    case Operator::kPower:
      return FloatPower(a, b);
    default:
      break;
  }
  if (b == 0) return InvalidInput("{}", op == Operator::kModulo ? "float modulo" : "float floor division by zero");
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) {
    rest += b;
    quotient -= 1;
  } else if (rest == 0) {
    rest = std::copysign(0.0, b);
  }
  if (op == Operator::kModulo) return Value::Float(rest);
  if (quotient == 0) return Value::Float(std::copysign(0.0, a / b));
  const double floor = std::floor(quotient);
  return Value::Float(quotient - floor > 0.5 ? floor + 1 : floor);
}

Result<Value> ConcatStrings(Runtime& runtime, const Value& left, const Value& right) {
  const bool markup = left.markup() || right.markup();
  const std::string a = markup && !left.markup() ? EscapeHtml(left.text()) : std::string();
  const std::string b = markup && !right.markup() ? EscapeHtml(right.text()) : std::string();
  const std::string_view first = markup && !left.markup() ? a : left.text();
  const std::string_view second = markup && !right.markup() ? b : right.text();
  if (!runtime.budget.AllowString(first.size() + second.size())) return runtime.Exhausted();
  std::string text;
  text.reserve(first.size() + second.size());
  text += first;
  text += second;
  return Value::String(&runtime.budget, std::move(text), markup);
}

Result<Value> ConcatItems(Runtime& runtime, const Value& left, const Value& right) {
  if (!runtime.budget.AllowItems(left.items().size() + right.items().size())) {
    return runtime.Exhausted();
  }
  std::vector<Value> items;
  items.reserve(left.items().size() + right.items().size());
  items = left.items();
  items.insert(items.end(), right.items().begin(), right.items().end());
  return left.Is(Kind::kList) ? Value::List(&runtime.budget, std::move(items))
                              : Value::Tuple(&runtime.budget, std::move(items));
}

Result<Value> Repeat(Runtime& runtime, const Value& value, const Value& times) {
  const Int count = std::max<Int>(times.integer(), 0);
  const size_t size = value.Is(Kind::kString) ? value.text().size() : value.items().size();
  const Int total = size == 0 ? 0 : count > (Int{1} << 62) / static_cast<Int>(size) ? Int{1} << 62 : count * size;
  const auto length = static_cast<size_t>(total);
  if (value.Is(Kind::kString) ? !runtime.budget.AllowString(length) : !runtime.budget.AllowItems(length)) {
    return runtime.Exhausted();
  }
  if (value.Is(Kind::kString)) {
    std::string text;
    text.reserve(length);
    while (text.size() < length) text += value.text();
    return Value::String(&runtime.budget, std::move(text), value.markup());
  }
  std::vector<Value> items;
  items.reserve(length);
  while (items.size() < length) items.insert(items.end(), value.items().begin(), value.items().end());
  return value.Is(Kind::kList) ? Value::List(&runtime.budget, std::move(items))
                               : Value::Tuple(&runtime.budget, std::move(items));
}

// Items as Python compares sequences: by the first pair that differs.
Result<bool> LessItems(Runtime& runtime, Operator op, const std::vector<Value>& a, const std::vector<Value>& b) {
  const size_t common = std::min(a.size(), b.size());
  for (size_t i = 0; i < common; ++i) {
    if (!Equals(&runtime.budget, a[i], b[i])) return Compare(runtime, op, a[i], b[i]);
  }
  SWIFTKV_RETURN_IF_ERROR(runtime.Step());
  switch (op) {
    case Operator::kLess:
      return a.size() < b.size();
    case Operator::kLessEqual:
      return a.size() <= b.size();
    case Operator::kGreater:
      return a.size() > b.size();
    default:
      return a.size() >= b.size();
  }
}

template <class T>
bool Ordered(Operator op, const T& a, const T& b) {
  switch (op) {
    case Operator::kLess:
      return a < b;
    case Operator::kLessEqual:
      return a <= b;
    case Operator::kGreater:
      return a > b;
    default:
      return a >= b;
  }
}

Result<bool> Order(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  if (a.IsInteger() && b.IsInteger()) return Ordered(op, a.integer(), b.integer());
  if (a.IsNumber() && b.IsNumber()) {
    return Ordered(op, static_cast<long double>(a.Is(Kind::kFloat) ? a.real() : static_cast<long double>(a.integer())),
                   static_cast<long double>(b.Is(Kind::kFloat) ? b.real() : static_cast<long double>(b.integer())));
  }
  if (a.Is(Kind::kString) && b.Is(Kind::kString)) {
    runtime.budget.SpendBytes(std::min(a.text().size(), b.text().size()));
    return Ordered(op, a.text(), b.text());  // UTF-8 sorts as its code points do
  }
  if (a.IsSequence() && a.kind() == b.kind()) return LessItems(runtime, op, a.items(), b.items());
  if (a.Is(Kind::kUndefined)) return UndefinedError(a);
  if (b.Is(Kind::kUndefined)) return UndefinedError(b);
  return InvalidInput("'{}' not supported between instances of '{}' and '{}'", Symbol(op), TypeName(a), TypeName(b));
}

bool FindsText(Runtime& runtime, std::string_view text, std::string_view part) {
  runtime.budget.SpendBytes(text.size());
  return part.empty() || memmem(text.data(), text.size(), part.data(), part.size()) != nullptr;
}

Result<bool> ContainsByIterating(Runtime& runtime, const Value& container, const Value& item) {
  SWIFTKV_ASSIGN_OR_RETURN(Iterator iterator, Iterator::Over(container));
  Value candidate;
  while (true) {
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, iterator.Next(runtime, &candidate));
    if (!more) return false;
    if (Equals(&runtime.budget, candidate, item)) return true;
  }
}

bool IsDunderOfEveryObject(std::string_view name) {
  return name.size() > 4 && name.substr(0, 2) == "__" && name.substr(name.size() - 2) == "__";
}

Value UnsafeAttribute(Runtime& runtime, const Value& object, std::string_view name) {
  std::string quoted, type;
  AppendStringRepr(&quoted, name);
  AppendStringRepr(&type, TypeName(object));
  return Value::UndefinedBecause(
      Value::String(&runtime.budget, "access to attribute " + quoted + " of " + type + " object is unsafe."));
}

// What Python's getattr finds, before the sandbox; kMissing if nothing.
Result<Value> OwnAttribute(Runtime& runtime, const Value& object, const Value& name) {
  if (object.Is(Kind::kNamespace)) {
    const Value* found = object.dict().Find(&runtime.budget, name);
    return found != nullptr ? *found : Value();
  }
  if (IsDunderOfEveryObject(name.text())) return UnsafeAttribute(runtime, object, name.text());
  if (object.Is(Kind::kFunction)) {
    Value value;
    SWIFTKV_RETURN_IF_ERROR(object.function().Attribute(runtime, name.text(), &value));
    return value;
  }
  if (ChangesObject(object.kind(), name.text())) return UnsafeAttribute(runtime, object, name.text());
  return BindMethod(runtime, object, name.text());
}

// Start, stop and step of a slice over `size` items, as Python adjusts them. Returns the number of items.
Result<int64_t> AdjustSlice(int64_t size, const Value& start, const Value& stop, const Value& step, int64_t* first,
                            int64_t* by) {
  for (const Value* part : {&start, &stop, &step}) {
    if (part->Is(Kind::kUndefined)) return UndefinedError(*part);
    if (!part->IsInteger() && !part->Is(Kind::kNone)) {
      return InvalidInput("slice indices must be integers or None or have an __index__ method");
    }
  }
  const auto clamp = [](Int value) {
    return static_cast<int64_t>(
        std::clamp<Int>(value, std::numeric_limits<int64_t>::min() / 4, std::numeric_limits<int64_t>::max() / 4));
  };
  *by = step.Is(Kind::kNone) ? 1 : clamp(step.integer());
  if (*by == 0) return InvalidInput("slice step cannot be zero");
  const int64_t low = *by > 0 ? 0 : -1, high = *by > 0 ? size : size - 1;
  const auto adjust = [&](const Value& value, int64_t absent) {
    if (value.Is(Kind::kNone)) return absent;
    const int64_t index = clamp(value.integer());
    return std::clamp(index < 0 ? index + size : index, low, high);
  };
  *first = adjust(start, *by > 0 ? low : high);
  const int64_t end = adjust(stop, *by > 0 ? high : low);
  if (*by > 0) return *first < end ? (end - *first - 1) / *by + 1 : 0;
  return end < *first ? (*first - end - 1) / -*by + 1 : 0;
}

Result<Value> SliceString(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
                          const Value& step) {
  const std::string_view text = object.text();
  runtime.budget.SpendBytes(text.size());
  const auto size = static_cast<int64_t>(CountChars(text));
  int64_t first = 0, by = 1;
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t count, AdjustSlice(size, start, stop, step, &first, &by));
  const bool ascii = static_cast<size_t>(size) == text.size();
  if (by == 1) {
    const size_t begin = ascii ? static_cast<size_t>(first) : CharOffset(text, static_cast<size_t>(first));
    const std::string_view rest = text.substr(begin);
    const size_t bytes = ascii ? static_cast<size_t>(count) : CharOffset(rest, static_cast<size_t>(count));
    return Part(object, rest.substr(0, bytes));
  }
  std::vector<size_t> offsets;  // of the characters, where they are not one byte each
  if (!ascii) {
    for (size_t i = 0, length; i < text.size(); i += length) {
      offsets.push_back(i);
      CharAt(text, i, &length);
    }
  }
  std::string result;
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(first + i * by);
    if (ascii) {
      result += text[at];
    } else {
      size_t length;
      CharAt(text, offsets[at], &length);
      result += text.substr(offsets[at], length);
    }
  }
  return Value::String(&runtime.budget, std::move(result), object.markup());
}

Result<Value> IndexString(Runtime& runtime, const Value& object, Int index) {
  const std::string_view text = object.text();
  runtime.budget.SpendBytes(text.size());
  const auto size = static_cast<Int>(CountChars(text));
  if (index < 0) index += size;
  if (index < 0 || index >= size) return Value();
  const size_t begin = static_cast<size_t>(size) == text.size() ? static_cast<size_t>(index)
                                                                : CharOffset(text, static_cast<size_t>(index));
  size_t length;
  CharAt(text, begin, &length);
  return Part(object, text.substr(begin, length));
}

// object[key] by Python alone; kMissing where it would raise TypeError or LookupError.
Result<Value> Subscript(Runtime& runtime, const Value& object, const Value& key) {
  if (object.Is(Kind::kDict)) {
    if (!CheckHashable(&runtime.budget, key)) return Value();
    const Value* found = object.dict().Find(&runtime.budget, key);
    return found != nullptr ? *found : Value();
  }
  if (!key.IsInteger()) return Value();
  Int index = key.integer();
  if (object.Is(Kind::kString)) return IndexString(runtime, object, index);
  if (!object.IsSequence() && !object.Is(Kind::kRange)) return Value();
  const Int size = object.IsSequence() ? static_cast<Int>(object.items().size()) : object.range().size();
  if (index < 0) index += size;
  if (index < 0 || index >= size) return Value();
  if (object.Is(Kind::kRange)) return Value::Integer(object.range().At(static_cast<int64_t>(index)));
  return object.items()[static_cast<size_t>(index)];
}

}  // namespace

tl::unexpected<Error> UndefinedError(const Value& value) { return InvalidInput("{}", value.UndefinedMessage()); }

Result<Value> Arithmetic(Runtime& runtime, Operator op, const Value& left, const Value& right) {
  if (left.IsNumber() && right.IsNumber()) {
    if (left.IsInteger() && right.IsInteger()) return IntegerArithmetic(runtime, op, left.integer(), right.integer());
    return FloatArithmetic(op, left.number(), right.number());
  }
  if (op == Operator::kModulo && left.Is(Kind::kString)) return FormatPercent(runtime, left, right);
  if (left.Is(Kind::kUndefined)) return UndefinedError(left);
  if (right.Is(Kind::kUndefined)) return UndefinedError(right);
  if (op == Operator::kAdd) {
    if (left.Is(Kind::kString) && right.Is(Kind::kString)) return ConcatStrings(runtime, left, right);
    if (left.IsSequence() && left.kind() == right.kind()) return ConcatItems(runtime, left, right);
    if (left.Is(Kind::kString) || left.IsSequence()) {
      return InvalidInput("can only concatenate {} (not \"{}\") to {}", TypeName(left), TypeName(right),
                          TypeName(left));
    }
  }
  if (op == Operator::kMultiply) {
    const bool repeats_left = left.Is(Kind::kString) || left.IsSequence();
    const bool repeats_right = right.Is(Kind::kString) || right.IsSequence();
    if (repeats_left && right.IsInteger()) return Repeat(runtime, left, right);
    if (repeats_right && left.IsInteger()) return Repeat(runtime, right, left);
    if (repeats_left || repeats_right) {
      return InvalidInput("can't multiply sequence by non-int of type '{}'", TypeName(repeats_left ? right : left));
    }
  }
  return Unsupported(op, left, right);
}

Result<Value> Negate(const Value& value) {
  if (value.Is(Kind::kFloat)) return Value::Float(-value.real());
  if (value.Is(Kind::kUndefined)) return UndefinedError(value);
  if (!value.IsInteger()) return InvalidInput("bad operand type for unary -: '{}'", TypeName(value));
  Int result;
  if (__builtin_sub_overflow(Int{0}, value.integer(), &result)) return TooLarge();
  return Value::Integer(result);
}

Result<Value> Positive(const Value& value) {
  if (value.Is(Kind::kFloat)) return value;
  if (value.IsInteger()) return Value::Integer(value.integer());
  if (value.Is(Kind::kUndefined)) return UndefinedError(value);
  return InvalidInput("bad operand type for unary +: '{}'", TypeName(value));
}

Result<bool> Compare(Runtime& runtime, Operator op, const Value& left, const Value& right) {
  switch (op) {
    case Operator::kEqual:
      return Equals(&runtime.budget, left, right);
    case Operator::kNotEqual:
      return !Equals(&runtime.budget, left, right);
    case Operator::kIn:
      return Contains(runtime, right, left);
    case Operator::kNotIn:
      return Contains(runtime, right, left).map([](bool contains) { return !contains; });
    default:
      SWIFTKV_RETURN_IF_ERROR(runtime.Step());
      return Order(runtime, op, left, right);
  }
}

Result<bool> Less(Runtime& runtime, const Value& left, const Value& right) {
  return Compare(runtime, Operator::kLess, left, right);
}

Result<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.Is(Kind::kString)) {
        return InvalidInput("'in <string>' requires string as left operand, not {}", TypeName(item));
      }
      return FindsText(runtime, container.text(), item.text());
    case Kind::kDict:
      SWIFTKV_RETURN_IF_ERROR(CheckHashable(&runtime.budget, item));
      return container.dict().Find(&runtime.budget, item) != nullptr;
    case Kind::kDictView:
      if (container.view().part == DictViewObject::Part::kKeys) return Contains(runtime, container.view().dict, item);
      return ContainsByIterating(runtime, container, item);
    case Kind::kUndefined:
      return false;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kGenerator:
      return ContainsByIterating(runtime, container, item);
    default:
      return InvalidInput("argument of type '{}' is not iterable", TypeName(container));
  }
}

Result<Value> GetAttribute(Runtime& runtime, const Value& object, const Value& name) {
  if (object.Is(Kind::kUndefined)) return UndefinedError(object);
  SWIFTKV_ASSIGN_OR_RETURN(Value found, OwnAttribute(runtime, object, name));
  if (!found.Is(Kind::kMissing)) return found;
  if (object.Is(Kind::kDict)) {
    if (const Value* entry = object.dict().Find(&runtime.budget, name); entry != nullptr) return *entry;
  }
  return Value::Undefined(name, object.kind());
}

Result<Value> GetItem(Runtime& runtime, const Value& object, const Value& key) {
  if (object.Is(Kind::kUndefined)) return UndefinedError(object);
  SWIFTKV_ASSIGN_OR_RETURN(Value found, Subscript(runtime, object, key));
  if (!found.Is(Kind::kMissing)) return found;
  if (key.Is(Kind::kString)) {
    SWIFTKV_ASSIGN_OR_RETURN(found, OwnAttribute(runtime, object, key));
    return found.Is(Kind::kMissing) ? Value::Undefined(key, object.kind()) : found;
  }
  const std::string_view type = TypeName(object);
  std::string message = (object.Is(Kind::kNone) ? std::string("None") : std::string(type) + " object") +
                        " has no element " + Repr(&runtime.budget, key);
  return Value::UndefinedBecause(Value::String(&runtime.budget, std::move(message)));
}

Result<Value> GetSlice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
                       const Value& step) {
  if (object.Is(Kind::kUndefined)) return UndefinedError(object);
  if (object.Is(Kind::kString)) return SliceString(runtime, object, start, stop, step);
  int64_t first = 0, by = 1;
  if (object.Is(Kind::kRange)) {
    const RangeObject& range = object.range();
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t count, AdjustSlice(range.size(), start, stop, step, &first, &by));
    const Int begin = range.start + range.step * first, stride = range.step * by;
    return Value::FromObject(Kind::kRange, new RangeObject(&runtime.budget, begin, begin + stride * count, stride));
  }
  if (object.Is(Kind::kDict)) return InvalidInput("unhashable type: 'slice'");
  if (!object.IsSequence()) return InvalidInput("'{}' object is not subscriptable", TypeName(object));
  const auto size = static_cast<int64_t>(object.items().size());
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t count, AdjustSlice(size, start, stop, step, &first, &by));
  SWIFTKV_RETURN_IF_ERROR(runtime.Step(count >> 3));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) items.push_back(object.items()[static_cast<size_t>(first + i * by)]);
  return object.Is(Kind::kList) ? Value::List(&runtime.budget, std::move(items))
                                : Value::Tuple(&runtime.budget, std::move(items));
}

Result<int64_t> Length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return static_cast<int64_t>(CountChars(value.text()));
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().size());
    case Kind::kDictView:
      return static_cast<int64_t>(value.view().dict.dict().size());
    case Kind::kRange:
      return value.range().size();
    default:
      return InvalidInput("object of type '{}' has no len()", TypeName(value));
  }
}

Result<int64_t> ToIndex(const Value& value) {
  if (value.Is(Kind::kUndefined)) return UndefinedError(value);
  if (!value.IsInteger()) return InvalidInput("'{}' object cannot be interpreted as an integer", TypeName(value));
  return static_cast<int64_t>(
      std::clamp<Int>(value.integer(), std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()));
}

Result<Iterator> Iterator::Over(const Value& value) {
  switch (value.kind()) {
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kNamespace:
    case Kind::kFunction:
      return InvalidInput("'{}' object is not iterable", TypeName(value));
    default:
      return Iterator(value);
  }
}

Result<bool> Iterator::Next(Runtime& runtime, Value* item) {
  SWIFTKV_RETURN_IF_ERROR(runtime.Step());
  size_t size = 0;
  switch (value_.kind()) {
    case Kind::kString: {
      if (position_ >= value_.text().size()) return false;
      size_t length;
      CharAt(value_.text(), position_, &length);
      *item = Part(value_, value_.text().substr(position_, length));
      if (item->markup()) *item = Value::Text(item->text(), item->object());  // iterating Markup gives plain strings
      position_ += length;
      return true;
    }
    case Kind::kList:
    case Kind::kTuple:
      size = value_.items().size();
      if (position_ < size) *item = value_.items()[position_];
      break;
    case Kind::kDict:
      size = value_.dict().size();
      if (position_ < size) *item = value_.dict().entries()[position_].first;
      break;
    case Kind::kDictView:
      size = value_.view().dict.dict().size();
      if (position_ < size) *item = value_.view().At(position_);
      break;
    case Kind::kRange:
      size = static_cast<size_t>(value_.range().size());
      if (position_ < size) *item = Value::Integer(value_.range().At(static_cast<int64_t>(position_)));
      break;
    case Kind::kGenerator: {
      DepthGuard guard(&runtime);
      SWIFTKV_RETURN_IF_ERROR(runtime.Step());
      return value_.generator().next(item);
    }
    default:
      break;
  }
  return position_++ < size;
}

Result<std::vector<Value>> ToVector(Runtime& runtime, const Value& value) {
  if (value.IsSequence()) {
    SWIFTKV_RETURN_IF_ERROR(runtime.Step(static_cast<int64_t>(value.items().size() >> 3)));
    return value.items();
  }
  SWIFTKV_ASSIGN_OR_RETURN(Iterator iterator, Iterator::Over(value));
  std::vector<Value> items;
  Value item;
  while (true) {
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, iterator.Next(runtime, &item));
    if (!more) return items;
    items.push_back(std::move(item));
    if (items.size() % 4096 == 0) runtime.budget.AllowItems(items.size());
  }
}

Value Part(const Value& whole, std::string_view part) { return Value::Text(part, whole.object(), whole.markup()); }

}  // namespace swiftkv::jinja
