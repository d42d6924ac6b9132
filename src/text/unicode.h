// UTF-8 and the Unicode knowledge that tokenizers need. Classes are those that Hugging Face `tokenizers` works with
// (tools/make_unicode_tables.py), not those of whichever Unicode version this machine's libraries follow.
//
//   std::string storage;
//   std::string_view text = ValidUtf8(bytes, storage);  // as Python's bytes.decode(errors="replace")
//   for (size_t at = 0; at < text.size();) char32_t c = NextCodePoint(text, at);
#ifndef SWIFTKV_TEXT_UNICODE_H_
#define SWIFTKV_TEXT_UNICODE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace swiftkv {

enum class CharClass : uint8_t {
  kOther,  // controls, formats, unassigned
  kUpper,
  kTitle,
  kLower,
  kModifierLetter,
  kOtherLetter,
  kMark,
  kNumber,
  kPunctuation,
  kSymbol,
  kSpace,  // the regular expressions' \s: Unicode's White_Space
};

// What the table knows of one code point.
class CharProperties {
 public:
  explicit constexpr CharProperties(uint8_t bits) : bits_(bits) {}
  CharClass char_class() const { return static_cast<CharClass>(bits_ & 0x0f); }
  bool IsLetter() const { return (bits_ & 0x0f) >= 1 && (bits_ & 0x0f) <= 5; }
  bool IsMark() const { return char_class() == CharClass::kMark; }
  bool IsNumber() const { return char_class() == CharClass::kNumber; }
  bool IsSpace() const { return char_class() == CharClass::kSpace; }
  bool IsWord() const { return bits_ & 0x10; }                  // the regular expressions' \w
  bool IsDigitsMember() const { return bits_ & 0x20; }          // what the pre-tokenizer "Digits" splits off
  bool IsPunctuationMember() const { return bits_ & 0x40; }     // what the pre-tokenizer "Punctuation" splits off
  bool IsNormalizationBarrier() const { return bits_ & 0x80; }  // too young for the normalizers of `tokenizers`

 private:
  uint8_t bits_;
};

CharProperties PropertiesOf(char32_t code_point);
// \w of Rust's regular expressions, which the pre-tokenizer "Whitespace" and the single_word rule of added tokens use:
// the two joiners as well.
inline bool IsRustWord(char32_t code_point) {
  return PropertiesOf(code_point).IsWord() || code_point == 0x200c || code_point == 0x200d;
}

// The code point at text[at], which must be valid UTF-8; moves `at` behind it.
char32_t NextCodePoint(std::string_view text, size_t& at);
// Bytes of the UTF-8 character that starts with `lead`.
inline size_t Utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}
void AppendUtf8(char32_t code_point, std::string& text);

// The leading bytes of `bytes` as text, each maximal ill-formed part replaced by U+FFFD. An unfinished character at
// the end is left alone where `keep_unfinished`. Returns the number of bytes consumed.
size_t AppendLossy(std::string_view bytes, bool keep_unfinished, std::string& text);
// `bytes` itself if it is valid UTF-8, otherwise its repaired copy in `storage`.
std::string_view ValidUtf8(std::string_view bytes, std::string& storage);
bool IsValidUtf8(std::string_view bytes);

// GPT-2's spelling of bytes as printable characters ("Ġ" for a space).
char32_t ByteLevelChar(uint8_t byte);
std::optional<uint8_t> ByteLevelByte(char32_t code_point);

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_UNICODE_H_
