// Regular expressions in Oniguruma's syntax, which `tokenizers` uses, as PCRE2 reads them. The two agree but for what
// is translated here; what PCRE2 would silently take for something else and has no form for is refused by name.
//
//   SWIFTKV_ASSIGN_OR_RETURN(const std::string pcre, OnigurumaToPcre2(R"(\p{N}{1,3}+)"));   // (?:\p{N}{1,3})+
#ifndef SWIFTKV_TEXT_ONIGURUMA_H_
#define SWIFTKV_TEXT_ONIGURUMA_H_

#include <string>
#include <string_view>

#include "base/status.h"

namespace swiftkv {

// For PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE. `regex` is valid UTF-8. An expression that is wrong in both may come
// back as it is: PCRE2 will say so. Error kInvalidInput: there is no form for it. Source: doc/RE and regsyntax.c of
// Oniguruma 6.9, and tests/golden/pattern.
Result<std::string> OnigurumaToPcre2(std::string_view regex);

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_ONIGURUMA_H_
