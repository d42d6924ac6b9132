// What one rendering carries along: its budget, its depth, the line it is at, and the clock.
#ifndef SWIFTKV_TEXT_JINJA_RUNTIME_H_
#define SWIFTKV_TEXT_JINJA_RUNTIME_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/status.h"
#include "text/jinja/value.h"

namespace swiftkv::jinja {

class Runtime {
 public:
  Budget budget;
  int32_t depth = 0;
  int32_t max_depth = 0;
  int32_t line = 0;
  bool raised = false;  // the error is raise_exception's: its text is the template author's, to be passed on as it is
  std::optional<std::chrono::system_clock::time_point> now;

  Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime() {
    for (const Ref<Object>& object : kept_) object->Clear();
  }
  // For objects that may refer to themselves: keeps `object`, and clears it in the end.
  void Keep(Object* object) { kept_.emplace_back(object); }

  // One step of work; an error once a limit is reached.
  Status Step(int64_t count = 1) {
    if (budget.Spend(count)) return Ok();
    return Exhausted();
  }
  // The error once the budget is exhausted.
  tl::unexpected<Error> Exhausted() const {
    return ResourceExhausted("the template needs more than its limit of {}", budget.exhausted);
  }

 private:
  std::vector<Ref<Object>> kept_;
};

// Counts nested evaluation; ok() is false past the limit.
class DepthGuard {
 public:
  explicit DepthGuard(Runtime* runtime) : runtime_(runtime) {
    if (++runtime_->depth > runtime_->max_depth) runtime_->budget.Exhaust("depth");
  }
  ~DepthGuard() { --runtime_->depth; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Runtime* runtime_;
};

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_RUNTIME_H_
