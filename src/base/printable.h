// Text from a file, fit for a message and for a terminal.
#ifndef SWIFTKV_BASE_PRINTABLE_H_
#define SWIFTKV_BASE_PRINTABLE_H_

#include <string>
#include <string_view>

namespace swiftkv {

// A word of a file as part of a message: short, and in ASCII.
inline std::string Printable(std::string_view text) {
  constexpr size_t kMaxLength = 120;
  std::string result;
  for (const char c : text.substr(0, kMaxLength)) {
    const auto byte = static_cast<unsigned char>(c);
    result += byte < 0x20 || byte >= 0x7f ? '?' : c;
  }
  if (text.size() > kMaxLength) result += "...";
  return result;
}

// A message in UTF-8, which may hold words from elsewhere, without what a terminal would act on: control characters but
// for line ends and tabs, Unicode's second set of them (U+0080 to U+009F) included.
inline std::string WithoutControls(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool second_set = byte == 0xc2 && next >= 0x80 && next < 0xa0;  // in two bytes
    const bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f || second_set;
    result += control ? '?' : text[i];
    if (second_set) ++i;
  }
  return result;
}

// Such a message as the value of a key in a line of a log.
inline std::string LogValue(std::string_view text) {
  std::string result = "\"";
  for (const char c : WithoutControls(text)) {
    if (c == '"' || c == '\\') result += '\\';
    result += c == '\n' || c == '\t' ? ' ' : c;
  }
  result += '"';
  return result;
}

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_PRINTABLE_H_
