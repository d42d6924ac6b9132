#include "grammar/automaton.h"

#include <algorithm>
#include <unordered_map>

namespace swiftkv {
namespace {

// Sorts (state, item) pairs into one array, with the place where each state's items begin.
template <class T>
void Flatten(std::vector<std::pair<int32_t, T>> pairs, size_t states, std::vector<T>* items,
             std::vector<int32_t>* begin) {
  std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  begin->assign(states + 1, 0);
  items->reserve(pairs.size());
  for (const auto& [state, item] : pairs) {
    ++(*begin)[static_cast<size_t>(state) + 1];
    items->push_back(item);
  }
  for (size_t i = 0; i < states; ++i) (*begin)[i + 1] += (*begin)[i];
}

// The runs of bytes of an edge that are in the alphabet.
std::vector<Automaton::ByteEdge> Within(const Automaton::ByteEdge& edge, const ByteSet& alphabet) {
  std::vector<Automaton::ByteEdge> runs;
  for (int byte = edge.first; byte <= edge.last; ++byte) {
    if (!alphabet[static_cast<size_t>(byte)]) continue;
    const auto value = static_cast<uint8_t>(byte);
    if (!runs.empty() && runs.back().last + 1 == byte) {
      runs.back().last = value;
    } else {
      runs.push_back({value, value, edge.target});
    }
  }
  return runs;
}

}  // namespace

Rule AutomatonBuilder::NewRule() {
  const Rule rule{.start = NewState(), .end = NewState()};
  if (!full_) {
    final_[static_cast<size_t>(rule.end)] = true;
    rules_.push_back(rule);
  }
  return rule;
}

int32_t AutomatonBuilder::NewState() {
  full_ = full_ || static_cast<int32_t>(final_.size()) + 1 >= kMaxStates;
  if (full_) return 0;
  const auto state = static_cast<int32_t>(final_.size());
  final_.push_back(false);
  mask_class_.push_back(state);
  return state;
}

void AutomatonBuilder::Bytes(int32_t from, uint8_t first, uint8_t last, int32_t to) {
  full_ = full_ || edges_.size() >= kMaxEdges;
  if (!full_) edges_.emplace_back(from, Automaton::ByteEdge{first, last, to});
}

void AutomatonBuilder::Byte(int32_t from, char byte, int32_t to) {
  Bytes(from, static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), to);
}

void AutomatonBuilder::Bytes(int32_t from, std::string_view any_of, int32_t to) {
  for (const char byte : any_of) Byte(from, byte, to);
}

int32_t AutomatonBuilder::Literal(int32_t from, std::string_view text) {
  for (const char byte : text) {
    const int32_t next = NewState();
    Byte(from, byte, next);
    from = next;
  }
  return from;
}

void AutomatonBuilder::Skip(int32_t from, int32_t to) {
  full_ = full_ || jumps_.size() >= kMaxEdges;
  if (!full_) jumps_.emplace_back(from, Automaton::Jump{.target = to});
}

void AutomatonBuilder::Call(int32_t from, Rule rule, int32_t to) {
  full_ = full_ || jumps_.size() >= kMaxEdges;
  if (!full_) jumps_.emplace_back(from, Automaton::Jump{.target = to, .call = rule.start});
}

void AutomatonBuilder::SetMaskClass(int32_t state, int32_t like) {
  if (!full_) mask_class_[static_cast<size_t>(state)] = mask_class_[static_cast<size_t>(like)];
}

// Removes the edges over bytes that no token has, then those from which no end can be reached.
void AutomatonBuilder::Trim(const ByteSet& alphabet) {
  Edges readable;
  for (const auto& [from, edge] : edges_) {
    for (const Automaton::ByteEdge& run : Within(edge, alphabet)) readable.emplace_back(from, run);
  }
  edges_ = std::move(readable);

  std::vector<bool> live(final_.size());
  const auto alive = [&](int32_t state) { return live[static_cast<size_t>(state)]; };
  const auto passable = [&](const Automaton::Jump& jump) {
    return alive(jump.target) && (jump.call == Automaton::kNoCall || alive(jump.call));
  };
  // By state: the states whose edges and jumps wait for it to come alive.
  std::vector<std::vector<int32_t>> edge_sources(final_.size());
  std::vector<std::vector<size_t>> waiting_jumps(final_.size());
  for (const auto& [from, edge] : edges_) edge_sources[static_cast<size_t>(edge.target)].push_back(from);
  for (size_t i = 0; i < jumps_.size(); ++i) {
    const Automaton::Jump& jump = jumps_[i].second;
    waiting_jumps[static_cast<size_t>(jump.target)].push_back(i);
    if (jump.call != Automaton::kNoCall) waiting_jumps[static_cast<size_t>(jump.call)].push_back(i);
  }
  std::vector<int32_t> work;
  const auto revive = [&](int32_t state) {
    if (alive(state)) return;
    live[static_cast<size_t>(state)] = true;
    work.push_back(state);
  };
  for (const Rule& rule : rules_) revive(rule.end);
  while (!work.empty()) {
    const auto state = static_cast<size_t>(work.back());
    work.pop_back();
    for (const int32_t source : edge_sources[state]) revive(source);
    for (const size_t i : waiting_jumps[state]) {
      if (passable(jumps_[i].second)) revive(jumps_[i].first);
    }
  }
  std::erase_if(edges_, [&](const auto& edge) { return !alive(edge.second.target); });
  std::erase_if(jumps_, [&](const auto& jump) { return !passable(jump.second); });
  std::erase_if(rules_, [&](const Rule& rule) { return !alive(rule.start); });
}

// Whether a rule calls itself before it has read a byte: reading would never get past the calls.
bool AutomatonBuilder::BeginsWithItself() const {
  std::vector<Automaton::Jump> jumps;
  std::vector<int32_t> begin;
  Flatten(jumps_, final_.size(), &jumps, &begin);
  std::unordered_map<int32_t, std::vector<int32_t>> first_calls;  // by start: the starts of the rules called first
  std::unordered_map<int32_t, int32_t> callers;                   // by start: how many rules call it first
  std::vector<bool> seen(final_.size());
  for (const Rule& rule : rules_) {
    std::vector<int32_t> work = {rule.start};
    while (!work.empty()) {
      const auto state = static_cast<size_t>(work.back());
      work.pop_back();
      if (seen[state]) continue;
      seen[state] = true;
      for (int32_t i = begin[state]; i < begin[state + 1]; ++i) {
        const Automaton::Jump& jump = jumps[static_cast<size_t>(i)];
        if (jump.call == Automaton::kNoCall) {
          work.push_back(jump.target);
        } else {
          first_calls[rule.start].push_back(jump.call);
          ++callers[jump.call];
        }
      }
    }
  }
  // Rules that nobody calls first are taken away until none is left, or only those on circles.
  std::vector<int32_t> free;
  for (const Rule& rule : rules_) {
    if (callers[rule.start] == 0) free.push_back(rule.start);
  }
  size_t taken = 0;
  for (; !free.empty(); ++taken) {
    const int32_t start = free.back();
    free.pop_back();
    for (const int32_t callee : first_calls[start]) {
      if (--callers[callee] == 0) free.push_back(callee);
    }
  }
  return taken < rules_.size();
}

Result<Automaton> AutomatonBuilder::Build(Rule root, const ByteSet& alphabet) && {
  if (full_) return InvalidInput("it needs more than {} states or {} edges", kMaxStates, kMaxEdges);
  Trim(alphabet);
  const auto is_root = [&](const Rule& rule) { return rule.start == root.start; };
  if (std::none_of(rules_.begin(), rules_.end(), is_root)) return InvalidInput("no text satisfies it");
  if (BeginsWithItself()) return InvalidInput("a schema refers to itself without an object or array in between");
  Automaton automaton;
  automaton.start_ = root.start;
  Flatten(std::move(edges_), final_.size(), &automaton.edges_, &automaton.edge_begin_);
  Flatten(std::move(jumps_), final_.size(), &automaton.jumps_, &automaton.jump_begin_);
  automaton.final_ = std::move(final_);
  automaton.mask_class_ = std::move(mask_class_);
  return automaton;
}

}  // namespace swiftkv
