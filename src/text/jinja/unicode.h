// Strings as Python sees them: sequences of code points, here in UTF-8. A byte that is not part of valid UTF-8 counts
// as one character (U+FFFD), so that no input can lead out of bounds.
#ifndef SWIFTKV_TEXT_JINJA_UNICODE_H_
#define SWIFTKV_TEXT_JINJA_UNICODE_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace swiftkv::jinja {

bool IsAscii(std::string_view text);

// The character at byte `position` (< text.size()); `*length` becomes its number of bytes.
char32_t CharAt(std::string_view text, size_t position, size_t* length);

// The byte where the last character of text[0, end) starts; end > 0.
size_t PreviousChar(std::string_view text, size_t end);
size_t CountChars(std::string_view text);
// The byte where character `index` starts; text.size() if there are fewer.
size_t CharOffset(std::string_view text, size_t index);

// Python's str.isspace, isalpha, isdecimal, ... of one character.
bool IsSpace(char32_t character);
bool IsAlpha(char32_t character);
bool IsDecimal(char32_t character);
bool IsDigit(char32_t character);
bool IsNumeric(char32_t character);
bool IsAlnum(char32_t character);
bool IsLower(char32_t character);
bool IsUpper(char32_t character);
bool IsTitle(char32_t character);
bool IsCased(char32_t character);
bool IsPrintable(char32_t character);
bool IsIdentifierStart(char32_t character);
bool IsIdentifierPart(char32_t character);

// Python's str.upper, lower, casefold, capitalize, title, swapcase, with Unicode's full case mappings.
std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);
std::string CaseFold(std::string_view text);
std::string Capitalize(std::string_view text);
std::string ToTitle(std::string_view text);
std::string SwapCase(std::string_view text);

// str.strip: whitespace, or the characters of *characters.
std::string_view Strip(std::string_view text, const std::string_view* characters, bool left, bool right);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_UNICODE_H_
