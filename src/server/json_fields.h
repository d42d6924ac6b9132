// Reads the fields of a JSON object that a client sent. A message begins with the name of the field that is wrong.
//
//   SWIFTKV_ASSIGN_OR_RETURN(const nlohmann::ordered_json json, ParseBody(body));
//   const JsonFields fields(json);
//   SWIFTKV_RETURN_IF_ERROR(fields.Read("temperature", &params.temperature));
#ifndef SWIFTKV_SERVER_JSON_FIELDS_H_
#define SWIFTKV_SERVER_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace swiftkv {

// Values in one body: a token id takes two bytes of text and sixteen of memory, an empty array more.
inline constexpr int64_t kMaxBodyValues = 1 << 20;

// A request's body as a JSON object. Errors kInvalidInput: no JSON, not UTF-8, a number that no double can hold, no
// object, nested too deeply, too many values.
Result<nlohmann::ordered_json> ParseBody(std::string_view body);

class JsonFields {
 public:
  // `object` must be an object and outlive this. `prefix` stands before the names in messages ("stream_options.").
  explicit JsonFields(const nlohmann::ordered_json& object, std::string prefix = {})
      : object_(&object), prefix_(std::move(prefix)) {}

  // The field, or null where it is missing or null.
  const nlohmann::ordered_json* Find(std::string_view name) const;

  // Each leaves *target alone where the field is missing or null. Errors kInvalidInput: another type; an integer that
  // the type can't hold. A number without a fraction, such as 3.0, is an integer.
  Status Read(std::string_view name, bool* target) const;
  Status Read(std::string_view name, double* target) const;
  Status Read(std::string_view name, int64_t* target) const;
  Status Read(std::string_view name, int32_t* target) const;
  Status Read(std::string_view name, std::string* target) const;
  Status Read(std::string_view name, std::vector<int32_t>* target) const;
  template <class T>
  Status Read(std::string_view name, std::optional<T>* target) const {
    if (Find(name) == nullptr) return Ok();
    T value = {};
    SWIFTKV_RETURN_IF_ERROR(Read(name, &value));
    *target = std::move(value);
    return Ok();
  }

 private:
  tl::unexpected<Error> Mismatch(std::string_view name, std::string_view expected) const;

  const nlohmann::ordered_json* object_;
  std::string prefix_;
};

// The value as an integer of 32 bits, e.g. a token id; nullopt if it is none.
std::optional<int32_t> AsInt32(const nlohmann::ordered_json& value);

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_JSON_FIELDS_H_
