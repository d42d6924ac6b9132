// The pre-tokenizers of tokenizer.json: how text between added tokens is cut into the pieces that are encoded.
#ifndef SWIFTKV_TEXT_PRE_TOKENIZER_H_
#define SWIFTKV_TEXT_PRE_TOKENIZER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/pattern.h"

namespace swiftkv {

// A text and its pieces: in order, not empty, not overlapping.
struct SplitText {
  std::string_view text;  // valid UTF-8
  std::string storage;    // holds `text` once a pre-tokenizer has rewritten it
  std::vector<PatternMatch> pieces;
  bool at_start = true;  // the text is where the whole input begins

  std::string_view Piece(size_t index) const {
    return text.substr(pieces[index].begin, pieces[index].end - pieces[index].begin);
  }
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void Apply(SplitText& split) const = 0;
  // Whether all of the text is in the pieces, and is nowhere shorter.
  virtual bool KeepsText() const { return false; }
  // MakeByteLevelSpelling's. As the last step it is left to the model, which can do without the spelled-out text.
  virtual bool SpellsBytes() const { return false; }
};

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
enum class PrependScheme { kAlways, kNever, kFirst };

// At the matches of a pattern, or between them (`invert`).
std::unique_ptr<PreTokenizer> MakeSplit(Pattern pattern, SplitBehavior behavior, bool invert);
// At single characters.
std::unique_ptr<PreTokenizer> MakeDigits(bool individual);
std::unique_ptr<PreTokenizer> MakePunctuation(SplitBehavior behavior);
std::unique_ptr<PreTokenizer> MakeWhitespaceSplit();
// Into runs of word characters and runs of others, without the whitespace.
std::unique_ptr<PreTokenizer> MakeWhitespace();
std::unique_ptr<PreTokenizer> MakeCharDelimiterSplit(char32_t delimiter);
// A space before every piece that has none.
std::unique_ptr<PreTokenizer> MakeSpacePrefix();
// GPT-2's spelling of each byte.
std::unique_ptr<PreTokenizer> MakeByteLevelSpelling();
// `replacement` ("▁") for spaces and, by the scheme, before a piece; then cut before each of them (`split`).
std::unique_ptr<PreTokenizer> MakeMetaspace(std::string replacement, PrependScheme scheme, bool split);

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_PRE_TOKENIZER_H_
