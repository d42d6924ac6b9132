// Whether bytes from outside are text.
#ifndef SWIFTKV_ENGINE_UTF8_H_
#define SWIFTKV_ENGINE_UTF8_H_

#include <cstddef>
#include <optional>
#include <string_view>

namespace swiftkv {

// Offset of the first byte that is not part of valid UTF-8 (RFC 3629: no overlong forms, no surrogates, at most
// U+10FFFF); nullopt if all of it is valid.
std::optional<size_t> FirstInvalidUtf8(std::string_view text);

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_UTF8_H_
