// Byte-pair encoding over a vocabulary and a ranked list of merges, with the token ids of Hugging Face `tokenizers`.
//
// A piece is one pre-tokenized word. It starts as one symbol per character (per byte in a byte-level vocabulary); then
// the adjacent pair of lowest rank is merged, the leftmost first, until no pair has a merge.
#ifndef SWIFTKV_TEXT_BPE_H_
#define SWIFTKV_TEXT_BPE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"

namespace swiftkv {

struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t rank = 0;  // lower merges first; equal ranks merge from left to right
};

struct BpeOptions {
  bool byte_level = false;     // pieces are raw bytes that stand for the characters of GPT-2's byte alphabet
  bool byte_fallback = false;  // an unknown character becomes its bytes' tokens <0x00>..<0xFF>
  bool fuse_unknown = false;   // adjacent unknown characters become one unknown token
  bool ignore_merges = false;  // a piece that is a token as a whole stays whole
  std::optional<int32_t> unknown_id;
};

// Memory that one Encode call at a time works in; keeps the ids of recent words.
class BpeScratch {
 public:
  BpeScratch();

 private:
  friend class Bpe;
  static constexpr size_t kMaxWord = 31;
  static constexpr size_t kMaxIds = 7;
  static constexpr size_t kWords = 1 << 14;
  struct Word {
    uint8_t bytes = 0;  // 0: empty entry
    char text[kMaxWord];
    int32_t ids[kMaxIds];
    int32_t count;
  };
  struct Symbol {
    int32_t id;
    int64_t previous;
    int64_t next;
  };
  std::vector<Word> words_;  // direct-mapped by hash
  std::vector<int32_t> ids_;
  std::vector<Symbol> symbols_;
};

class Bpe {
 public:
  // tokens[id] is the token's spelling; duplicates and empty spellings stand for unused ids.
  // Error kInvalidInput if a merge's product is not a token.
  static Result<Bpe> Create(std::vector<std::string> tokens, const std::vector<BpeMerge>& merges,
                            const BpeOptions& options, const std::string& origin);

  // Appends the ids of one piece.
  void Encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  std::optional<int32_t> Find(std::string_view token) const;
  // The bytes of a text that are surely a part of tokens which are spelled with them: those that are not may be left
  // out, or any number of them may become one unknown token.
  size_t KnownBytes(std::string_view text) const;
  const std::vector<std::string>& tokens() const { return tokens_; }

 private:
  struct Merged {
    uint64_t pair = kNoPair;
    int32_t rank = 0;
    int32_t id = 0;
  };
  // The ids that one byte (byte level) becomes before any merge; empty: unknown.
  using Initial = std::vector<int32_t>;
  static constexpr uint64_t kNoPair = ~0ull;

  Bpe() = default;
  Status AddMerges(const std::vector<BpeMerge>& merges, const std::string& origin);
  void AddInitials();
  bool MergesStayInWords(const std::vector<BpeMerge>& merges) const;
  void EncodeWord(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;
  bool FallBackToBytes(std::string_view character, Initial& ids) const;
  const Merged* FindMerge(int32_t left, int32_t right) const;
  void InitialSymbols(std::string_view piece, std::vector<int32_t>& ids) const;
  bool EncodeWhole(std::string_view piece, std::vector<int32_t>& ids) const;
  void MergeShort(std::vector<int32_t>& ids) const;
  void MergeLong(BpeScratch& scratch) const;

  BpeOptions options_;
  bool cut_words_ = false;  // SentencePiece style: no merge reaches across the beginning of a word
  std::vector<std::string> tokens_;
  std::unordered_map<std::string_view, int32_t> ids_;  // views into tokens_
  std::vector<Merged> merges_;                         // open addressing, a power of two
  std::array<Initial, 256> initial_;                   // byte level
  std::array<int32_t, 256> byte_tokens_;               // byte fallback; -1: no such token
};

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_BPE_H_
