// For tests: schemas that use everything that is supported, in the shapes that clients send.
#ifndef SWIFTKV_GRAMMAR_TEST_SCHEMAS_H_
#define SWIFTKV_GRAMMAR_TEST_SCHEMAS_H_

namespace swiftkv {

inline constexpr const char* kTestSchemas[] = {
    R"({"type": "object"})",
    R"({"type": "array"})",
    R"({"type": "string"})",
    R"({"type": "integer"})",
    R"({"type": "number"})",
    R"({"type": ["boolean", "null"]})",
    R"({"type": "integer", "minimum": -12, "maximum": 345})",
    R"({"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 11})",
    R"({"type": "integer", "minimum": 0.5})",
    R"({"type": "integer", "maximum": -100})",
    R"({"type": "number", "minimum": 0, "maximum": 1})",
    R"({"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 20})",
    R"({"type": "number", "exclusiveMaximum": 0})",
    R"({"type": "string", "minLength": 3, "maxLength": 5})",
    R"({"type": "string", "minLength": 2})",
    R"({"type": "string", "maxLength": 400})",
    R"({"enum": ["red", "red wine", 1, 12, null, {"a": [1]}, "\u00e9\"\\"]})",
    R"({"type": "string", "enum": ["a", 1, "b"]})",
    R"({"const": "x"})",
    R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
    R"({"type": "array", "items": {"const": 0}})",
    R"({"type": "array", "items": false})",
    R"({"prefixItems": [{"type": "string"}, {"type": "null"}], "items": {"type": "boolean"}, "minItems": 2})",
    R"({"prefixItems": [{"type": "integer"}], "minItems": 3})",
    R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
        "note": {"type": ["string", "null"]}}, "required": ["name", "age"], "additionalProperties": false})",
    R"({"properties": {"a": {"type": "integer"}, "ab": {"type": "null"}, "\u00e4": true},
        "additionalProperties": {"type": "string"}})",
    R"({"properties": {"x": {"const": 1}, "y": false}, "required": ["z"]})",
    R"({"type": "object", "additionalProperties": {"type": "number"}})",
    R"({"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "array", "items": {"$ref": "#"}}]})",
    R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}},
                   "required": ["kind", "lives"]},
                  {"type": "object", "properties": {"kind": {"enum": ["dog", "fox"]}, "name": {"type": "string"}},
                   "required": ["kind"]},
                  {"type": "null"}]})",
    R"({"$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer"},
                  "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                  "parent": {"anyOf": [{"allOf": [{"$ref": "#/$defs/node"}]}, {"type": "null"}]}},
                  "required": ["value"]}}, "$ref": "#/$defs/node"})",
    R"({"type": "object", "properties": {"list": {"type": "array", "items": {"anyOf": [
        {"type": "object", "properties": {"b": {"type": "boolean"}}},
        {"type": "object", "properties": {"b": {"type": "string"}, "c": {"type": "number"}}}]}}},
        "required": ["list"]})",
};

}  // namespace swiftkv

#endif  // SWIFTKV_GRAMMAR_TEST_SCHEMAS_H_
