// JSON of configuration files, with limits: no text can make parsing slow, deep or hungry.
//
//   SWIFTKV_ASSIGN_OR_RETURN(nlohmann::ordered_json json, ReadJsonFile(folder + "/config.json"));
#ifndef SWIFTKV_CHECKPOINT_JSON_FILE_H_
#define SWIFTKV_CHECKPOINT_JSON_FILE_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace swiftkv {

inline constexpr int64_t kMaxJsonFileBytes = 4 << 20;
inline constexpr int64_t kMaxJsonDepth = 64;
// Of one object. An ordered object finds its keys by walking them, so their number is kept small,
inline constexpr int64_t kMaxJsonMembers = 8192;
// and so is what all objects together cost: keys walked past, each some 4 ns. Two objects of the size above reach it.
inline constexpr int64_t kMaxJsonKeySteps = int64_t{1} << 26;

// Error kInvalidInput: no JSON, no object, too deep, too many members.
// `origin` (a path) opens the message.
Result<nlohmann::ordered_json> ParseJsonObject(std::string_view text, const std::string& origin);
// The same for a file; kNotFound if there is none.
Result<nlohmann::ordered_json> ReadJsonFile(const std::string& path);

}  // namespace swiftkv

#endif  // SWIFTKV_CHECKPOINT_JSON_FILE_H_
