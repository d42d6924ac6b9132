#include "text/json_reader.h"

#include <utility>

namespace swiftkv {
namespace {

constexpr int kMaxDepth = 100;

// Counts values by the separators outside strings.
Status CheckSize(std::string_view text, size_t max_values, const std::string& origin) {
  size_t values = 0;
  int depth = 0;
  bool in_string = false;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (c == '[' || c == '{' || c == ',') ++values;
    if (depth > kMaxDepth) return InvalidInput("{}: JSON is nested deeper than {} levels", origin, kMaxDepth);
    if (values > max_values) return InvalidInput("{}: JSON has more than {} values", origin, max_values);
  }
  return Ok();
}

}  // namespace

Result<nlohmann::json> ParseJson(std::string_view text, size_t max_values, const std::string& origin) {
  SWIFTKV_RETURN_IF_ERROR(CheckSize(text, max_values, origin));
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    // Its message would repeat the file's text, all of it where a string has no end.
    return InvalidInput("{}: not valid JSON at byte {}", origin, error.byte);
  } catch (const nlohmann::json::exception&) {
    return InvalidInput("{}: not valid JSON: a number is out of range", origin);
  }
}

Result<JsonObject> JsonObject::From(const nlohmann::json& value, const std::string& place) {
  if (!value.is_object()) return InvalidInput("{} must be an object, not {}", place, value.type_name());
  return JsonObject(value, place);
}

const nlohmann::json* JsonObject::Find(const char* name) const {
  const auto found = value_->find(name);
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

Result<const nlohmann::json*> JsonObject::Get(const char* name) const {
  const nlohmann::json* value = Find(name);
  if (!value) return InvalidInput("{} is missing", Place(name));
  return value;
}

Result<JsonObject> JsonObject::Object(const char* name) const {
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Get(name));
  return From(*value, Place(name));
}

Result<const nlohmann::json*> JsonObject::Array(const char* name) const {
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Get(name));
  if (!value->is_array()) return InvalidInput("{} must be an array, not {}", Place(name), value->type_name());
  return value;
}

Result<std::string> JsonObject::String(const char* name) const {
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Get(name));
  if (!value->is_string()) return InvalidInput("{} must be a string, not {}", Place(name), value->type_name());
  return value->get<std::string>();
}

Result<std::string> JsonObject::String(const char* name, const std::string& missing) const {
  return Find(name) ? String(name) : Result<std::string>(missing);
}

Result<int64_t> JsonObject::Int(const char* name, int64_t low, int64_t high) const {
  SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::json* value, Get(name));
  if (!value->is_number_integer()) return InvalidInput("{} must be an integer", Place(name));
  const bool too_large = value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (too_large || value->get<int64_t>() < low || value->get<int64_t>() > high) {
    return InvalidInput("{} is {}, which is not between {} and {}", Place(name), value->dump(), low, high);
  }
  return value->get<int64_t>();
}

Result<bool> JsonObject::Bool(const char* name, bool missing) const {
  const nlohmann::json* value = Find(name);
  if (!value) return missing;
  if (!value->is_boolean()) return InvalidInput("{} must be true or false, not {}", Place(name), value->type_name());
  return value->get<bool>();
}

}  // namespace swiftkv
