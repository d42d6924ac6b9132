#include "text/chat_template.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/unicode.h"

namespace swiftkv {

using jinja::Dict;
using jinja::Kind;
using jinja::Runtime;
using jinja::Value;
using Json = nlohmann::ordered_json;

struct ChatTemplate::Program {
  std::string origin;
  std::unique_ptr<const jinja::Function> root;
};

namespace {

// Strings are views of `json`, which outlives the rendering.
Result<Value> ToValue(const Json& json, Runtime* runtime) {
  const jinja::DepthGuard guard(runtime);
  SWIFTKV_RETURN_IF_ERROR(runtime->Step());
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::Bool(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::Integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      return Value::Integer(json.get<uint64_t>());
    case Json::value_t::number_float:
      return Value::Float(json.get<double>());
    case Json::value_t::string:
      return Value::Text(json.get_ref<const std::string&>());
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& item : json) {
        SWIFTKV_ASSIGN_OR_RETURN(Value value, ToValue(item, runtime));
        items.push_back(std::move(value));
      }
      return Value::List(&runtime->budget, std::move(items));
    }
    case Json::value_t::object: {
      Dict dict;
      dict.Reserve(json.size());
      for (const auto& [key, item] : json.get_ref<const Json::object_t&>()) {
        SWIFTKV_ASSIGN_OR_RETURN(Value value, ToValue(item, runtime));
        dict.Set(&runtime->budget, Value::Text(key), std::move(value));
      }
      return jinja::MakeDict(&runtime->budget, std::move(dict));
    }
    default:
      return Value::None();
  }
}

// transformers passes a message's reasoning under each of the names that templates read.
Value WithReasoning(const Value& message, Runtime* runtime) {
  const Value* reasoning = nullptr;
  for (const std::string_view name : {"reasoning_content", "thinking", "reasoning"}) {
    reasoning = message.dict().Find(&runtime->budget, Value::Text(name));
    if (reasoning != nullptr && !reasoning->Is(Kind::kNone)) break;
  }
  if (reasoning == nullptr || reasoning->Is(Kind::kNone)) return message;
  Dict result;
  result.Set(&runtime->budget, Value::Text("thinking"), *reasoning);
  for (const auto& [key, value] : message.dict().entries()) result.Set(&runtime->budget, key, value);
  result.Set(&runtime->budget, Value::Text("reasoning_content"), *reasoning);
  return jinja::MakeDict(&runtime->budget, std::move(result));
}

Result<Value> PrepareMessages(const Value& messages, Runtime* runtime) {
  if (!messages.Is(Kind::kList)) return InvalidInput("messages is not a list");
  std::vector<Value> prepared;
  for (size_t i = 0; i < messages.items().size(); ++i) {
    const Value& message = messages.items()[i];
    if (!message.Is(Kind::kDict)) return InvalidInput("messages[{}] is not an object", i);
    prepared.push_back(WithReasoning(message, runtime));
  }
  return Value::List(&runtime->budget, std::move(prepared));
}

Result<jinja::Variables> PrepareVariables(const Json& json, Runtime* runtime) {
  if (!json.is_object()) return InvalidInput("the variables of a chat template must be an object");
  // What apply_chat_template always passes.
  jinja::Variables variables = {
      {"tools", Value::None()}, {"documents", Value::None()}, {"add_generation_prompt", Value::Bool(false)}};
  for (const auto& [name, item] : json.get_ref<const Json::object_t&>()) {
    SWIFTKV_ASSIGN_OR_RETURN(Value value, ToValue(item, runtime));
    variables[name] = std::move(value);
  }
  if (const auto messages = variables.find("messages"); messages != variables.end()) {
    SWIFTKV_ASSIGN_OR_RETURN(messages->second, PrepareMessages(messages->second, runtime));
  }
  return variables;
}

}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::Parse(std::string_view source, const std::string& origin) {
  if (source.size() > kMaxSourceBytes) {
    return InvalidInput("{}: the chat template has {} bytes, more than {}", origin, source.size(), kMaxSourceBytes);
  }
  if (!IsValidUtf8(source)) return InvalidInput("{}: the chat template is not UTF-8", origin);
  auto root = jinja::ParseTemplate(source);
  if (!root) return InvalidInput("{}:{}: {}", origin, root.error().line, root.error().message);
  auto program = std::make_unique<Program>();
  program->origin = origin;
  program->root = std::move(*root);
  return ChatTemplate(std::move(program));
}

Result<std::string> ChatTemplate::Render(const Json& variables, const RenderOptions& options) const {
  Runtime runtime;
  runtime.budget.steps = options.limits.steps;
  runtime.budget.memory_bytes = options.limits.memory_bytes;
  runtime.budget.string_bytes = options.limits.output_bytes;
  runtime.budget.nesting = options.limits.depth;
  runtime.max_depth = options.limits.depth;
  runtime.now = options.now;
  SWIFTKV_ASSIGN_OR_RETURN(const jinja::Variables values, PrepareVariables(variables, &runtime));
  Result<std::string> text = jinja::RunTemplate(*program_->root, values, &runtime);
  if (text || runtime.raised) return text;
  Error error = std::move(text).error();
  error.message = fmt::format("{}:{}: {}", options.origin.value_or(program_->origin), runtime.line, error.message);
  return tl::unexpected<Error>(std::move(error));
}

}  // namespace swiftkv
