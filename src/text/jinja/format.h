// Values as text: Python's str() and repr(), and json.dumps.
#ifndef SWIFTKV_TEXT_JINJA_FORMAT_H_
#define SWIFTKV_TEXT_JINJA_FORMAT_H_

#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "text/jinja/value.h"

namespace swiftkv::jinja {

std::string IntText(Int value);
// Python's repr of a float: the shortest digits that read back equal.
std::string FloatText(double value);

void AppendStringRepr(std::string* out, std::string_view text);
void AppendStr(Budget* budget, std::string* out, const Value& value);
void AppendRepr(Budget* budget, std::string* out, const Value& value);
std::string Str(Budget* budget, const Value& value);
std::string Repr(Budget* budget, const Value& value);

struct JsonOptions {
  bool ensure_ascii = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

// Python's json.dumps. Error: a value that JSON has no form for.
Status AppendJson(Budget* budget, std::string* out, const Value& value, const JsonOptions& options);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_FORMAT_H_
