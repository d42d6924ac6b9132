// A compiled grammar over a vocabulary: which tokens may come next, for any number of choices at once.
//
//   std::shared_ptr<const Grammar> grammar = ...;   // structured_output.h
//   request.constraint = grammar;
//
// The tokens that a state allows whatever called its rule are found once and kept; only the few tokens that read past
// the end of the rule, such as `",`, are tried each time. Where many readings of a text have no kept masks, all
// readings are tried together, so that a token costs about one walk of the vocabulary's trie and not one for each of
// them.
#ifndef SWIFTKV_GRAMMAR_GRAMMAR_H_
#define SWIFTKV_GRAMMAR_GRAMMAR_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine/token_constraint.h"
#include "grammar/automaton.h"
#include "grammar/token_trie.h"

namespace swiftkv {

class Grammar final : public TokenConstraintFactory, public std::enable_shared_from_this<Grammar> {
 public:
  // What one state allows, whatever the stack.
  struct StateMask {
    std::vector<uint64_t> allowed;   // [ceil(vocab_size / 64)]
    std::vector<int32_t> undecided;  // nodes of the trie whose subtrees depend on the stack
  };

  // `follows`: the bytes that may come behind a rule. To be owned by a std::shared_ptr.
  Grammar(Automaton automaton, std::shared_ptr<const TokenTrie> trie, const ByteSet& follows);

  std::unique_ptr<TokenConstraint> New() const override;
  int64_t vocab_size() const override { return trie_->vocab_size(); }

  const Automaton& automaton() const { return automaton_; }
  const TokenTrie& trie() const { return *trie_; }
  // Any thread may call it. The memory for kept masks is limited; behind the limit they are found anew.
  std::shared_ptr<const StateMask> Mask(int32_t state) const;
  // The same if it is kept; else null.
  std::shared_ptr<const StateMask> KnownMask(int32_t state) const;
  // The same for the tokens in the subtree of the trie's node `top`, and on the way there; 0: all. Found anew.
  StateMask ComputeMask(int32_t state, int32_t top) const;

 private:
  Automaton automaton_;
  std::shared_ptr<const TokenTrie> trie_;
  ByteSet follows_;
  mutable std::mutex mutex_;
  mutable std::unordered_map<int32_t, std::shared_ptr<const StateMask>> masks_;  // by class of states
  mutable size_t mask_bytes_ = 0;
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_GRAMMAR_H_
