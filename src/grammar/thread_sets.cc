#include "grammar/thread_sets.h"

#include <algorithm>

namespace swiftkv {

ThreadSets::ThreadSets(const Automaton& automaton) : automaton_(automaton), frames_(1) { Clear(); }

void ThreadSets::Clear() {
  ids_.clear();
  sets_.clear();
  next_.clear();
  Intern({});  // kDead
}

int32_t ThreadSets::Start() {
  seen_.clear();
  Set set;
  Expand({automaton_.start(), 0}, &set);
  return Intern(std::move(set));
}

int32_t ThreadSets::Of(std::span<const Thread> threads) {
  Set set;
  set.threads.assign(threads.begin(), threads.end());
  set.at_end = std::any_of(threads.begin(), threads.end(), [](const Thread& t) { return t.state == kEnd; });
  return Intern(std::move(set));
}

int32_t ThreadSets::Compute(int32_t from, uint8_t byte) {
  seen_.clear();
  Set set;
  set.overflowed = Overflowed(from);
  for (const Thread& thread : threads(from)) {
    if (thread.state == kEnd) continue;
    for (const Automaton::ByteEdge& edge : automaton_.edges(thread.state)) {
      if (edge.first <= byte && byte <= edge.last) Expand({edge.target, thread.stack}, &set);
    }
  }
  const int32_t to = set.threads.empty() ? kDead : Intern(std::move(set));
  next_[static_cast<size_t>(from)][byte] = to;
  return to;
}

int32_t ThreadSets::Intern(Set set) {
  const auto [found, added] = ids_.try_emplace(std::move(set), static_cast<int32_t>(sets_.size()));
  if (added) {
    sets_.push_back(&found->first);
    next_.emplace_back().fill(kUnknown);
  }
  return found->second;
}

int32_t ThreadSets::Push(int32_t return_state, int32_t below) {
  const auto [found, added] = stacks_.try_emplace(Key(return_state, below), static_cast<int32_t>(frames_.size()));
  if (added) frames_.push_back({return_state, below});
  return found->second;
}

// Adds the threads that `thread` becomes without reading: those in states that read a byte, or at the end.
void ThreadSets::Expand(Thread first, Set* set) {
  constexpr size_t kMaxSeen = 4096;  // bounds the work where many states lead to few that read
  work_.assign(1, first);
  while (!work_.empty()) {
    if (set->threads.size() >= kMaxThreads || (seen_.size() >= kMaxSeen && !set->threads.empty())) {
      set->overflowed = true;
      return;
    }
    const Thread thread = work_.back();
    work_.pop_back();
    if (!seen_.insert(Key(thread.state, thread.stack)).second) continue;
    if (thread.state == kEnd) {
      set->threads.push_back(thread);
      set->at_end = true;
      continue;
    }
    if (!automaton_.edges(thread.state).empty()) set->threads.push_back(thread);
    const std::span<const Automaton::Jump> jumps = automaton_.jumps(thread.state);
    for (size_t i = jumps.size(); i-- > 0;) {  // the first jump is followed first
      const Automaton::Jump& jump = jumps[i];
      work_.push_back(jump.call == Automaton::kNoCall ? Thread{jump.target, thread.stack}
                                                      : Thread{jump.call, Push(jump.target, thread.stack)});
    }
    if (automaton_.final(thread.state)) {
      const Frame& frame = frames_[static_cast<size_t>(thread.stack)];
      work_.push_back(thread.stack == 0 ? Thread{kEnd, 0} : Thread{frame.return_state, frame.below});
    }
  }
}

}  // namespace swiftkv
