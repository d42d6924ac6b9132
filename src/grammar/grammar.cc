#include "grammar/grammar.h"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include "grammar/thread_sets.h"

namespace swiftkv {
namespace {

constexpr size_t kMaxMaskBytes = 16 << 20;  // kept by one grammar
constexpr size_t kMaxSets = 512;            // kept by one choice, 1 KiB each
constexpr int kMaxNewMasks = 1;             // made for one token; each takes as long as to try all readings together

// Walks the nodes [begin, end) of the trie, a subtree or all below the root; set_at[d] is the set after d bytes and is
// known for the parent of `begin`. `visit(node, set)` says whether to go on below the node.
template <class Visit>
void Walk(const TokenTrie& trie, int32_t begin, int32_t end, ThreadSets* sets, std::vector<int32_t>* set_at,
          const Visit& visit) {
  set_at->resize(TokenTrie::kMaxTokenBytes + 1);
  for (int32_t i = begin; i < end;) {
    const TokenTrie::Node& node = trie.nodes()[static_cast<size_t>(i)];
    const int32_t set = sets->Step((*set_at)[node.depth - 1U], node.byte);
    (*set_at)[node.depth] = set;
    i = set != ThreadSets::kDead && visit(i, set) ? i + 1 : node.end;
  }
}

void Allow(std::span<const int32_t> tokens, std::span<uint64_t> mask) {
  for (const int32_t id : tokens) mask[static_cast<size_t>(id / 64)] |= uint64_t{1} << (id % 64);
}

class GrammarConstraint final : public TokenConstraint {
 public:
  explicit GrammarConstraint(std::shared_ptr<const Grammar> grammar)
      : grammar_(std::move(grammar)), sets_(grammar_->automaton()), set_(sets_.Start()) {}

  bool FillMask(std::span<uint64_t> mask) override try {
    const std::vector<Thread> threads = Threads();
    int new_masks = 0;
    for (const Thread& thread : threads) {
      if (thread.state == ThreadSets::kEnd) continue;
      std::shared_ptr<const Grammar::StateMask> known = grammar_->KnownMask(thread.state);
      if (!known && ++new_masks > kMaxNewMasks) {
        TryTogether(threads, 0, mask);
        return true;
      }
      if (!known) known = grammar_->Mask(thread.state);
      Add(thread, *known, mask);
    }
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }

  // Thread by thread, as FillMask does: what one thread allows must not fall to the limit on all of them together.
  void Accept(int32_t token_id) override {
    const int32_t node = grammar_->trie().node_of(token_id);
    if (node < 0) return;
    const std::string bytes = grammar_->trie().Path(node);
    std::vector<Thread> next;
    for (const Thread& thread : Threads()) {
      int32_t set = sets_.Of({&thread, 1});
      for (const char byte : bytes) set = sets_.Step(set, static_cast<uint8_t>(byte));
      for (const Thread& reached : sets_.threads(set)) {
        if (next.size() < ThreadSets::kMaxThreads && std::find(next.begin(), next.end(), reached) == next.end()) {
          next.push_back(reached);
        }
      }
    }
    set_ = sets_.Of(next);
  }

  bool MayEnd() const override { return sets_.AtEnd(set_); }

 private:
  // A copy, for sets move when others are added.
  std::vector<Thread> Threads() {
    const std::span<const Thread> view = sets_.threads(set_);
    std::vector<Thread> threads(view.begin(), view.end());
    if (sets_.size() > kMaxSets) {
      sets_.Clear();
      set_ = sets_.Of(threads);
    }
    return threads;
  }

  void Add(const Thread& thread, const Grammar::StateMask& known, std::span<uint64_t> mask) {
    for (size_t i = 0; i < mask.size(); ++i) mask[i] |= known.allowed[i];
    const int32_t alone = sets_.Of({&thread, 1});
    for (const int32_t node : known.undecided) {
      WalkBelow(alone, node, [&](int32_t i, int32_t) {
        Allow(grammar_->trie().tokens(i), mask);
        return true;
      });
    }
  }

  // What the threads allow in the subtree of `node`, in one walk. It adds what Add does, thread by thread: where they
  // become too many to be followed together, each half of them is tried.
  void TryTogether(std::span<const Thread> threads, int32_t node, std::span<uint64_t> mask) {
    if (threads.size() == 1) {
      const Thread& thread = threads.front();
      if (thread.state != ThreadSets::kEnd) Add(thread, grammar_->ComputeMask(thread.state, node), mask);
      return;
    }
    std::vector<int32_t> crowded;
    WalkBelow(sets_.Of(threads), node, [&](int32_t i, int32_t set) {
      if (sets_.Overflowed(set)) {
        crowded.push_back(i);
        return false;
      }
      Allow(grammar_->trie().tokens(i), mask);
      return true;
    });
    for (const int32_t i : crowded) {
      TryTogether(threads.first(threads.size() / 2), i, mask);
      TryTogether(threads.subspan(threads.size() / 2), i, mask);
    }
  }

  // Walks the subtree of `node` with what `set` becomes on the way there.
  template <class Visit>
  void WalkBelow(int32_t set, int32_t node, const Visit& visit) {
    const TokenTrie& trie = grammar_->trie();
    const TokenTrie::Node& top = trie.nodes()[static_cast<size_t>(node)];
    set_at_.assign(1, set);
    for (const char byte : trie.Path(top.parent)) {
      set_at_.push_back(set = sets_.Step(set, static_cast<uint8_t>(byte)));
    }
    Walk(trie, std::max(node, 1), top.end, &sets_, &set_at_, visit);
  }

  std::shared_ptr<const Grammar> grammar_;
  ThreadSets sets_;
  int32_t set_;
  std::vector<int32_t> set_at_;  // work space
};

}  // namespace

Grammar::Grammar(Automaton automaton, std::shared_ptr<const TokenTrie> trie, const ByteSet& follows)
    : automaton_(std::move(automaton)), trie_(std::move(trie)), follows_(follows) {}

std::unique_ptr<TokenConstraint> Grammar::New() const {
  return std::make_unique<GrammarConstraint>(shared_from_this());
}

std::shared_ptr<const Grammar::StateMask> Grammar::KnownMask(int32_t state) const {
  const std::lock_guard lock(mutex_);
  const auto found = masks_.find(automaton_.mask_class(state));
  return found == masks_.end() ? nullptr : found->second;
}

std::shared_ptr<const Grammar::StateMask> Grammar::Mask(int32_t state) const {
  const int32_t key = automaton_.mask_class(state);
  if (auto known = KnownMask(state)) return known;
  auto mask = std::make_shared<const StateMask>(ComputeMask(state, 0));
  const size_t bytes = mask->allowed.size() * sizeof(uint64_t) + mask->undecided.size() * sizeof(int32_t);
  const std::lock_guard lock(mutex_);
  if (mask_bytes_ + bytes > kMaxMaskBytes) return mask;
  const auto [place, added] = masks_.try_emplace(key, std::move(mask));
  if (added) mask_bytes_ += bytes;
  return place->second;
}

// Over an empty stack, "the end" stands for the unknown callers: what comes behind it is undecided, and so is what
// the limit on threads may have a part in, once threads of the callers are added.
Grammar::StateMask Grammar::ComputeMask(int32_t state, int32_t top) const {
  StateMask mask{.allowed = std::vector<uint64_t>(static_cast<size_t>((vocab_size() + 63) / 64)), .undecided = {}};
  ThreadSets sets(automaton_);
  const Thread thread{state, 0};
  std::vector<int32_t> set_at = {sets.Of({&thread, 1})};
  const std::vector<TokenTrie::Node>& nodes = trie_->nodes();
  const int32_t end = nodes[static_cast<size_t>(top)].end;
  for (int32_t i = 1; i < end;) {
    const TokenTrie::Node& node = nodes[static_cast<size_t>(i)];
    if (node.end <= top) {  // neither on the way to `top` nor below it
      i = node.end;
      continue;
    }
    set_at.resize(node.depth);
    const bool leaves = sets.AtEnd(set_at.back()) && follows_[node.byte];
    const int32_t set = sets.Step(set_at.back(), node.byte);
    if (leaves || sets.Overflowed(set) || sets.threads(set).size() > ThreadSets::kMaxThreads / 2) {
      mask.undecided.push_back(i);
      i = node.end;
    } else if (set == ThreadSets::kDead) {
      i = node.end;
    } else {
      Allow(trie_->tokens(i), mask.allowed);
      set_at.push_back(set);
      ++i;
    }
  }
  return mask;
}

}  // namespace swiftkv
