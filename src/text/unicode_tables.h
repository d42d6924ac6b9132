// The generated table behind unicode.h.
#ifndef SWIFTKV_TEXT_UNICODE_TABLES_H_
#define SWIFTKV_TEXT_UNICODE_TABLES_H_

#include <cstdint>

namespace swiftkv {

// Sorted; each entry is first code point << 8 | properties, and holds up to the next entry.
extern const uint32_t kUnicodeRanges[];
extern const int kUnicodeRangeCount;

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_UNICODE_TABLES_H_
