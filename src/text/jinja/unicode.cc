#include "text/jinja/unicode.h"

#include <unicode/uchar.h>
#include <unicode/ustring.h>

#include <cstdint>
#include <cstring>

#include "text/unicode.h"

namespace swiftkv::jinja {
namespace {

constexpr char32_t kReplacement = 0xfffd;

// Length of the valid UTF-8 sequence at `position`, 0 if there is none.
size_t SequenceLength(std::string_view text, size_t position, char32_t* character) {
  const auto byte = [&](size_t offset) -> uint32_t {
    return position + offset < text.size() ? static_cast<unsigned char>(text[position + offset]) : 0;
  };
  const uint32_t first = byte(0);
  const size_t length = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
  if (length == 0) return 0;
  uint32_t value = length == 1 ? first : first & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    value = value << 6 | (byte(i) & 0x3f);
  }
  if (length == 3 && (value < 0x800 || (value >= 0xd800 && value < 0xe000))) return 0;
  if (length == 4 && (value < 0x10000 || value > 0x10ffff)) return 0;
  *character = value;
  return length;
}

std::u16string ToUtf16(std::string_view text) {
  std::u16string result;
  result.reserve(text.size());
  for (size_t i = 0, length; i < text.size(); i += length) {
    const char32_t c = CharAt(text, i, &length);
    if (c >= 0x10000) {
      result.push_back(static_cast<char16_t>(0xd7c0 + (c >> 10)));
      result.push_back(static_cast<char16_t>(0xdc00 + (c & 0x3ff)));
    } else {
      result.push_back(static_cast<char16_t>(c));
    }
  }
  return result;
}

std::string ToUtf8(std::u16string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    char32_t c = text[i];
    if (c >= 0xd800 && c < 0xdc00 && i + 1 < text.size()) c = ((c - 0xd800) << 10) + (text[++i] - 0xdc00u) + 0x10000;
    AppendUtf8(c, result);
  }
  return result;
}

// Applies one of ICU's case mappings; a mapping at most triples the number of UTF-16 units.
template <class Map>
std::string MapCase(std::string_view text, const Map& map) {
  const std::u16string source = ToUtf16(text);
  std::u16string target(source.size() * 3 + 1, 0);
  UErrorCode status = U_ZERO_ERROR;
  const int32_t length = map(target.data(), static_cast<int32_t>(target.size()), source.data(),
                             static_cast<int32_t>(source.size()), &status);
  if (U_FAILURE(status)) return std::string(text);
  return ToUtf8(std::u16string_view(target).substr(0, static_cast<size_t>(length)));
}

std::string AsciiUpper(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return result;
}

std::string AsciiLower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::string TitleChar(std::string_view character) {
  if (IsAscii(character)) return AsciiUpper(character);
  return MapCase(character,
                 [](char16_t* target, int32_t capacity, const char16_t* source, int32_t length, UErrorCode* status) {
                   return u_strToTitle(target, capacity, source, length, nullptr, "", status);
                 });
}

bool HasCategory(char32_t character, uint32_t mask) {
  return (U_GET_GC_MASK(static_cast<UChar32>(character)) & mask) != 0;
}

int NumericType(char32_t character) {
  return u_getIntPropertyValue(static_cast<UChar32>(character), UCHAR_NUMERIC_TYPE);
}

}  // namespace

bool IsAscii(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if (word & 0x8080808080808080u) return false;
  }
  for (; i < text.size(); ++i) {
    if (static_cast<unsigned char>(text[i]) >= 0x80) return false;
  }
  return true;
}

char32_t CharAt(std::string_view text, size_t position, size_t* length) {
  char32_t character;
  *length = SequenceLength(text, position, &character);
  if (*length != 0) return character;
  *length = 1;
  return kReplacement;
}

size_t PreviousChar(std::string_view text, size_t end) {
  for (size_t back = 1; back <= 4 && back <= end; ++back) {
    char32_t character;
    if (SequenceLength(text.substr(0, end), end - back, &character) == back) return end - back;
  }
  return end - 1;
}

size_t CountChars(std::string_view text) {
  if (IsAscii(text)) return text.size();
  size_t count = 0;
  for (size_t i = 0, length; i < text.size(); i += length, ++count) CharAt(text, i, &length);
  return count;
}

size_t CharOffset(std::string_view text, size_t index) {
  size_t i = 0;
  for (size_t length; index > 0 && i < text.size(); --index, i += length) CharAt(text, i, &length);
  return i;
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool IsAlpha(char32_t c) { return HasCategory(c, U_GC_L_MASK); }
bool IsDecimal(char32_t c) { return NumericType(c) == U_NT_DECIMAL; }
bool IsDigit(char32_t c) { return NumericType(c) == U_NT_DECIMAL || NumericType(c) == U_NT_DIGIT; }
bool IsNumeric(char32_t c) { return NumericType(c) != U_NT_NONE; }
bool IsAlnum(char32_t c) { return IsAlpha(c) || IsNumeric(c); }
bool IsLower(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_LOWERCASE); }
bool IsUpper(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_UPPERCASE); }
bool IsTitle(char32_t c) { return HasCategory(c, U_GC_LT_MASK); }
bool IsCased(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED); }

bool IsPrintable(char32_t c) {
  return c == ' ' || !HasCategory(c, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CS_MASK | U_GC_CO_MASK | U_GC_CN_MASK |
                                         U_GC_ZL_MASK | U_GC_ZP_MASK | U_GC_ZS_MASK);
}

bool IsIdentifierStart(char32_t c) { return c == '_' || u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_XID_START); }
bool IsIdentifierPart(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_XID_CONTINUE); }

std::string ToUpper(std::string_view text) {
  if (IsAscii(text)) return AsciiUpper(text);
  return MapCase(text, [](char16_t* target, int32_t capacity, const char16_t* source, int32_t length,
                          UErrorCode* status) { return u_strToUpper(target, capacity, source, length, "", status); });
}

std::string ToLower(std::string_view text) {
  if (IsAscii(text)) return AsciiLower(text);
  return MapCase(text, [](char16_t* target, int32_t capacity, const char16_t* source, int32_t length,
                          UErrorCode* status) { return u_strToLower(target, capacity, source, length, "", status); });
}

std::string CaseFold(std::string_view text) {
  if (IsAscii(text)) return AsciiLower(text);
  return MapCase(text,
                 [](char16_t* target, int32_t capacity, const char16_t* source, int32_t length, UErrorCode* status) {
                   return u_strFoldCase(target, capacity, source, length, U_FOLD_CASE_DEFAULT, status);
                 });
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return {};
  size_t length;
  CharAt(text, 0, &length);
  return TitleChar(text.substr(0, length)) + ToLower(text.substr(length));
}

std::string ToTitle(std::string_view text) {
  std::string result;
  size_t word = 0;  // start of the run of cased characters that is to become lower case
  bool cased = false;
  for (size_t i = 0, length; i < text.size(); i += length) {
    const bool now = IsCased(CharAt(text, i, &length));
    if (!cased) {
      result += TitleChar(text.substr(i, length));
      word = i + length;
    } else if (!now) {
      result += ToLower(text.substr(word, i - word)) + std::string(text.substr(i, length));
    }
    cased = now;
  }
  if (cased) result += ToLower(text.substr(word));
  return result;
}

std::string SwapCase(std::string_view text) {
  std::string result;
  for (size_t i = 0, length; i < text.size(); i += length) {
    const char32_t c = CharAt(text, i, &length);
    const std::string_view character = text.substr(i, length);
    result += IsUpper(c) ? ToLower(character) : IsLower(c) ? ToUpper(character) : std::string(character);
  }
  return result;
}

std::string_view Strip(std::string_view text, const std::string_view* characters, bool left, bool right) {
  const auto strips = [&](size_t position, size_t* length) {
    const char32_t c = CharAt(text, position, length);
    if (characters == nullptr) return IsSpace(c);
    return characters->find(text.substr(position, *length)) != std::string_view::npos;
  };
  size_t begin = 0, end = text.size(), length;
  while (left && begin < end && strips(begin, &length)) begin += length;
  while (right && end > begin && strips(PreviousChar(text, end), &length)) end = PreviousChar(text, end);
  return text.substr(begin, end - begin);
}

}  // namespace swiftkv::jinja
