// YAML of recipes as plain data. Limits keep any text from being slow, deep or hungry; aliases, which could multiply a
// small text, are refused.
//
//   SWIFTKV_ASSIGN_OR_RETURN(YamlValue root, ParseYaml(text, "recipe.yaml"));
//   const YamlValue* epochs = root.Find("epochs");
#ifndef SWIFTKV_DISTILL_YAML_VALUE_H_
#define SWIFTKV_DISTILL_YAML_VALUE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace swiftkv {

inline constexpr int64_t kMaxYamlBytes = 256 << 10;
inline constexpr int64_t kMaxYamlDepth = 16;
inline constexpr size_t kMaxYamlMembers = 256;  // of one map

struct YamlValue {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  int64_t line = 0;  // where it begins, from 1
  std::string scalar;
  std::vector<std::string> keys;  // of a map, in the file's order, each once
  std::vector<YamlValue> items;   // of a list, or what the keys stand for

  // The member of a map, or nullptr.
  const YamlValue* Find(std::string_view key) const;
};

// One document; an empty one is kNull. Errors kInvalidInput: "origin:line: ...".
Result<YamlValue> ParseYaml(std::string_view text, const std::string& origin);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_YAML_VALUE_H_
