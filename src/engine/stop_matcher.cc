#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace swiftkv {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    Pattern pattern{.text = stop, .border = std::vector<int32_t>(stop.size(), 0)};
    for (size_t i = 1; i < stop.size(); ++i) {
      int32_t length = pattern.border[i - 1];
      while (length > 0 && stop[i] != stop[length]) length = pattern.border[length - 1];
      pattern.border[i] = length + (stop[i] == stop[length] ? 1 : 0);
    }
    patterns_.push_back(std::move(pattern));
  }
}

bool StopMatcher::Pattern::Advance(char byte) {
  while (state > 0 && byte != text[state]) state = border[state - 1];
  if (byte == text[state]) ++state;
  return state == static_cast<int32_t>(text.size());
}

std::string StopMatcher::Push(std::string_view piece, bool may_match) {
  if (matched_ >= 0) return {};
  for (const char byte : piece) {
    held_.push_back(byte);
    for (size_t i = 0; i < patterns_.size(); ++i) {
      Pattern& pattern = patterns_[i];
      if (!pattern.Advance(byte)) continue;
      if (!may_match) {
        pattern.state = pattern.border.back();
      } else if (matched_ < 0 || pattern.text.size() > patterns_[matched_].text.size()) {
        matched_ = static_cast<int32_t>(i);
      }
    }
    if (matched_ >= 0) {
      held_.resize(held_.size() - patterns_[matched_].text.size());
      return std::exchange(held_, {});
    }
  }
  size_t waiting = 0;
  for (const Pattern& pattern : patterns_) waiting = std::max(waiting, static_cast<size_t>(pattern.state));
  std::string certain = held_.substr(0, held_.size() - waiting);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace swiftkv
