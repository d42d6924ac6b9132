// Tokens that are cut out of the text before anything else looks at it: "<|im_end|>", "<s>", "<tool_call>".
#ifndef SWIFTKV_TEXT_ADDED_TOKENS_H_
#define SWIFTKV_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace swiftkv {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // takes the whitespace before it
  bool rstrip = false;       // takes the whitespace behind it
  bool normalized = false;   // looked for in the normalized text, not in the original one
};

constexpr int32_t kNotAToken = -1;

// A part of a text: an added token, or text between added tokens (id kNotAToken).
struct TextSegment {
  size_t begin = 0;
  size_t end = 0;
  int32_t id = kNotAToken;
};

// Finds added tokens, leftmost first and the longest of those that begin at the same place.
class AddedTokenMatcher {
 public:
  static constexpr size_t kMaxContentBytes = 1024;  // bounds the work for each character of a text

  // `pattern` is what is looked for: the token's content, normalized if the token is. Empty patterns never match.
  void Add(std::string_view pattern, const AddedToken& token);
  bool empty() const { return tokens_.empty(); }

  // The parts of `text` (valid UTF-8) in order; no empty text parts. With `parse_special` false, special tokens are
  // plain text.
  std::vector<TextSegment> Split(std::string_view text, bool parse_special) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, int32_t>> children;  // byte, node
    int32_t token = -1;                                       // index into tokens_
  };
  struct Match {
    size_t end = 0;
    const AddedToken* token = nullptr;
  };
  Match LongestAt(std::string_view text, size_t begin) const;
  int32_t Child(int32_t node, unsigned char byte) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{1};
  std::array<int32_t, 256> roots_{};  // node of each first byte; 0: no token begins with it
};

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_ADDED_TOKENS_H_
