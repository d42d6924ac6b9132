#include "checkpoint/json_file.h"

#include <array>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace swiftkv {
namespace {

// One pass before parsing, because a parsed document costs up to a hundred bytes of memory a byte of text.
Status CheckExtent(std::string_view text, const std::string& origin) {
  std::array<int64_t, kMaxJsonDepth + 1> members = {};  // colons outside strings at each depth
  int64_t depth = 0;
  int64_t key_steps = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') {
      if (++depth > kMaxJsonDepth) return InvalidInput("{}: JSON nested more than {} deep", origin, kMaxJsonDepth);
      members[depth] = 0;
    }
    if ((c == '}' || c == ']') && depth > 0) --depth;
    if (c != ':') continue;
    key_steps += members[depth];
    if (++members[depth] > kMaxJsonMembers) {
      return InvalidInput("{}: a JSON object with more than {} members", origin, kMaxJsonMembers);
    }
    if (key_steps > kMaxJsonKeySteps) {
      return InvalidInput("{}: JSON objects so large that their keys take more than {} steps", origin,
                          kMaxJsonKeySteps);
    }
  }
  return Ok();
}

}  // namespace

Result<nlohmann::ordered_json> ParseJsonObject(std::string_view text, const std::string& origin) {
  SWIFTKV_RETURN_IF_ERROR(CheckExtent(text, origin));
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
