// The special variable `loop` of a for loop, which also delivers the loop's items: looking ahead (loop.last) takes
// from the same source.
#ifndef SWIFTKV_TEXT_JINJA_LOOP_H_
#define SWIFTKV_TEXT_JINJA_LOOP_H_

#include <functional>

#include "text/jinja/ops.h"

namespace swiftkv::jinja {

class LoopObject : public FunctionObject {
 public:
  LoopObject(Budget* budget, const Value& iterable, Iterator iterator, int64_t depth);

  // Only items that pass are seen ("for ... if ...").
  void SetTest(std::function<Result<bool>(const Value&)> test) { test_ = std::move(test); }
  // What loop(items) renders ("for ... recursive").
  void SetRecursion(std::function<Result<Value>(const Value&)> recursion) { recursion_ = std::move(recursion); }
  // The next item; false at the end.
  Result<bool> Next(Runtime& runtime, Value* item);
  // The loop is over: the object may live on in a namespace, but must not run the template any more.
  void Finish();

  Result<Value> Call(Runtime& runtime, const Arguments& arguments) override;
  Result<bool> Attribute(Runtime& runtime, std::string_view name, Value* value) override;
  std::string Repr() const override { return "<LoopContext>"; }
  Result<Value> Cycle(const Arguments& arguments) const;
  Result<Value> Changed(Runtime& runtime, const Arguments& arguments);

 private:
  Result<bool> Fetch(Runtime& runtime, Value* item);
  Status LookAhead(Runtime& runtime);
  Result<int64_t> CountItems(Runtime& runtime);

  Value iterable_;
  Iterator iterator_;
  std::function<Result<bool>(const Value&)> test_;
  std::function<Result<Value>(const Value&)> recursion_;
  int64_t depth0_;
  int64_t index0_ = -1;
  int64_t length_ = -1;
  Value after_;  // kMissing unless fetched ahead
  Value current_;
  Value before_;
  Value last_changed_;
};

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_LOOP_H_
