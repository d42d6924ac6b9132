#include "server/tool_calls.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

const Json kTools = Json::parse(R"([
  {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}},
  {"type": "function", "function": {"name": "time"}}])");

ToolRules Rules(const Json& tool_choice) {
  auto rules = ReadToolRules(&kTools, &tool_choice);
  EXPECT_TRUE(rules) << rules.error().message;
  return *rules;
}

std::string Show(const ToolCallReader::News& news) {
  std::string text = news.content;
  for (const ToolCallReader::Call& call : news.calls) {
    text += fmt::format("|{} {} {} {}", call.index, call.id, call.name, call.arguments);
  }
  return text;
}

// What is read from `text` at once, which must be the same as in pieces of any size.
std::string Read(const std::string& text, const Json& tool_choice = "auto", bool parallel = true) {
  ToolRules rules = Rules(tool_choice);
  rules.parallel = parallel;
  ToolCallReader whole(&rules, "c");
  const ToolCallReader::News expected = whole.Push(text, true);
  for (size_t size = 1; size < text.size(); size += 3) {
    ToolCallReader reader(&rules, "c");
    ToolCallReader::News sum;
    for (size_t i = 0; i < text.size(); i += size) {
      ToolCallReader::News news = reader.Push(text.substr(i, size), i + size >= text.size());
      sum.content += news.content;
      for (ToolCallReader::Call& call : news.calls) {
        if (call.name.empty()) {
          sum.calls.back().arguments += call.arguments;
        } else {
          sum.calls.push_back(std::move(call));
        }
      }
    }
    EXPECT_EQ(Show(sum), Show(expected)) << "in pieces of " << size;
    EXPECT_EQ(reader.has_calls(), whole.has_calls());
  }
  return Show(expected);
}

TEST(ToolCallReader, ReadsEachSpelling) {
  const std::string call = R"({"name": "weather", "arguments": {"city": "Oslo {\"}"}})";
  const std::string read = R"(|0 c-0 weather {"city":"Oslo {\"}"})";
  EXPECT_EQ(Read("<tool_call>\n" + call + "\n</tool_call>"), read);
  EXPECT_EQ(Read("<tool_call>" + call), read);  // cut by the end token
  EXPECT_EQ(Read("<tool_call>[" + call + "]</tool_call>"), read);
  EXPECT_EQ(Read("I look it up.\n<tool_call>" + call + "</tool_call>\n"), "I look it up." + read);
  EXPECT_EQ(Read("<tool_call>" + call + "</tool_call>\nDone."), "Done." + read);
  EXPECT_EQ(Read("Wait.\n<tool_call>" + call + "</tool_call> Done."), "Wait.\nDone." + read);
  EXPECT_EQ(Read("[TOOL_CALLS] [" + call + "]"), read);
  EXPECT_EQ(Read("\n" + call + "\n"), read);
  EXPECT_EQ(Read(R"({"name": "weather", "parameters": {"city": "Rome"}})"), R"(|0 c-0 weather {"city":"Rome"})");
  EXPECT_EQ(Read(R"({"name": "time"}; {"name": "time", "parameters": {}})"), "|0 c-0 time {}|1 c-1 time {}");
  EXPECT_EQ(Read("<tool_call>" + call + "</tool_call>\n<tool_call>{\"name\": \"time\"}</tool_call>"),
            read + "|1 c-1 time {}");
}

TEST(ToolCallReader, LeavesOtherTextAlone) {
  for (const char* text : {"",
                           " ",
                           "Hello",
                           "a < b",
                           "a <tool",
                           "Hello\n",
                           "{",
                           "{}",
                           "[1, 2]",
                           "{\"name\": \"unknown\"}",
                           "{\"name\": \"time\"} and more",
                           "Call {\"name\": \"time\"}",
                           "<tool_call>",
                           "<tool_call>{",
                           "<tool_call>{\"name\": \"unknown\"}</tool_call>",
                           "text <tool_call>[]</tool_call>",
                           "{\"name\": \"time\", \"arguments\": 3}",
                           "[TOOL_CALLS]",
                           "\"{",
                           "}"}) {
    EXPECT_EQ(Read(text), text);
  }
  EXPECT_EQ(Read("<tool_call>{\"name\": \"time\"}</tool_call>", "none"), "<tool_call>{\"name\": \"time\"}</tool_call>");
}

TEST(ToolCallReader, ReadsForcedCalls) {
  EXPECT_EQ(Read(R"([{"name": "time", "arguments": {}}, {"name": "time", "arguments": {}}])", "required"),
            "|0 c-0 time {}|1 c-1 time {}");
  EXPECT_EQ(Read(R"([{"name": "time", "arguments": {}}, {"name": "time", "arguments": {}}])", "required", false),
            "|0 c-0 time {}");
  EXPECT_EQ(Read(R"([{"name": "ti)", "required"), R"([{"name": "ti)");  // cut by max_tokens
  const Json named = {{"type", "function"}, {"function", {{"name", "weather"}}}};
  EXPECT_EQ(Read(R"({"city": "Oslo"})", named), R"(|0 c-0 weather {"city": "Oslo"})");
  const ToolRules rules = Rules(named);
  ToolCallReader reader(&rules, "c");
  reader.Push("{}", true);
  EXPECT_FALSE(reader.has_calls());
}

TEST(ToolCallReader, ContentIsToldOfAsSoonAsItIsCertain) {
  const ToolRules rules = Rules("auto");
  ToolCallReader reader(&rules, "c");
  EXPECT_EQ(Show(reader.Push("Hi there", false)), "Hi there");
  EXPECT_EQ(Show(reader.Push(" <", false)), "");
  EXPECT_EQ(Show(reader.Push("b> ", false)), " <b>");
  EXPECT_EQ(Show(reader.Push("{", false)), " {");  // no call begins behind content without <tool_call>
}

TEST(ReadToolRules, RefusesWhatCanNotBe) {
  const auto error = [](const char* tools, const char* choice) {
    const Json tools_json = Json::parse(tools);
    const Json choice_json = Json::parse(choice);
    const auto rules = ReadToolRules(&tools_json, &choice_json);
    return rules ? std::string("none") : rules.error().message;
  };
  EXPECT_EQ(error("1", "\"auto\"").substr(0, 5), "tools");
  EXPECT_EQ(error("[1]", "\"auto\"").substr(0, 5), "tools");
  EXPECT_EQ(error(R"([{"type": "function", "function": {}}])", "\"auto\"").substr(0, 5), "tools");
  EXPECT_EQ(error(R"([{"type": "function", "function": {"name": 3}}])", "\"auto\"").substr(0, 5), "tools");
  EXPECT_EQ(error(R"([{"function": {"name": "f"}}, {"function": {"name": "f"}}])", "\"auto\"").substr(0, 5), "tools");
  EXPECT_EQ(error("[]", "\"required\"").substr(0, 11), "tool_choice");
  EXPECT_EQ(error("[]", "\"any\"").substr(0, 11), "tool_choice");
  EXPECT_EQ(error("[]", "[3]").substr(0, 11), "tool_choice");
  EXPECT_EQ(error("[]", R"({"type": "function", "function": {"name": "f"}})").substr(0, 11), "tool_choice");
  EXPECT_EQ(error("[]", "\"auto\""), "none");
  Json many = Json::array();
  for (size_t i = 0; i < kMaxTools; ++i) many.push_back({{"function", {{"name", fmt::format("f{}", i)}}}});
  EXPECT_EQ(error(many.dump().c_str(), "\"auto\""), "none");
  many.push_back({{"function", {{"name", "one more"}}}});
  EXPECT_EQ(error(many.dump().c_str(), "\"auto\""), "tools has 129 entries; the limit is 128");
}

TEST(ForcedCallSchema, AFunctionWithoutParametersTakesNone) {
  const Json none = {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
  const Json choice = {{"type", "function"}, {"function", {{"name", "time"}}}};
  Json tools = kTools;
  for (const Json& parameters : {Json(), Json::object()}) {
    EXPECT_EQ(Json::parse(*ForcedCallSchema(Rules(choice), tools)), none);
    EXPECT_EQ(Json::parse(*ForcedCallSchema(Rules("required"), tools))["items"]["anyOf"][1]["properties"]["arguments"],
              none);
    tools[1]["function"]["parameters"] = parameters;
  }
}

TEST(ForcedCallSchema, MovesDefinitionsUp) {
  Json tools = kTools;
  tools[0]["function"]["parameters"] = {{"$ref", "#/$defs/place"}, {"$defs", {{"place", {{"type", "object"}}}}}};
  const Json required = "required";
  ToolRules rules = *ReadToolRules(&tools, &required);
  const Json schema = Json::parse(*ForcedCallSchema(rules, tools));
  EXPECT_EQ(schema["$defs"], Json({{"place", {{"type", "object"}}}}));
  EXPECT_EQ(schema["items"]["anyOf"][0]["properties"]["arguments"], Json({{"$ref", "#/$defs/place"}}));
  EXPECT_EQ(schema["items"]["anyOf"][1]["properties"]["name"], Json({{"const", "time"}}));
  EXPECT_FALSE(schema.contains("maxItems"));
  rules.parallel = false;
  EXPECT_EQ(Json::parse(*ForcedCallSchema(rules, tools))["maxItems"], 1);
  tools[1]["function"]["parameters"] = {{"$defs", {{"place", {{"type", "array"}}}}}};
  EXPECT_FALSE(ForcedCallSchema(rules, tools));
}

}  // namespace
}  // namespace swiftkv
