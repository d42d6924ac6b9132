// A pushdown automaton over bytes: rules, each a nondeterministic automaton whose edges read a byte or call a rule.
//
//   AutomatonBuilder builder;
//   const Rule list = builder.NewRule();                      // list = "[" list? "]"
//   const int32_t inside = builder.Literal(list.start, "[");
//   builder.Call(inside, list, inside2);  ...
//   SWIFTKV_ASSIGN_OR_RETURN(Automaton automaton, std::move(builder).Build(list, bytes_of_the_vocabulary));
//
// What is built is trimmed: from every state an end can be reached over bytes that exist, so that no choice among what
// an automaton allows can lead into a dead end.
#ifndef SWIFTKV_GRAMMAR_AUTOMATON_H_
#define SWIFTKV_GRAMMAR_AUTOMATON_H_

#include <bitset>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace swiftkv {

using ByteSet = std::bitset<256>;

// A rule begins in `start` and may be left in `end`. It reads at least one byte.
struct Rule {
  int32_t start = 0;
  int32_t end = 0;
};

class Automaton {
 public:
  struct ByteEdge {
    uint8_t first = 0;  // reads one byte from first to last
    uint8_t last = 0;
    int32_t target = 0;
  };
  // Reads nothing: goes to `target`, or into the rule that begins at `call` and from its end to `target`.
  struct Jump {
    int32_t target = 0;
    int32_t call = kNoCall;
  };
  static constexpr int32_t kNoCall = -1;

  int32_t start() const { return start_; }
  int32_t states() const { return static_cast<int32_t>(final_.size()); }
  std::span<const ByteEdge> edges(int32_t state) const { return Slice(edges_, edge_begin_, state); }
  std::span<const Jump> jumps(int32_t state) const { return Slice(jumps_, jump_begin_, state); }
  // The state ends its rule.
  bool final(int32_t state) const { return final_[static_cast<size_t>(state)]; }
  // States of one class allow the same tokens.
  int32_t mask_class(int32_t state) const { return mask_class_[static_cast<size_t>(state)]; }

 private:
  friend class AutomatonBuilder;
  template <class T>
  static std::span<const T> Slice(const std::vector<T>& items, const std::vector<int32_t>& begin, int32_t state) {
    const auto i = static_cast<size_t>(state);
    return std::span<const T>(items).subspan(static_cast<size_t>(begin[i]),
                                             static_cast<size_t>(begin[i + 1] - begin[i]));
  }

  int32_t start_ = 0;
  std::vector<ByteEdge> edges_;
  std::vector<int32_t> edge_begin_;  // [states + 1]
  std::vector<Jump> jumps_;
  std::vector<int32_t> jump_begin_;  // [states + 1]
  std::vector<bool> final_;
  std::vector<int32_t> mask_class_;
};

class AutomatonBuilder {
 public:
  static constexpr int32_t kMaxStates = 1 << 17;
  static constexpr size_t kMaxEdges = 1 << 21;

  Rule NewRule();
  int32_t NewState();
  void Bytes(int32_t from, uint8_t first, uint8_t last, int32_t to);
  void Byte(int32_t from, char byte, int32_t to);
  void Bytes(int32_t from, std::string_view any_of, int32_t to);
  // A chain of new states; returns its end.
  int32_t Literal(int32_t from, std::string_view text);
  void Skip(int32_t from, int32_t to);
  void Call(int32_t from, Rule rule, int32_t to);
  // Says that `state` allows the tokens that `like` does.
  void SetMaskClass(int32_t state, int32_t like);
  // The limits are passed: what is added from now on is dropped and Build fails.
  bool full() const { return full_; }

  // The automaton of `root`, over the bytes in `alphabet`.
  // Errors kInvalidInput: the limits; no text satisfies `root`; a rule begins with itself.
  Result<Automaton> Build(Rule root, const ByteSet& alphabet) &&;

 private:
  using Edges = std::vector<std::pair<int32_t, Automaton::ByteEdge>>;  // with the state that they leave
  using Jumps = std::vector<std::pair<int32_t, Automaton::Jump>>;

  void Trim(const ByteSet& alphabet);
  bool BeginsWithItself() const;

  Edges edges_;
  Jumps jumps_;
  std::vector<Rule> rules_;
  std::vector<bool> final_;          // [states]
  std::vector<int32_t> mask_class_;  // [states]
  bool full_ = false;
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_AUTOMATON_H_
