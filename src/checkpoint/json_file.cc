#include "checkpoint/json_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace swiftkv {
namespace {

struct Extent {
  int64_t depth = 0;    // of brackets outside strings
  int64_t members = 0;  // colons outside strings
};

// One pass before parsing, because a parsed document costs up to a hundred bytes of memory a byte of text.
Extent Measure(std::string_view text) {
  Extent extent;
  int64_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') extent.depth = std::max(extent.depth, ++depth);
    if (c == '}' || c == ']') --depth;
    if (c == ':') ++extent.members;
  }
  return extent;
}

}  // namespace

Result<nlohmann::ordered_json> ParseJsonObject(std::string_view text, const std::string& origin) {
  const Extent extent = Measure(text);
  if (extent.depth > kMaxJsonDepth) {
    return InvalidInput("{}: JSON nested {} deep, the limit is {}", origin, extent.depth, kMaxJsonDepth);
  }
  if (extent.members > kMaxJsonMembers) {
    return InvalidInput("{}: JSON with {} members, the limit is {}", origin, extent.members, kMaxJsonMembers);
  }
  auto json = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return InvalidInput("{}: not valid JSON", origin);
  if (!json.is_object()) return InvalidInput("{}: not a JSON object", origin);
  return json;
}

Result<nlohmann::ordered_json> ReadJsonFile(const std::string& path) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxJsonFileBytes));
  return ParseJsonObject(text, path);
}

}  // namespace swiftkv
