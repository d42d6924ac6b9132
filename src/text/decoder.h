// The decoders of tokenizer.json: how the spellings of tokens become text. They run as a chain of stages that take one
// token at a time and pass on what no later token can change, so that decoding all at once and streaming are the same.
#ifndef SWIFTKV_TEXT_DECODER_H_
#define SWIFTKV_TEXT_DECODER_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/pattern.h"

namespace swiftkv {

class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  // A token's text, whole characters; with `continues` it belongs to the same token as the text before.
  virtual void Push(std::string_view text, bool continues) = 0;
  // No more tokens.
  virtual void Finish() = 0;

  void set_next(DecodeStage* next) { next_ = next; }

 protected:
  DecodeStage* next_ = nullptr;
};

// The bytes that a token of GPT-2's byte alphabet stands for; a token with another character stands for itself.
std::string ByteLevelBytes(std::string_view token);
// The byte that "<0xE4>" spells, or -1.
int ByteFallbackByte(std::string_view token);

// Makes a fresh stage for each decoded sequence.
using DecodeStageFactory = std::function<std::unique_ptr<DecodeStage>()>;

// GPT-2's byte alphabet back to bytes; what is not UTF-8 becomes U+FFFD.
DecodeStageFactory MakeByteLevelDecoder();
// Runs of <0xE4> tokens as one text if it is UTF-8, otherwise as one U+FFFD for each.
DecodeStageFactory MakeByteFallbackDecoder();
// All tokens as one.
DecodeStageFactory MakeFuseDecoder();
// Up to `start` leading and `stop` trailing characters `content` of each token.
DecodeStageFactory MakeStripDecoder(char32_t content, size_t start, size_t stop);
DecodeStageFactory MakeReplaceDecoder(const std::shared_ptr<const Pattern>& pattern, const std::string& content);
// `replacement` as a space; in the first token as nothing (`strip_first`).
DecodeStageFactory MakeMetaspaceDecoder(char32_t replacement, bool strip_first);
// Where tokenizer.json has no decoder: a space between tokens.
DecodeStageFactory MakeSpaceJoinDecoder();

// One sequence of tokens on its way through the stages.
class DecodeChain {
 public:
  explicit DecodeChain(const std::vector<DecodeStageFactory>& factories);
  DecodeChain(const DecodeChain&) = delete;
  DecodeChain& operator=(const DecodeChain&) = delete;
  void Push(std::string_view token) { stages_.front()->Push(token, false); }
  void Finish() { stages_.front()->Finish(); }
  // The text since the last call.
  std::string Take() { return std::exchange(text_, {}); }

 private:
  std::string text_;
  std::vector<std::unique_ptr<DecodeStage>> stages_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_DECODER_H_
