#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <vector>

#include "text/unicode_tables.h"

namespace swiftkv {
namespace {

constexpr char32_t kCodePoints = 0x110000;
constexpr char32_t kReplacement = 0xfffd;

// One byte per code point: a megabyte of which real text touches a few pages.
std::vector<uint8_t> ExpandRanges() {
  std::vector<uint8_t> properties(kCodePoints);
  for (int range = 0; range < kUnicodeRangeCount; ++range) {
    const uint32_t begin = kUnicodeRanges[range] >> 8;
    const uint32_t end = range + 1 < kUnicodeRangeCount ? kUnicodeRanges[range + 1] >> 8 : kCodePoints;
    std::fill(properties.begin() + begin, properties.begin() + end, static_cast<uint8_t>(kUnicodeRanges[range]));
  }
  return properties;
}

// Length of the well-formed character at bytes[at]; 0 if ill-formed. `bad` is then the length of the maximal part that
// could begin a character, and `unfinished` says that only the end of the bytes is in the way.
size_t WellFormedLength(std::string_view bytes, size_t at, size_t& bad, bool& unfinished) {
  const auto byte = [&](size_t index) { return static_cast<unsigned char>(bytes[index]); };
  const unsigned char lead = byte(at);
  bad = 1;
  unfinished = false;
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const size_t length = Utf8Length(static_cast<char>(lead));
  // The second byte's range excludes overlong forms, surrogates and code points above U+10FFFF.
  const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  for (size_t offset = 1; offset < length; ++offset) {
    bad = offset;
    if (at + offset == bytes.size()) {
      unfinished = true;
      return 0;
    }
    const unsigned char next = byte(at + offset);
    if (next < (offset == 1 ? low : 0x80) || next > (offset == 1 ? high : 0xbf)) return 0;
  }
  return length;
}

// End of the valid UTF-8 that starts at `at`.
size_t SkipValid(std::string_view bytes, size_t at) {
  size_t bad;
  bool unfinished;
  while (at < bytes.size()) {
    const size_t length = WellFormedLength(bytes, at, bad, unfinished);
    if (length == 0) break;
    at += length;
  }
  return at;
}

struct ByteLevelAlphabet {
  std::array<char32_t, 256> chars;
  std::array<int16_t, 512> bytes;
  ByteLevelAlphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      chars[byte] = printable ? static_cast<char32_t>(byte) : next++;
      bytes[chars[byte]] = static_cast<int16_t>(byte);
    }
  }
};

const ByteLevelAlphabet& Alphabet() {
  static const ByteLevelAlphabet alphabet;
  return alphabet;
}

}  // namespace

CharProperties PropertiesOf(char32_t code_point) {
  static const std::vector<uint8_t> properties = ExpandRanges();
  return CharProperties(code_point < kCodePoints ? properties[code_point] : 0);
}

char32_t NextCodePoint(std::string_view text, size_t& at) {
  const auto byte = [&](size_t offset) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + offset])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) {
    at += 1;
    return lead;
  }
  char32_t code_point;
  if (lead < 0xe0) {
    code_point = (lead & 0x1f) << 6 | (byte(1) & 0x3f);
    at += 2;
  } else if (lead < 0xf0) {
    code_point = (lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    at += 3;
  } else {
    code_point = (lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
    at += 4;
  }
  return code_point;
}

void AppendUtf8(char32_t code_point, std::string& text) {
  const auto add = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    add(code_point);
  } else if (code_point < 0x800) {
    add(0xc0 | code_point >> 6);
    add(0x80 | (code_point & 0x3f));
  } else if (code_point < 0x10000) {
    add(0xe0 | code_point >> 12);
    add(0x80 | (code_point >> 6 & 0x3f));
    add(0x80 | (code_point & 0x3f));
  } else {
    add(0xf0 | code_point >> 18);
    add(0x80 | (code_point >> 12 & 0x3f));
    add(0x80 | (code_point >> 6 & 0x3f));
    add(0x80 | (code_point & 0x3f));
  }
}

size_t AppendLossy(std::string_view bytes, bool keep_unfinished, std::string& text) {
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t valid_end = SkipValid(bytes, at);
    text.append(bytes, at, valid_end - at);
    at = valid_end;
    if (at == bytes.size()) break;
    size_t bad;
    bool unfinished;
    WellFormedLength(bytes, at, bad, unfinished);
    if (unfinished && keep_unfinished) break;
    AppendUtf8(kReplacement, text);
    at += bad;
  }
  return at;
}

bool IsValidUtf8(std::string_view bytes) { return SkipValid(bytes, 0) == bytes.size(); }

std::string_view ValidUtf8(std::string_view bytes, std::string& storage) {
  if (IsValidUtf8(bytes)) return bytes;
  storage.clear();
  AppendLossy(bytes, false, storage);
  return storage;
}

char32_t ByteLevelChar(uint8_t byte) { return Alphabet().chars[byte]; }

std::optional<uint8_t> ByteLevelByte(char32_t code_point) {
  if (code_point >= Alphabet().bytes.size() || Alphabet().bytes[code_point] < 0) return std::nullopt;
  return static_cast<uint8_t>(Alphabet().bytes[code_point]);
}

}  // namespace swiftkv
