#include "server/openai_request.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/json_fields.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kDefaultCompletionTokens = 16;  // OpenAI's, for /v1/completions alone

Result<JsonFields> Object(const JsonFields& fields, std::string_view name) {
  const Json* value = fields.Find(name);
  if (value == nullptr) return InvalidInput("{} is missing", name);
  if (!value->is_object()) return InvalidInput("{} must be an object, not {}", name, value->type_name());
  return JsonFields(*value, std::string(name) + ".");
}

Status ReadStop(const JsonFields& fields, std::vector<std::string>* stop) {
  const Json* value = fields.Find("stop");
  if (value == nullptr) return Ok();
  if (value->is_string()) {
    stop->push_back(value->get<std::string>());
    return Ok();
  }
  if (!value->is_array()) return InvalidInput("stop must be a string or an array of strings");
  for (const Json& entry : *value) {
    if (!entry.is_string()) return InvalidInput("stop must hold strings, not {}", entry.type_name());
    stop->push_back(entry.get<std::string>());
  }
  return Ok();
}

Status ReadLogitBias(const JsonFields& fields, std::vector<std::pair<int32_t, float>>* bias) {
  if (fields.Find("logit_bias") == nullptr) return Ok();
  SWIFTKV_RETURN_IF_ERROR(Object(fields, "logit_bias"));
  for (const auto& [key, value] : fields.Find("logit_bias")->items()) {
    int32_t id = 0;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || !value.is_number()) {
      return InvalidInput("logit_bias must map token ids to numbers");
    }
    bias->emplace_back(id, value.get<float>());
  }
  return Ok();
}

Status ReadSeed(const JsonFields& fields, std::optional<uint64_t>* seed) {
  std::optional<int64_t> value;
  SWIFTKV_RETURN_IF_ERROR(fields.Read("seed", &value));
  if (value) *seed = static_cast<uint64_t>(*value);
  return Ok();
}

Status ReadSampling(const JsonFields& fields, SamplingParams* sampling) {
  SWIFTKV_RETURN_IF_ERROR(fields.Read("n", &sampling->n));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("temperature", &sampling->temperature));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("top_k", &sampling->top_k));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("top_p", &sampling->top_p));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("min_p", &sampling->min_p));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("repetition_penalty", &sampling->repetition_penalty));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("presence_penalty", &sampling->presence_penalty));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("frequency_penalty", &sampling->frequency_penalty));
  SWIFTKV_RETURN_IF_ERROR(ReadSeed(fields, &sampling->seed));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("max_tokens", &sampling->max_tokens));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("min_tokens", &sampling->min_tokens));
  SWIFTKV_RETURN_IF_ERROR(ReadStop(fields, &sampling->stop));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("stop_token_ids", &sampling->stop_token_ids));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("ignore_eos", &sampling->ignore_eos));
  SWIFTKV_RETURN_IF_ERROR(ReadLogitBias(fields, &sampling->logit_bias));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("prompt_logprobs", &sampling->prompt_logprobs));
  return fields.Read("skip_special_tokens", &sampling->skip_special_tokens);
}

// To ignore what the answer must be would be to answer another question.
Status RefuseUnsupported(const JsonFields& fields) {
  for (const char* name :
       {"allowed_token_ids", "audio", "bad_words", "functions", "guided_choice", "guided_grammar", "guided_regex",
        "include_stop_str_in_output", "logits_processors", "prompt_embeds", "return_token_ids",
        "return_tokens_as_token_ids", "suffix", "truncate_prompt_tokens", "use_beam_search", "web_search_options"}) {
    const Json* value = fields.Find(name);
    const bool is_default = value == nullptr || *value == Json(false) || *value == Json("") || *value == Json::array();
    if (!is_default) return InvalidInput("{} is not supported", name);
  }
  return Ok();
}

// vLLM takes a schema as an object or as its text.
Result<OutputFormat> SchemaFormat(const Json& schema, const char* name) {
  if (!schema.is_object() && !schema.is_string()) return InvalidInput("{} must be a JSON schema", name);
  return OutputFormat{.kind = OutputFormat::Kind::kJsonSchema,
                      .schema = schema.is_string() ? schema.get<std::string>() : schema.dump(),
                      .field = name};
}

Result<OutputFormat> ReadResponseFormat(const JsonFields& fields) {
  SWIFTKV_ASSIGN_OR_RETURN(const JsonFields format, Object(fields, "response_format"));
  std::string type;
  SWIFTKV_RETURN_IF_ERROR(format.Read("type", &type));
  if (type == "text") return OutputFormat();
  if (type == "json_object") return OutputFormat{.kind = OutputFormat::Kind::kJsonObject, .field = "response_format"};
  if (type != "json_schema") return InvalidInput("response_format must have the type text, json_object or json_schema");
  const Json* json_schema = format.Find("json_schema");
  if (json_schema == nullptr || !json_schema->is_object() || !json_schema->contains("schema")) {
    return InvalidInput("response_format has no json_schema.schema");
  }
  return SchemaFormat((*json_schema)["schema"], "response_format");
}

Result<OutputFormat> ReadStructuredOutputs(const JsonFields& fields) {
  SWIFTKV_ASSIGN_OR_RETURN(const JsonFields options, Object(fields, "structured_outputs"));
  if (const Json* schema = options.Find("json")) return SchemaFormat(*schema, "structured_outputs");
  bool json_object = false;
  SWIFTKV_RETURN_IF_ERROR(options.Read("json_object", &json_object));
  if (json_object) return OutputFormat{.kind = OutputFormat::Kind::kJsonObject, .field = "structured_outputs"};
  return InvalidInput("structured_outputs is supported with json and json_object only");
}

Status ReadFormat(const JsonFields& fields, OutputFormat* format) {
  int asked = 0;
  if (fields.Find("response_format") != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(*format, ReadResponseFormat(fields));
    if (format->kind != OutputFormat::Kind::kText) ++asked;
  }
  if (const Json* schema = fields.Find("guided_json")) {
    SWIFTKV_ASSIGN_OR_RETURN(*format, SchemaFormat(*schema, "guided_json"));
    ++asked;
  }
  if (fields.Find("structured_outputs") != nullptr) {
    SWIFTKV_ASSIGN_OR_RETURN(*format, ReadStructuredOutputs(fields));
    ++asked;
  }
  if (asked > 1) return InvalidInput("response_format, guided_json and structured_outputs exclude one another");
  return Ok();
}

Status ReadCommon(const JsonFields& fields, GenerationRequest* request) {
  SWIFTKV_RETURN_IF_ERROR(RefuseUnsupported(fields));
  SWIFTKV_RETURN_IF_ERROR(ReadFormat(fields, &request->format));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("model", &request->model));
  SWIFTKV_RETURN_IF_ERROR(ReadSampling(fields, &request->sampling));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("priority", &request->priority));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("stream", &request->stream));
  request->return_prompt_logprobs = request->sampling.prompt_logprobs.has_value();
  if (fields.Find("stream_options") == nullptr) return Ok();
  if (!request->stream) return InvalidInput("stream_options is only allowed with stream");
  SWIFTKV_ASSIGN_OR_RETURN(const JsonFields options, Object(fields, "stream_options"));
  return options.Read("include_usage", &request->include_usage);
}

// A prompt is one text, one list of token ids, or a list of either.
Result<std::vector<Prompt>> ReadPrompts(const JsonFields& fields) {
  const Json* value = fields.Find("prompt");
  if (value == nullptr) return InvalidInput("prompt is missing");
  if (value->is_string()) return std::vector<Prompt>{value->get<std::string>()};
  if (!value->is_array() || value->empty()) {
    return InvalidInput("prompt must be a string, an array of token ids, or a list of either that is not empty");
  }
  if (value->front().is_number()) {
    std::vector<int32_t> token_ids;
    SWIFTKV_RETURN_IF_ERROR(fields.Read("prompt", &token_ids));
    return std::vector<Prompt>{std::move(token_ids)};
  }
  if (value->size() > kMaxPrompts) {
    return InvalidInput("prompt holds {} prompts; the limit is {}", value->size(), kMaxPrompts);
  }
  std::vector<Prompt> prompts;
  for (const Json& entry : *value) {
    if (entry.is_string()) {
      prompts.emplace_back(entry.get<std::string>());
    } else if (entry.is_array()) {
      const Json wrapped = {{"prompt", entry}};
      SWIFTKV_RETURN_IF_ERROR(
          JsonFields(wrapped).Read("prompt", &std::get<1>(prompts.emplace_back(std::vector<int32_t>()))));
    } else {
      return InvalidInput("prompt must hold strings or arrays of token ids, not {}", entry.type_name());
    }
  }
  return prompts;
}

// Contents in parts become one text, and a call without content has an empty one: templates expect strings.
Status FlattenContent(size_t index, Json* message) {
  if ((*message)["role"] == "assistant" && message->value("content", Json()).is_null()) (*message)["content"] = "";
  const auto content = message->find("content");
  if (content == message->end() || content->is_string() || content->is_null()) return Ok();
  if (!content->is_array()) {
    return InvalidInput("messages[{}].content must be a string or an array of parts, not {}", index,
                        content->type_name());
  }
  std::string text;
  for (const Json& part : *content) {
    const bool is_text = part.is_object() && part.contains("text") && part["text"].is_string() &&
                         part.value("type", Json()) == Json("text");
    if (!is_text) return InvalidInput("messages[{}].content may hold parts of type \"text\" only", index);
    if (&part != &content->front()) text += '\n';
    text += part["text"].get_ref<const std::string&>();
  }
  *content = std::move(text);
  return Ok();
}

// Templates print a call's arguments as JSON, so they expect the object and not, as OpenAI has it, its text.
void ParseToolArguments(Json* message) {
  const auto calls = message->find("tool_calls");
  if (calls == message->end() || !calls->is_array()) return;
  for (Json& call : *calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    const auto arguments = call["function"].find("arguments");
    if (arguments == call["function"].end() || !arguments->is_string()) continue;
    if (auto parsed = ParseBody(arguments->get_ref<const std::string&>())) *arguments = std::move(*parsed);
  }
}

Result<Json> ReadMessages(const JsonFields& fields) {
  const Json* value = fields.Find("messages");
  if (value == nullptr) return InvalidInput("messages is missing");
  if (!value->is_array() || value->empty()) return InvalidInput("messages must be an array that is not empty");
  if (value->size() > kMaxMessages) {
    return InvalidInput("messages has {} entries; the limit is {}", value->size(), kMaxMessages);
  }
  Json messages = *value;
  for (size_t i = 0; i < messages.size(); ++i) {
    Json& message = messages[i];
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
      return InvalidInput("messages[{}] must be an object with a role", i);
    }
    SWIFTKV_RETURN_IF_ERROR(FlattenContent(i, &message));
    ParseToolArguments(&message);
  }
  return messages;
}

Result<ToolRules> ReadTools(const JsonFields& fields, Json* variables) {
  SWIFTKV_ASSIGN_OR_RETURN(ToolRules rules, ReadToolRules(fields.Find("tools"), fields.Find("tool_choice")));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("parallel_tool_calls", &rules.parallel));
  if (rules.choice != ToolRules::Choice::kNone) (*variables)["tools"] = *fields.Find("tools");
  return rules;
}

// A forced call is an answer of one form. Where the request asks for another form, no call can come.
Status ForceCall(const JsonFields& fields, GenerationRequest* request) {
  ToolRules& rules = request->conversation.tools;
  const bool is_forced = rules.choice == ToolRules::Choice::kRequired || rules.choice == ToolRules::Choice::kNamed;
  if (request->format.kind != OutputFormat::Kind::kText) {
    if (is_forced) return InvalidInput("tool_choice forces a call and {} another answer", request->format.field);
    rules.choice = ToolRules::Choice::kNone;
  }
  if (!is_forced) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(std::string schema, ForcedCallSchema(rules, *fields.Find("tools")));
  request->format = {.kind = OutputFormat::Kind::kJsonSchema, .schema = std::move(schema), .field = "tool_choice"};
  return Ok();
}

Result<Conversation> ReadConversation(const JsonFields& fields) {
  Json variables = Json::object();
  if (fields.Find("chat_template_kwargs") != nullptr) {
    SWIFTKV_RETURN_IF_ERROR(Object(fields, "chat_template_kwargs"));
    variables = *fields.Find("chat_template_kwargs");
    variables.erase("messages");
  }
  if (fields.Find("chat_template") != nullptr) {
    return InvalidInput("chat_template may not come with a request: it is a program");
  }
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  SWIFTKV_RETURN_IF_ERROR(fields.Read("add_generation_prompt", &add_generation_prompt));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("continue_final_message", &continue_final_message));
  if (continue_final_message) return InvalidInput("continue_final_message is not supported");
  variables["add_generation_prompt"] = add_generation_prompt;
  if (const Json* documents = fields.Find("documents")) variables["documents"] = *documents;
  SWIFTKV_ASSIGN_OR_RETURN(ToolRules tools, ReadTools(fields, &variables));
  SWIFTKV_ASSIGN_OR_RETURN(Json messages, ReadMessages(fields));
  return Conversation{std::make_shared<const Json>(std::move(messages)),
                      std::make_shared<const Json>(std::move(variables)), std::move(tools)};
}

}  // namespace

Result<GenerationRequest> ParseCompletionRequest(std::string_view body) {
  SWIFTKV_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  const JsonFields fields(json);
  GenerationRequest request;
  SWIFTKV_RETURN_IF_ERROR(ReadCommon(fields, &request));
  SWIFTKV_ASSIGN_OR_RETURN(request.prompts, ReadPrompts(fields));
  SamplingParams& sampling = request.sampling;
  if (!sampling.max_tokens) sampling.max_tokens = kDefaultCompletionTokens;
  SWIFTKV_RETURN_IF_ERROR(fields.Read("logprobs", &sampling.logprobs));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("echo", &request.echo));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("add_special_tokens", &request.add_special_tokens));
  int32_t best_of = sampling.n;
  SWIFTKV_RETURN_IF_ERROR(fields.Read("best_of", &best_of));
  if (best_of != sampling.n) return InvalidInput("best_of is not supported");
  if (request.echo && sampling.logprobs && !sampling.prompt_logprobs) sampling.prompt_logprobs = sampling.logprobs;
  return request;
}

Result<GenerationRequest> ParseChatRequest(std::string_view body) {
  SWIFTKV_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  const JsonFields fields(json);
  GenerationRequest request{.chat = true, .add_special_tokens = false};
  SWIFTKV_RETURN_IF_ERROR(ReadCommon(fields, &request));
  SWIFTKV_ASSIGN_OR_RETURN(request.conversation, ReadConversation(fields));
  SWIFTKV_RETURN_IF_ERROR(ForceCall(fields, &request));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("add_special_tokens", &request.add_special_tokens));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("max_completion_tokens", &request.sampling.max_tokens));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("echo", &request.echo));
  if (request.echo) return InvalidInput("echo is not supported in chats");
  bool logprobs = false;
  int32_t top_logprobs = 0;
  SWIFTKV_RETURN_IF_ERROR(fields.Read("logprobs", &logprobs));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("top_logprobs", &top_logprobs));
  if (top_logprobs != 0 && !logprobs) return InvalidInput("top_logprobs needs logprobs to be true");
  if (logprobs) request.sampling.logprobs = top_logprobs;
  return request;
}

Result<TokenizeRequest> ParseTokenizeRequest(std::string_view body) {
  SWIFTKV_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  const JsonFields fields(json);
  TokenizeRequest request;
  SWIFTKV_RETURN_IF_ERROR(fields.Read("model", &request.model));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("return_token_strs", &request.return_token_strs));
  if (fields.Find("messages") != nullptr) {
    request.add_special_tokens = false;
    SWIFTKV_ASSIGN_OR_RETURN(request.conversation, ReadConversation(fields));
  } else if (fields.Find("prompt") == nullptr) {
    return InvalidInput("prompt is missing");
  }
  SWIFTKV_RETURN_IF_ERROR(fields.Read("prompt", &request.prompt));
  SWIFTKV_RETURN_IF_ERROR(fields.Read("add_special_tokens", &request.add_special_tokens));
  return request;
}

Result<DetokenizeRequest> ParseDetokenizeRequest(std::string_view body) {
  SWIFTKV_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  const JsonFields fields(json);
  DetokenizeRequest request;
  SWIFTKV_RETURN_IF_ERROR(fields.Read("model", &request.model));
  if (fields.Find("tokens") == nullptr) return InvalidInput("tokens is missing");
  SWIFTKV_RETURN_IF_ERROR(fields.Read("tokens", &request.tokens));
  return request;
}

}  // namespace swiftkv
