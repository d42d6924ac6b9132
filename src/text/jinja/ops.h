// Operators, attributes, subscripts and iteration with Python's rules and messages.
#ifndef SWIFTKV_TEXT_JINJA_OPS_H_
#define SWIFTKV_TEXT_JINJA_OPS_H_

#include <string_view>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace swiftkv::jinja {

// The error of using an undefined value.
tl::unexpected<Error> UndefinedError(const Value& value);

Result<Value> Arithmetic(Runtime& runtime, Operator op, const Value& left, const Value& right);
Result<Value> Negate(const Value& value);
Result<Value> Positive(const Value& value);
Result<bool> Compare(Runtime& runtime, Operator op, const Value& left, const Value& right);
Result<bool> Less(Runtime& runtime, const Value& left, const Value& right);
Result<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

// object.name and object[key] as jinja2's sandbox resolves them: undefined where there is nothing.
Result<Value> GetAttribute(Runtime& runtime, const Value& object, const Value& name);
Result<Value> GetItem(Runtime& runtime, const Value& object, const Value& key);
// object[start:stop:step]; kNone where left out.
Result<Value> GetSlice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);

// len(value)
Result<int64_t> Length(const Value& value);
// An index or count from a template, as int64_t. Error: not an integer.
Result<int64_t> ToIndex(const Value& value);

// for item in value. The value must outlive the iterator, unless it is counted (every object is).
class Iterator {
 public:
  // Error: "'int' object is not iterable".
  static Result<Iterator> Over(const Value& value);
  // False at the end.
  Result<bool> Next(Runtime& runtime, Value* item);

 private:
  explicit Iterator(const Value& value) : value_(value) {}
  Value value_;
  size_t position_ = 0;
};

Result<std::vector<Value>> ToVector(Runtime& runtime, const Value& value);

// "..." of a part of the string `whole`, sharing its bytes.
Value Part(const Value& whole, std::string_view part);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_OPS_H_
