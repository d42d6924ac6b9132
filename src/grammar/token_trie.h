// The bytes of a vocabulary's tokens as a tree, so that tokens with the same beginning are tried once.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto trie, TokenTrie::Create(*tokenizer, config.vocab_size));   // once a model
#ifndef SWIFTKV_GRAMMAR_TOKEN_TRIE_H_
#define SWIFTKV_GRAMMAR_TOKEN_TRIE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "grammar/automaton.h"
#include "text/tokenizer.h"

namespace swiftkv {

class TokenTrie {
 public:
  // Longer tokens are left out: no structured output needs them.
  static constexpr size_t kMaxTokenBytes = 256;

  struct Node {
    int32_t parent = 0;
    int32_t end = 0;          // the first node behind its subtree
    int32_t token_begin = 0;  // its tokens are tokens(node)
    uint16_t depth = 0;       // bytes from the root
    uint8_t byte = 0;
  };

  // Of the tokens 0 .. vocab_size - 1, `vocab_size` the number of the model's logits. Special and other added tokens
  // have no place in it. Error kInvalidInput: no token is text.
  static Result<std::shared_ptr<const TokenTrie>> Create(const Tokenizer& tokenizer, int64_t vocab_size);
  // As above from the bytes of each token, empty for none.
  static Result<std::shared_ptr<const TokenTrie>> Create(const std::vector<std::string>& token_bytes);

  int64_t vocab_size() const { return static_cast<int64_t>(node_of_token_.size()); }
  // In order of their paths, a parent before its children; the root is node 0.
  const std::vector<Node>& nodes() const { return nodes_; }
  // The tokens that are spelled by the path to a node.
  std::span<const int32_t> tokens(int32_t node) const;
  // -1: the token is not in the tree.
  int32_t node_of(int32_t token_id) const { return node_of_token_[static_cast<size_t>(token_id)]; }
  // The bytes from the root to `node`.
  std::string Path(int32_t node) const;
  // Bytes that are a token of their own: text of these alone can always be spelled.
  const ByteSet& alphabet() const { return alphabet_; }
  size_t longest_token() const { return longest_token_; }

 private:
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;         // by node
  std::vector<int32_t> node_of_token_;  // [vocab]
  ByteSet alphabet_;
  size_t longest_token_ = 0;
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_TOKEN_TRIE_H_
