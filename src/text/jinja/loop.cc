#include "text/jinja/loop.h"

#include "text/jinja/builtins.h"

namespace swiftkv::jinja {
namespace {

LoopObject& Self(const Value& self) { return static_cast<LoopObject&>(self.function()); }

Result<Value> CallCycle(Runtime&, const Value& self, const Arguments& arguments) { return Self(self).Cycle(arguments); }

Result<Value> CallChanged(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return Self(self).Changed(runtime, arguments);
}

}  // namespace

LoopObject::LoopObject(Budget* budget, const Value& iterable, Iterator iterator, int64_t depth)
    : FunctionObject(budget, 320), iterable_(iterable), iterator_(std::move(iterator)), depth0_(depth) {
  SetNesting(iterable.nesting() + 1);
}

Result<bool> LoopObject::Fetch(Runtime& runtime, Value* item) {
  while (true) {
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, iterator_.Next(runtime, item));
    if (!more || !test_) return more;
    SWIFTKV_ASSIGN_OR_RETURN(const bool passes, test_(*item));
    if (passes) return true;
  }
}

Result<bool> LoopObject::Next(Runtime& runtime, Value* item) {
  if (!after_.Is(Kind::kMissing)) {
    *item = std::exchange(after_, Value());
  } else {
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, Fetch(runtime, item));
    if (!more) return false;
  }
  ++index0_;
  before_ = std::exchange(current_, *item);
  return true;
}

void LoopObject::Finish() {
  test_ = nullptr;
  recursion_ = nullptr;
  iterable_ = after_ = current_ = before_ = last_changed_ = Value();
  iterator_ = *Iterator::Over(Value());
}

Status LoopObject::LookAhead(Runtime& runtime) {
  if (!after_.Is(Kind::kMissing)) return Ok();
  Value item;
  SWIFTKV_ASSIGN_OR_RETURN(const bool more, Fetch(runtime, &item));
  if (more) after_ = std::move(item);
  return Ok();
}

Result<int64_t> LoopObject::CountItems(Runtime& runtime) {
  if (length_ >= 0) return length_;
  if (auto length = Length(iterable_); length && !test_) {
    length_ = *length;
    return length_;
  }
  // No length of its own: take all that is left.
  std::vector<Value> rest;
  Value item;
  while (true) {
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, Fetch(runtime, &item));
    if (!more) break;
    rest.push_back(std::move(item));
  }
  length_ = static_cast<int64_t>(rest.size()) + index0_ + 1 + (after_.Is(Kind::kMissing) ? 0 : 1);
  test_ = nullptr;
  iterator_ = *Iterator::Over(Value::List(&runtime.budget, std::move(rest)));
  return length_;
}

Result<Value> LoopObject::Call(Runtime&, const Arguments& arguments) {
  if (!recursion_) return InvalidInput("The loop must have the 'recursive' marker to be called recursively.");
  SWIFTKV_ASSIGN_OR_RETURN(const Bound bound, Bind(arguments, "loop", {"iterable"}, 1));
  return recursion_(*bound[0]);
}

Result<bool> LoopObject::Attribute(Runtime& runtime, std::string_view name, Value* value) {
  if (name == "index0") {
    *value = Value::Integer(index0_);
  } else if (name == "index") {
    *value = Value::Integer(index0_ + 1);
  } else if (name == "first") {
    *value = Value::Bool(index0_ == 0);
  } else if (name == "last") {
    SWIFTKV_RETURN_IF_ERROR(LookAhead(runtime));
    *value = Value::Bool(after_.Is(Kind::kMissing));
  } else if (name == "length" || name == "revindex" || name == "revindex0") {
    SWIFTKV_ASSIGN_OR_RETURN(const int64_t length, CountItems(runtime));
    *value = Value::Integer(name == "length" ? length : name == "revindex" ? length - index0_ : length - index0_ - 1);
  } else if (name == "previtem") {
    *value = index0_ == 0 || before_.Is(Kind::kMissing)
                 ? Value::UndefinedBecause(Value::Text("there is no previous item"))
                 : before_;
  } else if (name == "nextitem") {
    SWIFTKV_RETURN_IF_ERROR(LookAhead(runtime));
    *value = after_.Is(Kind::kMissing) ? Value::UndefinedBecause(Value::Text("there is no next item")) : after_;
  } else if (name == "depth" || name == "depth0") {
    *value = Value::Integer(name == "depth" ? depth0_ + 1 : depth0_);
  } else if (name == "cycle" || name == "changed") {
    *value = MakeFunction(&runtime.budget, Value::FromObject(Kind::kFunction, this),
                          name == "cycle" ? CallCycle : CallChanged, name);
  } else {
    return false;
  }
  return true;
}

Result<Value> LoopObject::Cycle(const Arguments& arguments) const {
  const auto& items = arguments.positional;
  if (items.empty()) return InvalidInput("no items for cycling given");
  return items[static_cast<size_t>(index0_) % items.size()];
}

Result<Value> LoopObject::Changed(Runtime& runtime, const Arguments& arguments) {
  const Value now = Value::Tuple(&runtime.budget, arguments.positional);
  const bool changed = !Equals(&runtime.budget, last_changed_, now);
  last_changed_ = now;
  return Value::Bool(changed);
}

}  // namespace swiftkv::jinja
