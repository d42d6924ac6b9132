#include "server/tool_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "server/json_fields.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";
constexpr std::string_view kMistral = "[TOOL_CALLS]";
constexpr std::string_view kSpace = " \t\r\n";

std::string_view TrimLeft(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  return text;
}

std::string_view TrimRight(std::string_view text) { return text.substr(0, text.find_last_not_of(kSpace) + 1); }

// The length of the JSON object or array that `text` begins with, by its brackets; nullopt if it does not end.
std::optional<size_t> ValueLength(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && --depth <= 0) return i + 1;
  }
  return std::nullopt;
}

// A tool's function; null if it is none.
const Json* Function(const Json& tool) {
  if (!tool.is_object() || tool.value("type", Json("function")) != Json("function")) return nullptr;
  const auto function = tool.find("function");
  if (function == tool.end() || !function->is_object()) return nullptr;
  const auto name = function->find("name");
  return name == function->end() || !name->is_string() || name->get_ref<const std::string&>().empty() ? nullptr
                                                                                                      : &*function;
}

// OpenAI: a function without parameters takes none, and arguments are always an object.
Json Parameters(const Json& function) {
  const auto parameters = function.find("parameters");
  if (parameters != function.end() && parameters->is_object() && !parameters->empty()) return *parameters;
  return {{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
}

// The name that an object {"type": "function", "function": {"name": ...}} chooses.
std::optional<std::string> ChosenName(const Json& tool_choice) {
  const Json* function = Function(tool_choice);
  return function == nullptr ? std::nullopt : std::optional((*function)["name"].get<std::string>());
}

}  // namespace

Result<ToolRules> ReadToolRules(const Json* tools, const Json* tool_choice) {
  ToolRules rules;
  if (tools != nullptr && !tools->is_array()) return InvalidInput("tools must be an array, not {}", tools->type_name());
  if (tools != nullptr && tools->size() > kMaxTools) {
    return InvalidInput("tools has {} entries; the limit is {}", tools->size(), kMaxTools);
  }
  for (const Json& tool : tools == nullptr ? Json::array() : *tools) {
    const Json* function = Function(tool);
    if (function == nullptr) {
      return InvalidInput("tools must hold objects of type \"function\" with a function that has a name");
    }
    std::string name = (*function)["name"].get<std::string>();
    if (std::find(rules.names.begin(), rules.names.end(), name) != rules.names.end()) {
      return InvalidInput("tools has two functions \"{}\"", name);
    }
    rules.names.push_back(std::move(name));
  }
  rules.choice = rules.names.empty() ? ToolRules::Choice::kNone : ToolRules::Choice::kAuto;
  if (tool_choice == nullptr || *tool_choice == Json("auto")) return rules;
  if (*tool_choice == Json("none")) return ToolRules();
  if (*tool_choice == Json("required")) {
    if (rules.names.empty()) return InvalidInput("tool_choice is \"required\", but there are no tools");
    rules.choice = ToolRules::Choice::kRequired;
    return rules;
  }
  std::optional<std::string> name = ChosenName(*tool_choice);
  if (!name) return InvalidInput("tool_choice must be \"none\", \"auto\", \"required\" or a function");
  if (std::find(rules.names.begin(), rules.names.end(), *name) == rules.names.end()) {
    return InvalidInput("tool_choice names the function \"{}\", which is not among the tools", *name);
  }
  return ToolRules{.choice = ToolRules::Choice::kNamed, .names = {std::move(*name)}};
}

Result<std::string> ForcedCallSchema(const ToolRules& rules, const Json& tools) {
  Json calls = Json::array();
  Json definitions = Json::object();
  for (const Json& tool : tools) {
    const Json& function = *Function(tool);
    Json parameters = Parameters(function);
    if (rules.choice == ToolRules::Choice::kNamed) {
      if (function["name"] == rules.names.front()) return parameters.dump();
      continue;
    }
    // References are relative to the whole schema, so what they refer to moves up.
    for (const char* place : {"$defs", "definitions"}) {
      if (!parameters.contains(place) || !parameters[place].is_object()) continue;
      for (const auto& [name, definition] : parameters[place].items()) {
        Json& known = definitions[place][name];
        if (!known.is_null() && known != definition) {
          return InvalidInput("tools define {}.{} in two ways", place, name);
        }
        known = definition;
      }
      parameters.erase(place);
    }
    calls.push_back({{"type", "object"},
                     {"properties", {{"name", {{"const", function["name"]}}}, {"arguments", std::move(parameters)}}},
                     {"required", {"name", "arguments"}}});
  }
  Json schema = {{"type", "array"}, {"minItems", 1}, {"items", {{"anyOf", std::move(calls)}}}};
  if (!rules.parallel) schema["maxItems"] = 1;
  schema.update(definitions);
  return schema.dump();
}

ToolCallReader::ToolCallReader(const ToolRules* rules, std::string id_prefix)
    : rules_(rules), id_prefix_(std::move(id_prefix)) {}

ToolCallReader::News ToolCallReader::Push(std::string_view text, bool last) {
  News news;
  switch (rules_->choice) {
    case ToolRules::Choice::kNone:
      news.content = text;
      return news;
    case ToolRules::Choice::kNamed: {
      Call call{.arguments = std::string(text)};
      if (!begun_) {
        call.id = id_prefix_ + "-0";
        call.name = rules_->names.front();
      }
      begun_ = true;
      news.calls.push_back(std::move(call));
      return news;
    }
    case ToolRules::Choice::kAuto:
    case ToolRules::Choice::kRequired:
      break;
  }
  held_ += text;
  if (last) {
    if (!ReadCalls(held_, &news)) news.content = held_;
    return news;
  }
  if (rules_->choice == ToolRules::Choice::kRequired) return news;
  const size_t certain = CertainContent();
  news.content = held_.substr(0, certain);
  held_.erase(0, certain);
  begun_ = begun_ || certain > 0;
  return news;
}

// How much of held_ can be told of as content. An answer that begins with a bracket may be a call as a whole; behind
// content only <tool_call> begins one, and what may be its first characters, and the space before, waits.
size_t ToolCallReader::CertainContent() const {
  const std::string_view text = held_;
  if (!begun_) {
    const std::string_view trimmed = TrimLeft(text);
    if (trimmed.empty() || trimmed.front() == '{' || trimmed.front() == '[') return 0;
  }
  size_t end = text.find(kOpen);
  if (end == std::string_view::npos) {
    end = text.size();
    for (size_t length = std::min(kOpen.size() - 1, text.size()); length > 0; --length) {
      if (!text.ends_with(kOpen.substr(0, length))) continue;
      end -= length;
      break;
    }
  }
  return TrimRight(text.substr(0, end)).size();
}

// Content, before and behind, and calls of what is held, which is all that is left; false if there are no calls.
bool ToolCallReader::ReadCalls(std::string_view text, News* news) {
  std::vector<Call> calls;
  std::string_view rest;
  const size_t open = text.find(kOpen);
  if (open == std::string_view::npos) {
    if (begun_) return false;
    std::string_view whole = TrimLeft(text);
    if (whole.starts_with(kMistral)) whole = TrimLeft(whole.substr(kMistral.size()));
    if (!ReadValues(whole, &calls)) return false;
  } else {
    rest = text.substr(open);
    while (rest.starts_with(kOpen)) {
      rest.remove_prefix(kOpen.size());
      const size_t close = rest.find(kClose);
      if (!ReadValues(TrimLeft(rest.substr(0, close)), &calls)) return false;
      rest = close == std::string_view::npos ? std::string_view() : TrimLeft(rest.substr(close + kClose.size()));
    }
    news->content = TrimRight(text.substr(0, open));
  }
  if (!rest.empty()) {
    if (begun_ || !news->content.empty()) news->content += '\n';
    news->content += rest;
  }
  Take(std::move(calls), news);
  return true;
}

// JSON values one after another, each a call or an array of calls; Llama writes ";" between them.
bool ToolCallReader::ReadValues(std::string_view text, std::vector<Call>* calls) const {
  while (!text.empty()) {
    if (text.front() != '{' && text.front() != '[') return false;
    const std::optional<size_t> length = ValueLength(text);
    if (!length) return false;
    const Result<Json> value = ParseBody("{\"value\":" + std::string(text.substr(0, *length)) + "}");
    if (!value) return false;
    const Json& json = (*value)["value"];
    for (const Json& call : json.is_array() ? json : Json::array({json})) {
      if (!ReadCall(call, calls)) return false;
    }
    text = TrimLeft(text.substr(*length));
    if (text.starts_with(';')) text = TrimLeft(text.substr(1));
  }
  return !calls->empty();
}

bool ToolCallReader::ReadCall(const Json& json, std::vector<Call>* calls) const {
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return false;
  const auto& name = json["name"].get_ref<const std::string&>();
  if (std::find(rules_->names.begin(), rules_->names.end(), name) == rules_->names.end()) return false;
  auto arguments = json.find("arguments");
  if (arguments == json.end()) arguments = json.find("parameters");
  if (arguments != json.end() && !arguments->is_object() && !arguments->is_string()) return false;
  std::string text = "{}";
  if (arguments != json.end()) text = arguments->is_string() ? arguments->get<std::string>() : arguments->dump();
  calls->push_back({.name = name, .arguments = std::move(text)});
  return true;
}

void ToolCallReader::Take(std::vector<Call> calls, News* news) {
  if (!rules_->parallel && calls.size() > 1) calls.resize(1);
  for (Call& call : calls) {
    call.index = calls_;
    call.id = fmt::format("{}-{}", id_prefix_, calls_++);
    news->calls.push_back(std::move(call));
  }
}

}  // namespace swiftkv
