// Every text that a grammar lets through satisfies the schema, and it is never without a way on.
#include "grammar/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "grammar/schema_validator.h"
#include "grammar/structured_output.h"
#include "grammar/test_schemas.h"
#include "grammar/thread_sets.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;

// Token i is byte i.
std::vector<std::string> ByteTokens() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  return tokens;
}

std::shared_ptr<const TokenTrie> ByteTrie() {
  static const auto trie = *TokenTrie::Create(ByteTokens());
  return trie;
}

// Bytes, and many tokens that reach across the parts of JSON; some are the same, some are empty.
std::shared_ptr<const TokenTrie> MixedTrie() {
  static const auto trie = [] {
    std::vector<std::string> tokens = ByteTokens();
    const std::vector<std::string> parts = {"{", "}",    "[", "]",    ",",    ":",    "\"",  " ",  "a",
                                            "b", "name", "1", "0",    "-",    ".",    "e",   "\\", "u",
                                            "d", "8",    "é", "true", "null", "kind", "\xF0"};
    std::mt19937 random(5);
    for (int i = 0; i < 4000; ++i) {
      std::string& token = tokens.emplace_back();
      for (size_t length = random() % 6; length > 0; --length) token += parts[random() % parts.size()];
    }
    return *TokenTrie::Create(tokens);
  }();
  return trie;
}

std::shared_ptr<const TokenConstraintFactory> Compile(const std::string& schema,
                                                      const std::shared_ptr<const TokenTrie>& trie = ByteTrie()) {
  auto compiled = CompileJsonSchema(schema, trie);
  EXPECT_TRUE(compiled.has_value()) << schema << ": " << compiled.error().message;
  return compiled ? *compiled : nullptr;
}

std::string Refusal(const std::string& schema) {
  const auto compiled = CompileJsonSchema(schema, ByteTrie());
  if (compiled) return "";
  EXPECT_EQ(compiled.error().code, ErrorCode::kInvalidInput);
  return compiled.error().message;
}

std::vector<uint64_t> Mask(TokenConstraint* constraint, const TokenTrie& trie) {
  std::vector<uint64_t> mask(static_cast<size_t>((trie.vocab_size() + 63) / 64));
  EXPECT_TRUE(constraint->FillMask(mask));
  return mask;
}

bool Has(const std::vector<uint64_t>& mask, int32_t id) {
  return (mask[static_cast<size_t>(id / 64)] >> (id % 64)) & 1;
}

std::vector<int32_t> Tokens(const std::vector<uint64_t>& mask) {
  std::vector<int32_t> tokens;
  for (int32_t id = 0; id < static_cast<int32_t>(mask.size() * 64); ++id) {
    if (Has(mask, id)) tokens.push_back(id);
  }
  return tokens;
}

// "yes": a whole text; "prefix": it may go on; else where it stops.
std::string Reads(const std::string& schema, const std::string& text) {
  const auto factory = Compile(schema);
  const auto constraint = factory->New();
  for (size_t i = 0; i < text.size(); ++i) {
    if (!Has(Mask(constraint.get(), *ByteTrie()), static_cast<uint8_t>(text[i]))) return "stops at " + text.substr(i);
    constraint->Accept(static_cast<uint8_t>(text[i]));
  }
  return constraint->MayEnd() ? "yes" : "prefix";
}

// The token that brings the text nearer to its end.
int32_t Closing(const std::vector<int32_t>& allowed) {
  for (const char byte : {'"', '}', ']', 'n', '0', ':'}) {
    if (std::count(allowed.begin(), allowed.end(), byte) > 0) return byte;
  }
  return allowed.front();
}

// A text of random tokens; behind `budget` tokens, one that ends.
std::string RandomText(const TokenConstraintFactory& factory, const TokenTrie& trie, uint32_t seed, int budget) {
  std::mt19937 random(seed);
  const auto constraint = factory.New();
  std::string text;
  for (int i = 0; i < 20'000; ++i) {
    const std::vector<int32_t> allowed = Tokens(Mask(constraint.get(), trie));
    if (allowed.empty() || (constraint->MayEnd() && (i > budget || random() % 8 == 0))) {
      EXPECT_TRUE(constraint->MayEnd()) << "a dead end behind " << text;
      return text;
    }
    const int32_t token = i > budget ? Closing(allowed) : allowed[random() % allowed.size()];
    text += trie.Path(trie.node_of(token));
    constraint->Accept(token);
  }
  ADD_FAILURE() << "no end: " << text.substr(0, 200);
  return text;
}

TEST(GrammarTest, EveryTextSatisfiesTheSchema) {
  for (const char* schema : kTestSchemas) {
    const nlohmann::json json = nlohmann::json::parse(schema);
    for (const auto& trie : {ByteTrie(), MixedTrie()}) {
      const auto factory = Compile(schema, trie);
      for (uint32_t seed = 0; seed < 40; ++seed) {
        const std::string text = RandomText(*factory, *trie, seed, 30);
        const auto value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
        ASSERT_FALSE(value.is_discarded()) << schema << ": " << text;
        ASSERT_TRUE(SchemaValidator(json).Valid(value)) << schema << ": " << text;
      }
    }
  }
}

// What a token's bytes one by one lead to is what the mask says, whichever part of it was found before.
TEST(GrammarTest, MasksAreWhatTheBytesOfEachTokenSay) {
  for (const char* schema : kTestSchemas) {
    const auto factory = Compile(schema, MixedTrie());
    ThreadSets sets(static_cast<const Grammar&>(*factory).automaton());
    std::mt19937 random(7);
    const auto constraint = factory->New();
    int32_t set = sets.Start();
    for (int step = 0; step < 25; ++step) {
      const std::vector<uint64_t> mask = Mask(constraint.get(), *MixedTrie());
      for (int32_t id = 0; id < MixedTrie()->vocab_size(); ++id) {
        const int32_t node = MixedTrie()->node_of(id);
        int32_t after = set;
        for (const char byte : node < 0 ? "" : MixedTrie()->Path(node))
          after = sets.Step(after, static_cast<uint8_t>(byte));
        ASSERT_EQ(Has(mask, id), node >= 0 && after != ThreadSets::kDead) << schema << ", token " << id;
      }
      const std::vector<int32_t> allowed = Tokens(mask);
      if (allowed.empty()) break;
      const int32_t token = allowed[random() % allowed.size()];
      for (const char byte : MixedTrie()->Path(MixedTrie()->node_of(token)))
        set = sets.Step(set, static_cast<uint8_t>(byte));
      constraint->Accept(token);
    }
  }
}

TEST(GrammarTest, ReadsJson) {
  EXPECT_EQ(Reads(R"({"type": "object"})", R"({"a": [1, -2.5e-10,true,null], "b":{"c": "\u00e9\ud83d\uDE00\n"}})"),
            "yes");
  EXPECT_EQ(Reads(R"({"type": "object"})", R"({"a":)"), "prefix");
  EXPECT_EQ(Reads(R"({"type": "object"})", R"({"a":1,})"), "stops at }");
  EXPECT_EQ(Reads(R"({"type": "array"})", R"([1,])"), "stops at ]");
  EXPECT_EQ(Reads(R"({"type": "array"})", R"([1,  2])"), "stops at  2]");
  EXPECT_EQ(Reads(R"({"type": "string"})", "\"gr\xC3\xBC\xC3\x9F\""), "yes");
  EXPECT_EQ(Reads(R"({"type": "string"})", "\"\xC3\""), "stops at \"");
  EXPECT_EQ(Reads(R"({"type": "string"})", "\"\xED\xA0\x80\""), "stops at \xA0\x80\"");
  EXPECT_EQ(Reads(R"({"type": "string"})", R"("\ud83dx")"), "stops at x\"");
  EXPECT_EQ(Reads(R"({"type": "string"})", R"("\udc00")"), "stops at c00\"");
  EXPECT_EQ(Reads(R"({"type": "string"})", "\"a\nb\""), "stops at \nb\"");
  EXPECT_EQ(Reads(R"({"type": "number"})", "01"), "stops at 1");
  EXPECT_EQ(Reads(R"({"type": "number"})", "1e400"), "stops at 0");
  EXPECT_EQ(Reads(R"({"type": "integer"})", "1.0"), "stops at .0");
}

TEST(GrammarTest, ReadsWhatTheSchemaAsks) {
  const std::string person = R"({"properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "x": {}},
                                 "required": ["name", "x"]})";
  EXPECT_EQ(Reads(person, R"({"name":"A", "age": 3, "x": [{}]})"), "yes");
  EXPECT_EQ(Reads(person, R"({"name": "A","x": 1})"), "yes");
  EXPECT_EQ(Reads(person, R"({"name": "A"})"), "stops at }");
  EXPECT_EQ(Reads(person, R"({"x": 1})"), "stops at x\": 1}");
  const std::string others =
      R"({"properties": {"a": {"type": "null"}, "abc": {}}, "additionalProperties": {"type": "integer"}})";
  EXPECT_EQ(Reads(others, R"({"a": null, "ab": 1, "b": 2})"), "yes");
  EXPECT_EQ(Reads(others, R"({"a": 1})"), "stops at 1}");
  EXPECT_EQ(Reads(others, R"({"abcd": 1, "": 2})"), "yes");
  EXPECT_EQ(Reads(R"({"type": "object", "properties": {}})", "{}"), "yes");
  EXPECT_EQ(Reads(R"({"type": "object", "properties": {}})", R"({"a": 1})"), "stops at \"a\": 1}");
  EXPECT_EQ(Reads(R"({"properties": {}, "additionalProperties": true})", R"({"a": 1})"), "yes");
  EXPECT_EQ(Reads(R"({"type": "integer", "minimum": 17, "maximum": 203})", "203"), "yes");
  EXPECT_EQ(Reads(R"({"type": "integer", "minimum": 17, "maximum": 203})", "204"), "stops at 4");
  EXPECT_EQ(Reads(R"({"type": "number", "minimum": 0, "maximum": 1})", "0.25"), "yes");
  EXPECT_EQ(Reads(R"({"type": "number", "minimum": 0, "maximum": 1})", "1.01"), "stops at 1");
  EXPECT_EQ(Reads(R"({"type": "string", "maxLength": 2})", "\"\xC3\xA9\\n\""), "yes");
  EXPECT_EQ(Reads(R"({"type": "string", "maxLength": 2})", R"("abc")"), "stops at c\"");
}

// As Pydantic writes a union of models that a member tells apart.
TEST(GrammarTest, ADiscriminatorIsAnAnnotation) {
  const std::string pet = R"({"$defs": {
      "Cat": {"type": "object", "properties": {"kind": {"const": "cat", "type": "string"}}, "required": ["kind"]},
      "Dog": {"type": "object", "properties": {"kind": {"const": "dog", "type": "string"}}, "required": ["kind"]}},
      "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}},
      "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]})";
  EXPECT_EQ(Reads(pet, R"({"kind": "dog"})"), "yes");
  EXPECT_EQ(Reads(pet, R"({"kind": "cow"})"), "stops at ow\"}");
}

// Every integer, against arithmetic.
TEST(GrammarTest, IntegerRangesAreExact) {
  const std::vector<std::pair<int, int>> ranges = {{-120, 99}, {0, 0}, {7, 105}, {-31, -4}, {100, 999}, {-1, 1}};
  for (const auto& [low, high] : ranges) {
    const auto schema = fmt::format(R"({{"type": "integer", "minimum": {}, "maximum": {}}})", low, high);
    for (int value = -200; value <= 1100; ++value) {
      ASSERT_EQ(Reads(schema, std::to_string(value)) == "yes", low <= value && value <= high) << schema << value;
    }
  }
}

TEST(GrammarTest, SaysWhatItCannotKeep) {
  EXPECT_THAT(Refusal(R"({"properties": {"a": {"not": {}}}})"), HasSubstr("#/properties/a: the keyword 'not'"));
  EXPECT_THAT(Refusal(R"({"type": "array", "uniqueItems": true})"), HasSubstr("'uniqueItems'"));
  EXPECT_THAT(Refusal(R"({"type": "number", "minimum": 0.5})"), HasSubstr("'minimum' is 0.5"));
  EXPECT_THAT(Refusal(R"({"$ref": "http://example.org/x"})"), HasSubstr("'http://example.org/x'"));
  EXPECT_THAT(Refusal(R"({"$ref": "#/$defs/gone"})"), HasSubstr("'#/$defs/gone', which does not exist"));
  EXPECT_THAT(Refusal(R"({"$ref": "#"})"), HasSubstr("circle"));
  EXPECT_THAT(Refusal(R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})"), HasSubstr("refers to itself"));
  EXPECT_THAT(Refusal(R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})"),
              HasSubstr("both schema 0 and schema 1"));
  EXPECT_THAT(Refusal(R"({"allOf": [{}, {}]})"), HasSubstr("'allOf' of more than one"));
  EXPECT_THAT(Refusal(R"({"type": "array", "items": [{}]})"), HasSubstr("#/items: a schema must be"));
  EXPECT_THAT(Refusal(R"({"type": "float"})"), HasSubstr("float"));
  EXPECT_THAT(Refusal(R"({"type": "object", "required": "a"})"), HasSubstr("'required'"));
  EXPECT_THAT(Refusal(R"({"type": "string", "minLength": -1})"), HasSubstr("'minLength'"));
  EXPECT_THAT(Refusal(R"({"type": "string", "minLength": 3, "maxLength": 2})"), HasSubstr("'maxLength'"));
  EXPECT_THAT(Refusal("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(Refusal("{"), HasSubstr("not valid JSON"));
}

TEST(GrammarTest, RefusesWhatNoTextSatisfies) {
  EXPECT_THAT(Refusal(R"({"type": "array", "items": false, "minItems": 1})"), HasSubstr("no text satisfies"));
  EXPECT_THAT(Refusal(R"({"type": "string", "enum": [1]})"), HasSubstr("no text satisfies"));
  EXPECT_THAT(Refusal(R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})"), HasSubstr("no text satisfies"));
  EXPECT_THAT(Refusal(R"({"type": "integer", "minimum": 2, "maximum": 1})"), HasSubstr("no text satisfies"));
  EXPECT_THAT(Refusal(R"({"additionalProperties": false, "required": ["a"]})"), HasSubstr("no text satisfies"));
}

// Schemas made to cost time or memory end in a sentence or a grammar, quickly.
TEST(GrammarTest, BombsAreRefused) {
  EXPECT_THAT(Refusal(std::string(kMaxSchemaBytes + 1, ' ')), HasSubstr("the limit is"));
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += R"({"items":)";
  EXPECT_THAT(Refusal(deep + "{}" + std::string(100, '}')), HasSubstr("nested more than"));
  EXPECT_THAT(Refusal(R"({"type": "string", "maxLength": 1000000000})"), HasSubstr("too large"));
  EXPECT_THAT(Refusal(R"({"type": "array", "minItems": 1e18})"), HasSubstr("too large"));
  // Doubles with each level, if it were unrolled.
  std::string doubling = R"({"$ref": "#/$defs/a0", "$defs": {"a40": {"type": "null"})";
  for (int i = 0; i < 40; ++i) {
    doubling += fmt::format(R"(,"a{}": {{"prefixItems": [{{"$ref": "#/$defs/a{}"}}, {{"$ref": "#/$defs/a{}"}}]}})", i,
                            i + 1, i + 1);
  }
  EXPECT_EQ(Refusal(doubling + "}}"), "");
  // Each pair of 256 options has 100 members to compare.
  std::string names = "\"z\"";
  for (int i = 0; i < 100; ++i) names += fmt::format(R"(,"a{}")", i);
  std::string options;
  for (int i = 0; i < 256; ++i) {
    options +=
        fmt::format(R"({}{{"properties": {{"z": {{"const": {}}}}}, "required": [{}]}})", i == 0 ? "" : ",", i, names);
  }
  EXPECT_THAT(Refusal(R"({"oneOf": [)" + options + "]}"), HasSubstr("too much to compare"));
}

TEST(GrammarTest, AWholeConstantIsAnInteger) {
  const std::string two = R"({"type": "integer", "enum": [2.0, 2.5, -10.0, 1e300]})";
  EXPECT_EQ(Reads(two, "2"), "yes");
  EXPECT_EQ(Reads(two, "-10"), "yes");
  EXPECT_EQ(Reads(two, "2.0"), "stops at .0");
  EXPECT_EQ(Reads(two, "1"), "stops at 1");
  EXPECT_EQ(Reads(R"({"type": "number", "enum": [2.0, 2.5]})", "2"), "yes");
  EXPECT_EQ(Reads(R"({"type": "number", "const": 2.5})", "2.5"), "yes");
  EXPECT_EQ(Reads(R"({"const": 1e300})", "1e+300"), "yes");
}

// A large constant, named by each of 256 options, is looked at once.
TEST(GrammarTest, LargeConstantsAreComparedOnce) {
  std::string large = "[";
  for (int i = 0; i < 60'000; ++i) large += i == 0 ? "[]" : ",[]";
  std::string options;
  for (int i = 0; i < 256; ++i) {
    options += fmt::format(R"({}{{"properties": {{"a": {{"$ref": "#/$defs/l"}}, "z": {{"const": {}}}}},)"
                           R"("required": ["a", "z"]}})",
                           i == 0 ? "" : ",", i);
  }
  // 45 ms for each of 32,640 pairs when it was copied: this would not end within a test's time.
  EXPECT_THAT(Refusal(fmt::format(R"({{"oneOf": [{}], "$defs": {{"l": {{"const": {}]}}}}}})", options, large)),
              HasSubstr("too large: it needs more than"));
}

// Two readings of each level: the number of readings doubles, and the limit on them leaves valid texts.
TEST(GrammarTest, AmbiguityIsBounded) {
  const std::string schema = R"({"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "null"},
                                           {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"type": "boolean"}]}}]})";
  EXPECT_EQ(Reads(schema, std::string(200, '[') + "null" + std::string(200, ']')), "yes");
  const auto factory = Compile(schema, MixedTrie());
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const auto value = nlohmann::json::parse(RandomText(*factory, *MixedTrie(), seed, 100), nullptr, false);
    EXPECT_TRUE(SchemaValidator(nlohmann::json::parse(schema)).Valid(value));
  }
}

// Makes few masks for one token, and allows what the masks of all readings do, also where there are too many to follow.
TEST(GrammarTest, ManyReadingsAreTriedTogether) {
  std::vector<std::string> tokens = ByteTokens();
  tokens.insert(tokens.end(), {"ab", "abc\"", "\",\"z"});
  const auto trie = *TokenTrie::Create(tokens);
  nlohmann::ordered_json strings = {{"anyOf", nlohmann::ordered_json::array()}};
  nlohmann::ordered_json objects = strings;
  for (int i = 0; i < 30; ++i) {
    strings["anyOf"].push_back({{"type", "string"}, {"minLength", 5}, {"maxLength", 6 + i}});
    nlohmann::ordered_json properties = {{"a", {{"type", "string"}, {"maxLength", 3 + i}}}};
    for (int j = 0; j < 40; ++j) properties[fmt::format("{}", j)] = {{"type", "integer"}};
    if (i == 29) properties["z"] = {{"type", "integer"}};
    objects["anyOf"].push_back({{"properties", properties}, {"required", {"a"}}});
  }
  for (const auto& [schema, text] : {std::pair(strings, "\"aabb"), std::pair(objects, "{\"a\": \"1")}) {
    const auto compile = [&] { return std::dynamic_pointer_cast<const Grammar>(Compile(schema.dump(), trie)); };
    const auto fresh = compile();
    const auto warm = compile();
    for (int32_t state = 0; state < warm->automaton().states(); ++state) warm->Mask(state);
    const auto together = fresh->New();
    const auto one_by_one = warm->New();
    for (const char* byte = text; *byte != 0; ++byte) {
      together->Accept(static_cast<uint8_t>(*byte));
      one_by_one->Accept(static_cast<uint8_t>(*byte));
    }
    EXPECT_EQ(Mask(together.get(), *trie), Mask(one_by_one.get(), *trie));
    int made = 0;
    for (int32_t state = 0; state < fresh->automaton().states(); ++state) made += fresh->KnownMask(state) ? 1 : 0;
    EXPECT_LE(made, 2);
  }
}

// Without a token for some byte, what needs that byte is not begun.
TEST(GrammarTest, KeepsToTheBytesThatTheVocabularyHas) {
  std::vector<std::string> tokens = ByteTokens();
  tokens[0xA9] = "";
  tokens['t'] = "";
  const auto trie = *TokenTrie::Create(tokens);
  const auto grammar = *CompileJsonSchema(R"({"type": ["boolean", "string"]})", trie);
  const auto constraint = grammar->New();
  EXPECT_FALSE(Has(Mask(constraint.get(), *trie), 't'));
  EXPECT_TRUE(Has(Mask(constraint.get(), *trie), 'f'));
  tokens['{'] = "";
  EXPECT_THAT(CompileJsonObject(*TokenTrie::Create(tokens)).error().message, HasSubstr("no text satisfies"));
}

// Options and optional members are readings of their own until their names part.
TEST(GrammarTest, TheLastOfManyOptionsCanBeChosen) {
  nlohmann::ordered_json options = {{"anyOf", nlohmann::ordered_json::array()}};
  for (int i = 0; i < 255; ++i) options["anyOf"].push_back({{"const", fmt::format("B{}", i)}});
  options["anyOf"].push_back({{"const", "Paris"}});
  EXPECT_EQ(Reads(options.dump(), "\"Paris\""), "yes");
  EXPECT_EQ(Reads(options.dump(), "\"B254\""), "yes");

  nlohmann::ordered_json object = {{"properties", nlohmann::ordered_json::object()}, {"required", {"city"}}};
  for (int i = 0; i < 400; ++i) object["properties"][fmt::format("p{}", i)] = {{"type", "integer"}};
  object["properties"]["city"] = {{"type", "string"}};
  EXPECT_EQ(Reads(object.dump(), R"({"city": "Rome"})"), "yes");
  EXPECT_EQ(Reads(object.dump(), R"({"p399": 1, "city": "Rome"})"), "yes");
  for (int i = 0; i < 1000; ++i) object["properties"][fmt::format("q{}", i)] = {{"type", "integer"}};
  object["properties"]["end"] = {{"type", "null"}};
  object["required"].push_back("end");
  EXPECT_EQ(Reads(object.dump(), R"({"city": "Rome", "end": null})"), "yes");
  object["required"] = {"p0"};
  object["additionalProperties"] = {{"type", "null"}};
  EXPECT_EQ(Reads(object.dump(), R"({"p0": 1, "other": null})"), "yes");
}

TEST(GrammarTest, ExclusiveBoundsKeepSmallFractions) {
  const std::string above = R"({"type": "number", "exclusiveMinimum": 0})";
  for (const char* text : {"0.5", "0.05", "0.000000000000001", "0.10", "1.0"}) EXPECT_EQ(Reads(above, text), "yes");
  EXPECT_EQ(Reads(above, "0.00"), "prefix");
  EXPECT_EQ(Reads(above, "0"), "prefix");
  EXPECT_EQ(Reads(above, "0.000000000000000"), "stops at 0");
  EXPECT_EQ(Reads(R"({"type": "number", "exclusiveMaximum": 0})", "-0.05"), "yes");
}

TEST(GrammarTest, BoundsThatEveryNumberKeepsAreNone) {
  const std::string safe = R"({"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991})";
  EXPECT_EQ(Reads(safe, "-999999999999999"), "yes");
  EXPECT_EQ(Reads(R"({"type": "integer", "minimum": 3, "maximum": 1e300})", "2"), "prefix");
  EXPECT_THAT(Refusal(R"({"type": "integer", "minimum": 9007199254740991})"), HasSubstr("bounds reach to"));
  EXPECT_THAT(Refusal(R"({"type": "number", "maximum": -1e300})"), HasSubstr("bounds reach to"));
}

// Without 'type', keywords say nothing about values of other types.
TEST(GrammarTest, OneOfKnowsWhatSatisfiesAnUntypedSchema) {
  EXPECT_THAT(
      Refusal(R"({"oneOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "null"}]})"),
      HasSubstr("both schema 0 and schema 1"));
  EXPECT_THAT(Refusal(R"({"oneOf": [{"const": "a"}, {"minimum": 5}]})"), HasSubstr("both schema 0 and schema 1"));
  EXPECT_EQ(Refusal(R"({"oneOf": [{"const": 1}, {"enum": [2, {"b": 1, "a": [1]}]}, {"const": {"a": [2], "b": 1}}]})"),
            "");
  EXPECT_THAT(Refusal(R"({"oneOf": [{"const": {"a": 1, "b": 2}}, {"const": {"b": 2.0, "a": 1}}]})"),
              HasSubstr("both schema 0 and schema 1"));
}

TEST(GrammarTest, ManyOptionalMembers) {
  nlohmann::ordered_json schema = {{"type", "object"}, {"properties", nlohmann::ordered_json::object()}};
  for (int i = 0; i < 2000; ++i) schema["properties"][fmt::format("p{}", i)] = {{"type", "null"}};
  const auto factory = Compile(schema.dump(), MixedTrie());
  for (uint32_t seed = 0; seed < 5; ++seed) {
    const auto value = nlohmann::json::parse(RandomText(*factory, *MixedTrie(), seed, 300), nullptr, false);
    EXPECT_TRUE(SchemaValidator(nlohmann::json::parse(schema.dump())).Valid(value));
  }
}

}  // namespace
}  // namespace swiftkv
