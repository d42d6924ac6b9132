// Reading configuration files whose content is not trusted: every accessor names the field that is wrong.
#ifndef SWIFTKV_TEXT_JSON_READER_H_
#define SWIFTKV_TEXT_JSON_READER_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/printable.h"
#include "base/status.h"

namespace swiftkv {

// Parses `text`; errors begin with `origin`. Refuses deep nesting and more values than `max_values`, which would take
// far more memory than the text.
Result<nlohmann::json> ParseJson(std::string_view text, size_t max_values, const std::string& origin);

// A JSON object together with its place in the file ("tokenizer.json: pre_tokenizer").
class JsonObject {
 public:
  // Error kInvalidInput if `value` is no object.
  static Result<JsonObject> From(const nlohmann::json& value, const std::string& place);

  // The member, or nullptr where it is missing or null.
  const nlohmann::json* Find(const char* name) const;
  // Errors kInvalidInput: missing, or of another type.
  Result<const nlohmann::json*> Get(const char* name) const;
  Result<JsonObject> Object(const char* name) const;
  Result<const nlohmann::json*> Array(const char* name) const;
  Result<std::string> String(const char* name) const;
  Result<int64_t> Int(const char* name, int64_t low, int64_t high) const;
  // With a default for a missing or null member.
  Result<bool> Bool(const char* name, bool missing) const;
  Result<std::string> String(const char* name, const std::string& missing) const;

  const std::string& place() const { return place_; }
  std::string Place(std::string_view member) const { return fmt::format("{}.{}", place_, Printable(member)); }

 private:
  JsonObject(const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}
  const nlohmann::json* value_;
  std::string place_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_TEXT_JSON_READER_H_
