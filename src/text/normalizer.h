// The normalizers of tokenizer.json: what happens to the text between added tokens before it is split into words.
#ifndef SWIFTKV_TEXT_NORMALIZER_H_
#define SWIFTKV_TEXT_NORMALIZER_H_

#include <memory>
#include <string>
#include <string_view>

#include "text/pattern.h"

namespace swiftkv {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // `text` is valid UTF-8 and stays so.
  virtual void Normalize(std::string& text) const = 0;
  // Whether no text becomes shorter, in bytes.
  virtual bool KeepsLength() const { return false; }
};

enum class NormalizationForm { kNfc, kNfd, kNfkc, kNfkd };

// Unicode's normalization forms.
std::unique_ptr<Normalizer> MakeUnicodeNormalizer(NormalizationForm form);
std::unique_ptr<Normalizer> MakeLowercase();
// Whitespace at the ends.
std::unique_ptr<Normalizer> MakeStrip(bool left, bool right);
// Before every text that is not empty.
std::unique_ptr<Normalizer> MakePrepend(std::string prefix);
std::unique_ptr<Normalizer> MakeReplace(Pattern pattern, std::string content);
// GPT-2's spelling of each byte.
std::unique_ptr<Normalizer> MakeByteLevelNormalizer();

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_NORMALIZER_H_
