// Text from a file, fit for a message: short, and without bytes that a terminal would act on.
#ifndef SWIFTKV_BASE_PRINTABLE_H_
#define SWIFTKV_BASE_PRINTABLE_H_

#include <string>
#include <string_view>

namespace swiftkv {

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

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_PRINTABLE_H_
