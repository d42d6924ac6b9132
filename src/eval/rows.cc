#include "eval/rows.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "base/file.h"
#include "text/json_reader.h"

namespace swiftkv {
namespace {

constexpr size_t kMaxRowValues = 10'000;
constexpr size_t kMaxArrayValues = 10'000'000;

tl::unexpected<Error> NoRows(const std::string& path) { return InvalidInput("{}: the file has no rows", path); }

Status ForEachLine(std::string_view content, const std::function<Status(int64_t number, std::string_view line)>& read) {
  int64_t number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string_view line = content.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) SWIFTKV_RETURN_IF_ERROR(read(number, line));
  }
  return Ok();
}

Status ReadLines(std::string_view content, const std::string& path,
                 const std::function<Status(const JsonObject& row)>& read) {
  return ForEachLine(content, [&](int64_t number, std::string_view line) -> Status {
    const std::string place = fmt::format("{}: line {}", path, number);
    SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(line, kMaxRowValues, place));
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject row, JsonObject::From(json, place));
    return read(row);
  });
}

Status ReadArray(std::string_view content, const std::string& path,
                 const std::function<Status(const JsonObject& row)>& read) {
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(content, kMaxArrayValues, path));
  if (json.empty()) return NoRows(path);
  int64_t number = 0;
  for (const nlohmann::json& value : json) {
    SWIFTKV_ASSIGN_OR_RETURN(const JsonObject row, JsonObject::From(value, fmt::format("{}: row {}", path, ++number)));
    SWIFTKV_RETURN_IF_ERROR(read(row));
  }
  return Ok();
}

}  // namespace

Status ForEachRow(const std::string& path, const std::function<Status(const JsonObject& row)>& read) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxSetBytes));
  const size_t first = content.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return NoRows(path);
  return content[first] == '[' ? ReadArray(content, path, read) : ReadLines(content, path, read);
}

Result<std::vector<std::string>> RowTexts(const std::string& path) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxSetBytes));
  std::vector<std::string> texts;
  const size_t first = content.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && content[first] == '[') {
    SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(content, kMaxArrayValues, path));
    for (const nlohmann::json& row : json) texts.push_back(row.dump());
  } else {
    SWIFTKV_RETURN_IF_ERROR(ForEachLine(content, [&](int64_t /*number*/, std::string_view line) {
      texts.emplace_back(line);
      return Ok();
    }));
  }
  return texts;
}

Result<std::vector<std::string>> Strings(const JsonObject& row, const char* name, size_t at_least) {
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* array, row.Array(name));
  std::vector<std::string> strings;
  for (const nlohmann::json& value : *array) {
    if (!value.is_string()) return InvalidInput("{} must hold strings, not {}", row.Place(name), value.type_name());
    strings.push_back(value.get<std::string>());
  }
  if (strings.size() < at_least) {
    return InvalidInput("{} has {} entries; at least {} are needed", row.Place(name), strings.size(), at_least);
  }
  return strings;
}

}  // namespace swiftkv
