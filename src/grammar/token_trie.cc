#include "grammar/token_trie.h"

#include <algorithm>

namespace swiftkv {
namespace {

size_t CommonPrefix(const std::string& a, const std::string& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

Result<std::shared_ptr<const TokenTrie>> TokenTrie::Create(const Tokenizer& tokenizer, int64_t vocab_size) {
  std::vector<std::string> token_bytes(static_cast<size_t>(vocab_size));
  for (int32_t id = 0; id < vocab_size; ++id) token_bytes[static_cast<size_t>(id)] = tokenizer.TokenBytes(id);
  return Create(token_bytes);
}

Result<std::shared_ptr<const TokenTrie>> TokenTrie::Create(const std::vector<std::string>& token_bytes) {
  auto trie = std::make_shared<TokenTrie>();
  trie->node_of_token_.assign(token_bytes.size(), -1);
  std::vector<int32_t> sorted;
  for (size_t id = 0; id < token_bytes.size(); ++id) {
    const size_t size = token_bytes[id].size();
    if (size == 0 || size > kMaxTokenBytes) continue;
    sorted.push_back(static_cast<int32_t>(id));
    trie->longest_token_ = std::max(trie->longest_token_, size);
    if (size == 1) trie->alphabet_.set(static_cast<uint8_t>(token_bytes[id][0]));
  }
  if (sorted.empty()) return InvalidInput("structured output needs a tokenizer whose tokens are text");
  std::stable_sort(sorted.begin(), sorted.end(), [&](int32_t a, int32_t b) {
    return token_bytes[static_cast<size_t>(a)] < token_bytes[static_cast<size_t>(b)];
  });

  std::vector<Node>& nodes = trie->nodes_;
  nodes.push_back({});
  std::vector<int32_t> path = {0};  // nodes from the root to the last token
  const std::string empty;
  const std::string* previous = &empty;
  const auto close_below = [&](size_t depth) {
    for (; path.size() > depth + 1; path.pop_back()) {
      nodes[static_cast<size_t>(path.back())].end = static_cast<int32_t>(nodes.size());
    }
  };
  for (const int32_t id : sorted) {
    const std::string& bytes = token_bytes[static_cast<size_t>(id)];
    const size_t shared = CommonPrefix(*previous, bytes);
    close_below(shared);
    for (size_t i = shared; i < bytes.size(); ++i) {
      nodes.push_back({.parent = path.back(),
                       .token_begin = static_cast<int32_t>(trie->tokens_.size()),
                       .depth = static_cast<uint16_t>(i + 1),
                       .byte = static_cast<uint8_t>(bytes[i])});
      path.push_back(static_cast<int32_t>(nodes.size()) - 1);
    }
    trie->tokens_.push_back(id);
    trie->node_of_token_[static_cast<size_t>(id)] = path.back();
    previous = &bytes;
  }
  close_below(0);
  nodes[0].end = static_cast<int32_t>(nodes.size());
  return trie;
}

std::span<const int32_t> TokenTrie::tokens(int32_t node) const {
  const auto i = static_cast<size_t>(node);
  const auto begin = static_cast<size_t>(nodes_[i].token_begin);
  const size_t end = i + 1 < nodes_.size() ? static_cast<size_t>(nodes_[i + 1].token_begin) : tokens_.size();
  return std::span<const int32_t>(tokens_).subspan(begin, end - begin);
}

std::string TokenTrie::Path(int32_t node) const {
  std::string path;
  for (; node != 0; node = nodes_[static_cast<size_t>(node)].parent) {
    path.push_back(static_cast<char>(nodes_[static_cast<size_t>(node)].byte));
  }
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace swiftkv
