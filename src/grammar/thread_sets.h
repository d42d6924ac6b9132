// Runs an Automaton: a deterministic automaton whose states are sets of threads, made as they are met.
//
//   ThreadSets sets(automaton);
//   int32_t set = sets.Start();
//   for (const uint8_t byte : text) set = sets.Step(set, byte);   // kDead: no text goes on like this
//
// A thread is one reading of the text so far: a state, and the states to return to. At most kMaxThreads readings are
// followed at once; the ones found later are dropped, which never lets a wrong text through and, as every thread of a
// trimmed automaton can reach the end, never leads into a dead end.
#ifndef SWIFTKV_GRAMMAR_THREAD_SETS_H_
#define SWIFTKV_GRAMMAR_THREAD_SETS_H_

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "grammar/automaton.h"

namespace swiftkv {

struct Thread {
  int32_t state = 0;  // kEnd: the text is complete
  int32_t stack = 0;  // of ThreadSets; 0: nothing to return to
  bool operator==(const Thread&) const = default;
  bool operator<(const Thread& other) const { return state != other.state ? state < other.state : stack < other.stack; }
};

class ThreadSets {
 public:
  static constexpr size_t kMaxThreads = 512;
  static constexpr int32_t kDead = 0;
  static constexpr int32_t kEnd = -1;

  explicit ThreadSets(const Automaton& automaton);

  int32_t Start();
  int32_t Of(std::span<const Thread> threads);
  int32_t Step(int32_t set, uint8_t byte) {
    const int32_t known = next_[static_cast<size_t>(set)][byte];
    return known != kUnknown ? known : Compute(set, byte);
  }
  std::span<const Thread> threads(int32_t set) const { return sets_[static_cast<size_t>(set)]->threads; }
  // Whether the text may end here: the calling rules have ended too.
  bool AtEnd(int32_t set) const { return sets_[static_cast<size_t>(set)]->at_end; }
  // Whether readings were dropped on the way to this set.
  bool Overflowed(int32_t set) const { return sets_[static_cast<size_t>(set)]->overflowed; }
  size_t size() const { return sets_.size(); }
  // Forgets all sets. Stacks stay, so threads go on to mean the same.
  void Clear();

 private:
  struct Set {
    std::vector<Thread> threads;
    bool overflowed = false;
    bool at_end = false;
    bool operator<(const Set& other) const {
      return std::tie(threads, overflowed, at_end) < std::tie(other.threads, other.overflowed, other.at_end);
    }
  };
  static constexpr int32_t kUnknown = -1;

  int32_t Compute(int32_t set, uint8_t byte);
  int32_t Intern(Set set);
  static uint64_t Key(int32_t state, int32_t stack) {
    return uint64_t{static_cast<uint32_t>(state)} << 32 | static_cast<uint32_t>(stack);
  }
  int32_t Push(int32_t return_state, int32_t below);
  void Expand(Thread thread, Set* set);

  const Automaton& automaton_;
  std::map<Set, int32_t> ids_;
  std::vector<const Set*> sets_;                // keys of ids_
  std::vector<std::array<int32_t, 256>> next_;  // [sets]
  struct Frame {
    int32_t return_state = 0;
    int32_t below = 0;
  };
  std::vector<Frame> frames_;  // by stack: its top frame; frame 0 is the empty stack
  std::unordered_map<uint64_t, int32_t> stacks_;
  std::unordered_set<uint64_t> seen_;  // work space of Compute
  std::vector<Thread> work_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_THREAD_SETS_H_
