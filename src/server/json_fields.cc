#include "server/json_fields.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "checkpoint/json_file.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// Counts values by the separators outside strings.
Status CheckValues(std::string_view text) {
  int64_t values = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') ++i;
    if (c == '"') in_string = !in_string;
    if (!in_string && (c == ',' || c == '[' || c == '{') && ++values > kMaxBodyValues) {
      return InvalidInput("the body has more than {} JSON values", kMaxBodyValues);
    }
  }
  return Ok();
}

std::optional<int64_t> AsInt64(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  constexpr double kExact = 9007199254740992;  // 2^53: doubles beyond are not sure to be the integer that was written
  const auto number = value.get<double>();
  if (number != std::trunc(number) || std::abs(number) > kExact) return std::nullopt;
  return static_cast<int64_t>(number);
}

}  // namespace

Result<Json> ParseBody(std::string_view body) {
  SWIFTKV_RETURN_IF_ERROR(CheckValues(body));
  return ParseJsonObject(body, "the body");
}

std::optional<int32_t> AsInt32(const Json& value) {
  const auto number = AsInt64(value);
  if (!number || *number < std::numeric_limits<int32_t>::min() || *number > std::numeric_limits<int32_t>::max()) {
    return std::nullopt;
  }
  return static_cast<int32_t>(*number);
}

const Json* JsonFields::Find(std::string_view name) const {
  const auto found = object_->find(name);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

tl::unexpected<Error> JsonFields::Mismatch(std::string_view name, std::string_view expected) const {
  const Json& value = *Find(name);
  const std::string shown = value.is_number() ? value.dump() : value.type_name();
  return InvalidInput("{}{} must be {}, not {}", prefix_, name, expected, shown);
}

Status JsonFields::Read(std::string_view name, bool* target) const {
  const Json* value = Find(name);
  if (value == nullptr) return Ok();
  if (!value->is_boolean()) return Mismatch(name, "true or false");
  *target = value->get<bool>();
  return Ok();
}

Status JsonFields::Read(std::string_view name, double* target) const {
  const Json* value = Find(name);
  if (value == nullptr) return Ok();
  if (!value->is_number()) return Mismatch(name, "a number");
  *target = value->get<double>();
  return Ok();
}

Status JsonFields::Read(std::string_view name, int64_t* target) const {
  const Json* value = Find(name);
  if (value == nullptr) return Ok();
  const auto number = AsInt64(*value);
  if (!number) return Mismatch(name, "an integer of 64 bits");
  *target = *number;
  return Ok();
}

Status JsonFields::Read(std::string_view name, int32_t* target) const {
  const Json* value = Find(name);
  if (value == nullptr) return Ok();
  const auto number = AsInt32(*value);
  if (!number) return Mismatch(name, "an integer of 32 bits");
  *target = *number;
  return Ok();
}

Status JsonFields::Read(std::string_view name, std::string* target) const {
  const Json* value = Find(name);
  if (value == nullptr) return Ok();
  if (!value->is_string()) return Mismatch(name, "a string");
  *target = value->get<std::string>();
  return Ok();
}

Status JsonFields::Read(std::string_view name, std::vector<int32_t>* target) const {
  const Json* value = Find(name);
  if (value == nullptr) return Ok();
  if (!value->is_array()) return Mismatch(name, "an array of token ids");
  target->clear();
  target->reserve(value->size());
  for (const Json& entry : *value) {
    const auto id = AsInt32(entry);
    if (!id) return InvalidInput("{}{} must hold token ids; entry {} is none", prefix_, name, target->size());
    target->push_back(*id);
  }
  return Ok();
}

}  // namespace swiftkv
