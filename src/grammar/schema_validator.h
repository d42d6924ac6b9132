// For tests: whether a JSON value satisfies a schema, by the words of JSON Schema (draft 2020-12) alone, for the
// keywords that structured output supports.
#ifndef SWIFTKV_GRAMMAR_SCHEMA_VALIDATOR_H_
#define SWIFTKV_GRAMMAR_SCHEMA_VALIDATOR_H_

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

namespace swiftkv {

class SchemaValidator {
 public:
  explicit SchemaValidator(const nlohmann::json& root) : root_(root) {}
  bool Valid(const nlohmann::json& value) const { return Valid(root_, value); }

 private:
  using Json = nlohmann::json;

  bool Valid(const Json& schema, const Json& value) const {
    if (schema.is_boolean()) return schema.get<bool>();
    if (schema.contains("$ref")) {
      const Json::json_pointer place(schema.at("$ref").get<std::string>().substr(1));
      if (!Valid(root_.at(place), value)) return false;
    }
    return TypeFits(schema, value) && CombinationsFit(schema, value) && NumberFits(schema, value) &&
           StringFits(schema, value) && ArrayFits(schema, value) && ObjectFits(schema, value);
  }
  static bool IsType(const std::string& type, const Json& value) {
    if (type == "integer") return value.is_number() && value.get<double>() == std::floor(value.get<double>());
    if (type == "number") return value.is_number();
    return type == value.type_name();
  }
  static bool TypeFits(const Json& schema, const Json& value) {
    if (!schema.contains("type")) return true;
    const Json& type = schema.at("type");
    if (type.is_string()) return IsType(type.get<std::string>(), value);
    return std::any_of(type.begin(), type.end(), [&](const Json& t) { return IsType(t.get<std::string>(), value); });
  }
  bool CombinationsFit(const Json& schema, const Json& value) const {
    const auto valid = [&](const Json& option) { return Valid(option, value); };
    const auto count = [&](const char* keyword) {
      const Json& options = schema.at(keyword);
      return std::count_if(options.begin(), options.end(), valid);
    };
    if (schema.contains("const") && schema.at("const") != value) return false;
    if (schema.contains("enum") && !std::count(schema.at("enum").begin(), schema.at("enum").end(), value)) return false;
    if (schema.contains("anyOf") && count("anyOf") == 0) return false;
    if (schema.contains("oneOf") && count("oneOf") != 1) return false;
    return !schema.contains("allOf") || count("allOf") == static_cast<std::ptrdiff_t>(schema.at("allOf").size());
  }
  static bool NumberFits(const Json& schema, const Json& value) {
    if (!value.is_number()) return true;
    const auto number = value.get<double>();
    const auto bound = [&](const char* keyword, double missing) { return schema.value(keyword, missing); };
    return number >= bound("minimum", -INFINITY) && number <= bound("maximum", INFINITY) &&
           number > bound("exclusiveMinimum", -INFINITY) && number < bound("exclusiveMaximum", INFINITY);
  }
  static bool StringFits(const Json& schema, const Json& value) {
    if (!value.is_string()) return true;
    const auto& text = value.get_ref<const std::string&>();
    const auto length = std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
    return length >= schema.value("minLength", 0) && length <= schema.value("maxLength", 1 << 30);
  }
  bool ArrayFits(const Json& schema, const Json& value) const {
    if (!value.is_array()) return true;
    const auto size = static_cast<int>(value.size());
    if (size < schema.value("minItems", 0) || size > schema.value("maxItems", 1 << 30)) return false;
    const Json prefix = schema.value("prefixItems", Json::array());
    for (size_t i = 0; i < value.size(); ++i) {
      if (!Valid(i < prefix.size() ? prefix[i] : schema.value("items", Json(true)), value[i])) return false;
    }
    return true;
  }
  bool ObjectFits(const Json& schema, const Json& value) const {
    if (!value.is_object()) return true;
    for (const Json& name : schema.value("required", Json::array())) {
      if (!value.contains(name.get<std::string>())) return false;
    }
    const Json properties = schema.value("properties", Json::object());
    for (const auto& [name, member] : value.items()) {
      const bool named = properties.contains(name);
      if (!Valid(named ? properties.at(name) : schema.value("additionalProperties", Json(true)), member)) return false;
    }
    return true;
  }

  const Json& root_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_SCHEMA_VALIDATOR_H_
