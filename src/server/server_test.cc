#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "server/server_fixture.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(ServerTest, CompletesAPrompt) {
  Start();
  const Json answer = Complete({{"model", "tiny"}, {"prompt", "Hello"}, {"max_tokens", 8}, {"temperature", 0}});
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_THAT(answer["id"].get<std::string>(), HasSubstr("cmpl-"));
  ASSERT_EQ(answer["choices"].size(), 1u);
  EXPECT_EQ(answer["choices"][0]["index"], 0);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(answer["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 8);
  EXPECT_EQ(answer["usage"]["total_tokens"], 13);
  EXPECT_GT(answer["usage"]["timings"]["ttft_s"], 0);
  // The same prompt again finds its first whole block, if it has one, and the same text in any case.
  const Json again = Complete({{"prompt", "Hello"}, {"max_tokens", 8}, {"temperature", 0}});
  EXPECT_EQ(again["choices"][0]["text"], answer["choices"][0]["text"]);
}

TEST_F(ServerTest, TakesPromptsOfEveryForm) {
  Start();
  const Json text = Complete({{"prompt", "Hello"}, {"max_tokens", 4}, {"temperature", 0}});
  const std::vector<int> ids = {40, 69, 76, 76, 79};  // one character a token, from the space on
  const Json tokens = Complete({{"prompt", ids}, {"max_tokens", 4}, {"temperature", 0}});
  EXPECT_EQ(tokens["choices"][0]["text"], text["choices"][0]["text"]);
  const Json batch =
      Complete({{"prompt", Json::array({"Hello", ids, "Other"})}, {"max_tokens", 4}, {"temperature", 0}, {"n", 2}});
  ASSERT_EQ(batch["choices"].size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(batch["choices"][i]["index"], i);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(batch["choices"][i]["text"], text["choices"][0]["text"]);
  EXPECT_EQ(batch["usage"]["prompt_tokens"], 15);
  EXPECT_EQ(batch["usage"]["completion_tokens"], 24);
}

TEST_F(ServerTest, ScoresAnEchoedPrompt) {
  Start();
  const Json body = {{"prompt", "Hello"}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 2}};
  const Json choice = Complete(body)["choices"][0];
  EXPECT_EQ(choice["text"], "Hello");
  EXPECT_EQ(choice["logprobs"]["tokens"], Json({"H", "e", "l", "l", "o"}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], Json({0, 1, 2, 3, 4}));
  ASSERT_EQ(choice["logprobs"]["token_logprobs"].size(), 5u);
  ASSERT_EQ(choice["logprobs"]["top_logprobs"].size(), 5u);
  EXPECT_TRUE(choice["logprobs"]["token_logprobs"][0].is_null());
  EXPECT_TRUE(choice["logprobs"]["top_logprobs"][0].is_null());
  for (int i = 1; i < 5; ++i) {
    EXPECT_LT(choice["logprobs"]["token_logprobs"][i], 0);
    // The token itself is among the alternatives, or beside them.
    const Json& top = choice["logprobs"]["top_logprobs"][i];
    EXPECT_EQ(top[choice["logprobs"]["tokens"][i].get<std::string>()], choice["logprobs"]["token_logprobs"][i]);
    EXPECT_THAT(top.size(), ::testing::AnyOf(2u, 3u));
  }
  // With an answer: the prompt's scores come first, the answer's follow; streamed, they are the same.
  Json longer = {{"prompt", "Hello"}, {"max_tokens", 2}, {"echo", true}, {"logprobs", 2}, {"temperature", 0}};
  const Json whole = Complete(longer)["choices"][0];
  EXPECT_EQ(whole["logprobs"]["tokens"].size(), 7u);
  EXPECT_EQ(whole["logprobs"]["token_logprobs"][4], choice["logprobs"]["token_logprobs"][4]);
  longer["stream"] = true;
  Json tokens = Json::array();
  std::string text;
  for (const Json& event : Events(Post("/v1/completions", longer))) {
    text += event["choices"][0]["text"].get<std::string>();
    for (const Json& token : event["choices"][0]["logprobs"]["tokens"]) tokens.push_back(token);
  }
  EXPECT_EQ(tokens, whole["logprobs"]["tokens"]);
  EXPECT_EQ(text, whole["text"]);
}

// The chunks of one step are together larger than what a slow client may leave unread.
TEST_F(ServerTest, StreamsTheScoresOfLongPrompts) {
  Start();
  const std::string prompt(500, 'a');
  Json body = {{"prompt", prompt}, {"max_tokens", 1}, {"temperature", 0}, {"prompt_logprobs", 20}};
  const Json whole = Complete(body)["choices"][0];
  body["stream"] = true;
  const std::vector<Json> events = Events(Post("/v1/completions", body));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0]["choices"][0], whole);

  body["echo"] = true;
  body["logprobs"] = 20;
  body["n"] = 23;
  std::vector<Json> choices(23);
  for (const Json& event : Events(Post("/v1/completions", body))) {
    const Json& choice = event["choices"][0];
    choices[choice["index"].get<size_t>()] = choice;
  }
  for (size_t i = 0; i < choices.size(); ++i) {
    ASSERT_TRUE(choices[i].is_object()) << i;
    EXPECT_EQ(choices[i]["text"].get<std::string>().substr(0, 500), prompt);
    EXPECT_EQ(choices[i]["logprobs"]["tokens"].size(), 501u);
    // The prompt's own scores are told once.
    EXPECT_EQ(choices[i]["prompt_logprobs"], i == 0 ? whole["prompt_logprobs"] : Json());
  }
  body["stream"] = false;
  EXPECT_EQ(Complete(body)["choices"], Json(choices));
}

TEST_F(ServerTest, RefusesMorePromptScoresThanItTells) {
  Start();
  const std::string prompt(400, 'a');
  Json body = {{"prompt", prompt}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 20}, {"n", 64}};
  const TestResponse response = Post("/v1/completions", body);
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(Json::parse(response.body)["error"]["param"], "logprobs");
  EXPECT_THAT(response.body, HasSubstr("are 537600 scores; the limit is 262144"));
  body["prompt"] = Json(std::vector<std::string>(64, prompt));
  body["n"] = 1;
  EXPECT_EQ(Post("/v1/completions", body).status, 400);
  body["logprobs"] = 0;
  EXPECT_EQ(Post("/v1/completions", body).status, 200);
}

TEST_F(ServerTest, AnswersAConversation) {
  Start();
  const Json body = {{"model", "also-tiny"},       {"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})},
                     {"max_completion_tokens", 6}, {"temperature", 0},
                     {"logprobs", true},           {"top_logprobs", 3}};
  const Json answer = Answer("/v1/chat/completions", body);
  EXPECT_EQ(answer["object"], "chat.completion");
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  ASSERT_EQ(choice["logprobs"]["content"].size(), 6u);
  EXPECT_EQ(choice["logprobs"]["content"][0]["top_logprobs"].size(), 3u);
  EXPECT_EQ(choice["logprobs"]["content"][0]["token"].get<std::string>().size(),
            choice["logprobs"]["content"][0]["bytes"].size());
  // "[user] Hi [assistant] "
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 22);
  // Contents in parts are one text, as with OpenAI.
  Json parts = body;
  parts["messages"][0]["content"] = Json::array({{{"type", "text"}, {"text", "Hi"}}});
  EXPECT_EQ(Answer("/v1/chat/completions", parts)["choices"][0]["message"], choice["message"]);
}

TEST_F(ServerTest, StreamsWhatItWouldHaveAnswered) {
  Start();
  Json body = {{"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})},
               {"max_tokens", 12},
               {"temperature", 1},
               {"seed", 7},
               {"n", 2}};
  const Json whole = Answer("/v1/chat/completions", body);
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const TestResponse response = Post("/v1/chat/completions", body);
  EXPECT_TRUE(response.Has("Content-Type: text/event-stream"));
  const std::vector<Json> events = Events(response);
  ASSERT_GT(events.size(), 3u);
  std::array<std::string, 2> texts;
  std::array<int, 2> roles = {};
  std::array<std::string, 2> finish;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    EXPECT_TRUE(events[i]["usage"].is_null());
    EXPECT_EQ(events[i]["object"], "chat.completion.chunk");
    const Json& choice = events[i]["choices"][0];
    const auto index = choice["index"].get<size_t>();
    texts[index] += choice["delta"].value("content", "");
    roles[index] += choice["delta"].contains("role") ? 1 : 0;
    if (!choice["finish_reason"].is_null()) finish[index] = choice["finish_reason"];
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(texts[i], whole["choices"][i]["message"]["content"]);
    EXPECT_EQ(roles[i], 1);
    EXPECT_EQ(finish[i], whole["choices"][i]["finish_reason"]);
  }
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
}

TEST_F(ServerTest, ObeysSamplingParameters) {
  Start();
  const Json seeded = {{"prompt", "abc"}, {"max_tokens", 20}, {"seed", -3}};
  EXPECT_EQ(Complete(seeded)["choices"], Complete(seeded)["choices"]);
  const Json biased =
      Complete({{"prompt", "abc"}, {"max_tokens", 3}, {"temperature", 0}, {"logit_bias", {{"40", 100}}}});
  EXPECT_EQ(biased["choices"][0]["text"], "HHH");
  const Json stopped = Complete(
      {{"prompt", "abc"}, {"max_tokens", 5}, {"temperature", 0}, {"logit_bias", {{"40", 100}}}, {"stop", "HH"}});
  EXPECT_EQ(stopped["choices"][0]["text"], "");
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(stopped["choices"][0]["stop_reason"], "HH");
  const Json token = Complete({{"prompt", "abc"},
                               {"max_tokens", 5},
                               {"temperature", 0},
                               {"logit_bias", {{"40", 100}}},
                               {"stop_token_ids", {40}},
                               {"min_tokens", 1}});
  EXPECT_EQ(token["choices"][0]["finish_reason"], "stop");
  const Json scored = Complete({{"prompt", "abc"}, {"max_tokens", 1}, {"prompt_logprobs", 1}});
  EXPECT_EQ(scored["choices"][0]["prompt_logprobs"].size(), 3u);
  EXPECT_TRUE(scored["choices"][0]["prompt_logprobs"][0].is_null());
}

TEST_F(ServerTest, SaysWhatIsWrong) {
  Start();
  struct Case {
    const char* path;
    const char* body;
    int status;
    const char* param;  // null: none
  };
  const std::string long_prompt = R"({"prompt": ")" + std::string(600, 'a') + R"("})";
  const std::string deep = R"({"prompt": )" + std::string(1000, '[') + std::string(1000, ']') + "}";
  const std::string many = R"({"prompt": [)" + [] {
    std::string text = "1";
    for (int i = 0; i < 1'100'000; ++i) text += ",1";
    return text;
  }() + "]}";
  const Case cases[] = {
      {"/v1/completions", "", 400, nullptr},
      {"/v1/completions", "[]", 400, nullptr},
      {"/v1/completions", "{", 400, nullptr},
      {"/v1/completions", "{\"prompt\": \"\xff\"}", 400, nullptr},
      {"/v1/completions", R"({"prompt": "\ud800"})", 400, nullptr},
      {"/v1/completions", R"({"prompt": "a", "temperature": 1e999})", 400, nullptr},
      {"/v1/completions", "{}", 400, "prompt"},
      {"/v1/completions", R"({"prompt": ""})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": []})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": {}})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": ["a", 1]})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": [1, "a"]})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": [1.5]})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": [99999]})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": [-1]})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": [99999999999999999999]})", 400, "prompt"},
      {"/v1/completions", R"({"prompt": "a", "max_tokens": -1})", 400, "max_tokens"},
      {"/v1/completions", R"({"prompt": "a", "max_tokens": "1"})", 400, "max_tokens"},
      {"/v1/completions", R"({"prompt": "a", "n": 0})", 400, "n"},
      {"/v1/completions", R"({"prompt": "a", "n": 1000000})", 400, "n"},
      {"/v1/completions", R"({"prompt": "a", "n": 99999999999})", 400, "n"},
      {"/v1/completions", R"({"prompt": "a", "temperature": -1})", 400, "temperature"},
      {"/v1/completions", R"({"prompt": "a", "temperature": true})", 400, "temperature"},
      {"/v1/completions", R"({"prompt": "a", "top_p": 2})", 400, "top_p"},
      {"/v1/completions", R"({"prompt": "a", "logprobs": 21})", 400, "logprobs"},
      {"/v1/completions", R"({"prompt": "a", "logit_bias": {"x": 1}})", 400, "logit_bias"},
      {"/v1/completions", R"({"prompt": "a", "logit_bias": {"1": 1e300}})", 400, "logit_bias"},
      {"/v1/completions", R"({"prompt": "a", "logit_bias": [1]})", 400, "logit_bias"},
      {"/v1/completions", R"({"prompt": "a", "stop": 1})", 400, "stop"},
      {"/v1/completions", R"({"prompt": "a", "stop": [""]})", 400, "stop"},
      {"/v1/completions", R"({"prompt": "a", "best_of": 3})", 400, "best_of"},
      {"/v1/completions", R"({"prompt": "a", "suffix": "b"})", 400, "suffix"},
      {"/v1/completions", R"({"prompt": "a", "allowed_token_ids": [1]})", 400, "allowed_token_ids"},
      {"/v1/completions", R"({"prompt": "a", "bad_words": ["b"]})", 400, "bad_words"},
      {"/v1/completions", R"({"prompt": "a", "truncate_prompt_tokens": 1})", 400, "truncate_prompt_tokens"},
      {"/v1/completions", R"({"prompt": "a", "stream_options": {}})", 400, "stream_options"},
      {"/v1/completions", R"({"prompt": "a", "response_format": {"type": "grammar"}})", 400, "response_format"},
      {"/v1/completions", R"({"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {}}})", 400,
       "response_format"},
      {"/v1/completions", R"({"prompt": "a", "response_format": {"type": "json_schema"}})", 400, "response_format"},
      {"/v1/completions", R"({"prompt": "a", "guided_json": {"type": "gravel"}})", 400, "guided_json"},
      {"/v1/completions", R"({"prompt": "a", "structured_outputs": {"regex": "a+"}})", 400, "structured_outputs"},
      {"/v1/completions", R"({"prompt": "a", "response_format": 7})", 400, "response_format"},
      {"/v1/completions", R"({"prompt": "a", "model": "other"})", 404, "model"},
      {"/v1/completions", long_prompt.c_str(), 400, "prompt"},
      {"/v1/completions", deep.c_str(), 400, nullptr},
      {"/v1/completions", many.c_str(), 400, nullptr},
      {"/v1/chat/completions", "{}", 400, "messages"},
      {"/v1/chat/completions", R"({"messages": []})", 400, "messages"},
      {"/v1/chat/completions", R"({"messages": [1]})", 400, "messages"},
      {"/v1/chat/completions", R"({"messages": [{"role": 1}]})", 400, "messages"},
      {"/v1/chat/completions", R"({"messages": [{"role": "user", "content": 1}]})", 400, "messages"},
      {"/v1/chat/completions", R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", 400,
       "messages"},
      {"/v1/chat/completions", R"({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2})", 400,
       "top_logprobs"},
      {"/v1/chat/completions", R"({"messages": [{"role": "user", "content": "a"}], "tools": 1})", 400, "tools"},
      {"/v1/chat/completions", R"({"messages": [{"role": "user", "content": "a"}], "echo": true})", 400, "echo"},
      {"/v1/chat/completions", R"({"messages": [{"role": "user", "content": "a"}], "tool_choice": "required"})", 400,
       "tool_choice"},
      {"/v1/chat/completions", R"({"messages": [{"role": "user", "content": "a"}], "chat_template": "x"})", 400,
       "chat_template"},
      {"/tokenize", "{}", 400, "prompt"},
      {"/tokenize", R"({"prompt": 1})", 400, "prompt"},
      {"/detokenize", "{}", 400, "tokens"},
      {"/detokenize", R"({"tokens": [96]})", 400, "tokens"},
      {"/detokenize", R"({"tokens": ["a"]})", 400, "tokens"},
  };
  for (const auto& [path, body, status, param] : cases) {
    const TestResponse response = Connect().Post(path, body);
    const std::string shown = std::string(body).substr(0, 100);
    EXPECT_EQ(response.status, status) << shown << response.body;
    const Json error = Json::parse(response.body)["error"];
    EXPECT_FALSE(error["message"].get<std::string>().empty());
    EXPECT_EQ(error["type"], status == 404 ? "not_found_error" : "invalid_request_error");
    EXPECT_EQ(error["param"], param == nullptr ? Json() : Json(param)) << shown << response.body;
  }
  EXPECT_EQ(Complete({{"prompt", "still alive"}})["choices"].size(), 1u);
}

// Clients are told what is wrong, not where the server's files lie.
TEST_F(ServerTest, TellsNoPathOfItsMachine) {
  const std::string folder =
      WriteTinyModel(std::filesystem::temp_directory_path() / ("swiftkv-server-paths-" + std::to_string(getpid())),
                     {.chat_template = false});
  const std::string file = folder + "/given.jinja";
  const struct {
    const char* source;  // empty: no template
    const char* message;
  } cases[] = {{"a\n{{ messages[0].nothing.more }}", "chat template:2: 'dict object' has no attribute 'nothing'"},
               {"{{ raise_exception('System comes first.') }}", "System comes first."},
               {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "limit of steps"},
               {"{% if %}", "this model has none that can be used"},
               {"", "this model has none that can be used"}};
  for (const auto& [source, message] : cases) {
    SCOPED_TRACE(source);
    LoadModelOptions load{.model = folder, .dtype = DType::kF32};
    if (*source != 0) {
      std::ofstream(file) << source;
      load.chat_template_file = file;
    }
    const auto model = LoadModel(load);
    ASSERT_TRUE(model) << model.error().message;
    Listen();
    ASSERT_TRUE(server_->Serve(*model, engine_options_));
    for (const char* path : {"/v1/chat/completions", "/tokenize"}) {
      const TestResponse response = Post(path, {{"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})}});
      EXPECT_EQ(response.status, 400);
      EXPECT_THAT(Json::parse(response.body)["error"]["message"].get<std::string>(), HasSubstr(message));
      EXPECT_THAT(response.body, Not(HasSubstr(folder)));
    }
    EXPECT_THAT(Connect().Get("/v1/models").body, Not(HasSubstr(folder)));
    server_.reset();  // before its model
  }
  std::filesystem::remove_all(folder);
}

// Whether more text could make it valid JSON: it is wrong nowhere but at its end.
bool IsBeginningOfJson(const std::string& text) {
  try {
    return !Json::parse(text).is_discarded();
  } catch (const Json::parse_error& error) {
    return error.byte > text.size();
  }
}

TEST_F(ServerTest, AnswersInTheFormatThatWasAskedFor) {
  EXPECT_TRUE(IsBeginningOfJson(R"({"a": [1, "b)"));
  EXPECT_FALSE(IsBeginningOfJson(R"({"a": [1, b)"));
  const char* const kFormats[] = {
      R"("response_format": {"type": "json_object"})",
      R"("guided_json": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})",
      R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object",
          "properties": {"a": {"enum": ["b", "c"]}}, "required": ["a"], "additionalProperties": false}}})"};
  Start();
  for (const char* format : kFormats) {
    const std::string body =
        std::string(R"({"prompt": "a", "max_tokens": 60, "temperature": 1, "seed": 3, )") + format + "}";
    const Json choice = Complete(Json::parse(body))["choices"][0];
    const auto text = choice["text"].get<std::string>();
    EXPECT_EQ(text.substr(0, 1), "{");
    if (format == kFormats[2] || choice["finish_reason"] == "stop") {
      EXPECT_TRUE(Json::parse(text).is_object()) << text;
    } else {  // a random model may never end its text
      EXPECT_TRUE(IsBeginningOfJson(text)) << text;
    }
  }
}

TEST_F(ServerTest, CallsATool) {
  Start();
  Json body = Json::parse(R"({"messages": [{"role": "user", "content": "a"}], "max_tokens": 200, "temperature": 0,
      "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
          "properties": {"a": {"enum": ["b", "c"]}}, "required": ["a"], "additionalProperties": false}}}],
      "tool_choice": "required", "parallel_tool_calls": false})");
  const Json choice = Answer("/v1/chat/completions", body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["message"]["content"].is_null());
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  const Json call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["type"], "function");
  EXPECT_EQ(call["function"]["name"], "f");
  EXPECT_TRUE(Json::parse(call["function"]["arguments"].get<std::string>()).contains("a"));

  body["stream"] = true;
  Json streamed = Events(Post("/v1/chat/completions", body)).back()["choices"][0];
  EXPECT_EQ(streamed["finish_reason"], "tool_calls");
  EXPECT_EQ(streamed["delta"]["tool_calls"][0]["index"], 0);
  EXPECT_EQ(streamed["delta"]["tool_calls"][0]["function"], call["function"]);

  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "f"}}}};
  std::string arguments;
  for (const Json& event : Events(Post("/v1/chat/completions", body))) {
    const Json& delta = event["choices"][0]["delta"];
    EXPECT_FALSE(delta.contains("content"));
    EXPECT_EQ(delta["tool_calls"][0]["function"].contains("name"), arguments.empty());
    arguments += delta["tool_calls"][0]["function"]["arguments"].get<std::string>();
  }
  EXPECT_TRUE(Json::parse(arguments).contains("a"));
  body["response_format"] = {{"type", "json_object"}};
  EXPECT_EQ(Post("/v1/chat/completions", body).status, 400);
}

// OpenAI's clients send a call back without content, and a template writes what it is given: "None".
TEST_F(ServerTest, GoesOnBehindACall) {
  Start();
  const Json body = Json::parse(R"({"messages": [{"role": "user", "content": "a"},
      {"role": "assistant", "content": null, "tool_calls": [
          {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
      {"role": "tool", "tool_call_id": "1", "content": "b"}]})");
  const Json tokens = Answer("/tokenize", body)["tokens"];
  for (const Json& content : {Json(""), Json()}) {
    Json other = body;
    other["messages"][1].erase("content");
    if (!content.is_null()) other["messages"][1]["content"] = content;
    EXPECT_EQ(Answer("/tokenize", other)["tokens"], tokens);
  }
}

TEST_F(ServerTest, TellsAPromptThatIsTooLong) {
  Start();
  const std::string text(600, 'a');
  const Json messages = Json::array({{{"role", "user"}, {"content", text}}});
  for (const auto& [path, field, value] : {std::tuple("/v1/completions", "prompt", Json(text)),
                                           std::tuple("/v1/chat/completions", "messages", messages)}) {
    const TestResponse response = Post(path, {{field, value}});
    EXPECT_EQ(response.status, 400);
    const Json error = Json::parse(response.body)["error"];
    EXPECT_EQ(error["code"], "context_length_exceeded");
    EXPECT_EQ(error["param"], field);
  }
  // So long that it need not be made into tokens.
  const TestResponse response = Post("/v1/completions", {{"prompt", Json::array({"a", std::string(10'000, 'a')})}});
  EXPECT_EQ(response.status, 400);
  const Json error = Json::parse(response.body)["error"];
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("the prompt has 10000 bytes, at least 1428 tokens"));
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_EQ(error["param"], "prompt");
}

TEST_F(ServerTest, KnowsItsRoutes) {
  options_.served_model_names.push_back("org/tiny");
  Start();
  TestClient client = Connect();
  EXPECT_EQ(client.Get("/nowhere").status, 404);
  EXPECT_EQ(client.Get("/v1/completions").status, 405);
  client.Send("DELETE /health HTTP/1.1\r\n\r\n");
  const TestResponse refused = client.Read();
  EXPECT_EQ(refused.status, 405);
  EXPECT_TRUE(refused.Has("Allow: GET, HEAD, OPTIONS"));
  client.Send("OPTIONS /tokenize HTTP/1.1\r\n\r\n");
  const TestResponse options = client.Read(/*has_body=*/false);
  EXPECT_EQ(options.status, 204);
  EXPECT_TRUE(options.Has("Allow: POST, OPTIONS"));
  EXPECT_FALSE(options.Has("Access-Control"));
  client.Send("POST /tokenize HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_EQ(client.Read().status, 415);
  EXPECT_EQ(client.Get("/health").status, 200);
  EXPECT_EQ(client.Get("/ready").status, 200);
  const Json models = Json::parse(client.Get("/v1/models").body);
  EXPECT_EQ(models["data"][1]["id"], "also-tiny");
  EXPECT_EQ(models["data"][0]["max_model_len"], 512);
  EXPECT_EQ(Json::parse(client.Get("/v1/models/tiny").body)["id"], "tiny");
  EXPECT_EQ(client.Get("/v1/models/other").status, 404);
  EXPECT_EQ(Json::parse(client.Get("/v1/models/org%2Ftiny").body)["id"], "org/tiny");
  EXPECT_EQ(Json::parse(client.Get("/v1/models/org/tiny").body)["id"], "org/tiny");
  for (const char* name : {"org%2", "org%", "org%2xtiny", "%00", "org%252Ftiny"}) {
    EXPECT_EQ(client.Get(std::string("/v1/models/") + name).status, 404) << name;
  }
  EXPECT_TRUE(Json::parse(client.Get("/openapi.json").body)["paths"].contains("/v1/completions"));
  EXPECT_TRUE(client.Get("/").Has("Content-Security-Policy"));
}

TEST_F(ServerTest, IsAliveButNotReadyWhileItsModelIsLoaded) {
  options_.api_keys = {"secret"};
  Listen();
  TestClient client = Connect();
  const std::string key = "Authorization: Bearer secret\r\n";
  EXPECT_EQ(client.Get("/health").status, 200);
  EXPECT_EQ(client.Get("/ready").status, 503);
  EXPECT_EQ(client.Get("/", key).status, 200);
  EXPECT_EQ(client.Get("/v1/models").status, 401);
  EXPECT_EQ(client.Get("/v1/models", key).status, 503);
  const TestResponse early = client.Post("/v1/completions", R"({"prompt": "a"})", key);
  EXPECT_EQ(early.status, 503);
  EXPECT_TRUE(early.Has("Retry-After: "));
  ASSERT_TRUE(server_->Serve(TinyModel(), engine_options_));
  EXPECT_EQ(client.Get("/ready").status, 200);
  EXPECT_EQ(client.Post("/v1/completions", R"({"prompt": "a"})", key).status, 200);
}

TEST_F(ServerTest, TokenizesBothWays) {
  Start();
  const Json tokens = Answer("/tokenize", {{"prompt", "Hello"}, {"return_token_strs", true}});
  EXPECT_EQ(tokens["tokens"], Json({40, 69, 76, 76, 79}));
  EXPECT_EQ(tokens["token_strs"][0], "H");
  EXPECT_EQ(tokens["count"], 5);
  EXPECT_EQ(tokens["max_model_len"], 512);
  EXPECT_EQ(Answer("/detokenize", {{"tokens", tokens["tokens"]}})["prompt"], "Hello");
  const Json chat = Answer("/tokenize", {{"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})}});
  EXPECT_EQ(Answer("/detokenize", {{"tokens", chat["tokens"]}})["prompt"], "[user] Hi [assistant] ");
}

TEST_F(ServerTest, AsksForAKeyEverywhereButForItsHealth) {
  options_.api_keys = {"secret-1", "secret-2"};
  Start();
  TestClient client = Connect();
  EXPECT_EQ(client.Get("/health").status, 200);
  EXPECT_EQ(client.Get("/ready").status, 200);
  for (const char* path : {"/", "/v1/models", "/metrics", "/openapi.json", "/nowhere"}) {
    EXPECT_EQ(client.Get(path).status, 401) << path;
    EXPECT_NE(client.Get(path, "Authorization: Bearer secret-2\r\n").status, 401) << path;
    EXPECT_NE(client.Get(path, "Authorization: Basic dXNlcjpzZWNyZXQtMQ==\r\n").status, 401) << path;
  }
  for (const char* value : {"Bearer", "Bearer ", "Bearer secret", "Bearer secret-11", "secret-1", "Basic !!!!",
                            "Basic ==", "Basic c2VjcmV0LTE=", "Digest secret-1"}) {
    const TestResponse response = client.Get("/v1/models", std::string("Authorization: ") + value + "\r\n");
    EXPECT_EQ(response.status, 401) << value;
    EXPECT_EQ(Json::parse(response.body)["error"]["code"], "invalid_api_key");
  }
  EXPECT_EQ(client.Post("/v1/completions", R"({"prompt": "a"})").status, 401);
  EXPECT_EQ(client.Post("/v1/completions", R"({"prompt": "a"})", "Authorization: Bearer secret-1\r\n").status, 200);
}

// Whoever has no key fills no memory with bodies.
TEST_F(ServerTest, RefusesBeforeTheBodyComes) {
  options_.api_keys = {"secret"};
  Start();
  const std::string large = "Host: test\r\nContent-Type: application/json\r\nContent-Length: 30000000\r\n";
  const std::string key = "Authorization: Bearer secret\r\n";
  const struct {
    std::string head;
    int status;
  } cases[] = {{"POST /v1/completions HTTP/1.1\r\n" + large, 401},
               {"POST /health HTTP/1.1\r\n" + large, 405},
               {"GET /health HTTP/1.1\r\n" + large, 413},
               {"OPTIONS /v1/completions HTTP/1.1\r\n" + large, 204},
               {"POST /nowhere HTTP/1.1\r\n" + large + key, 404},
               {"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 401},
               {"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n", 401}};
  for (const auto& [head, status] : cases) {
    TestClient client = Connect();
    client.Send(head + "\r\n");
    const TestResponse response = client.Read(/*has_body=*/status != 204);
    EXPECT_EQ(response.status, status) << head;
    EXPECT_TRUE(response.Has("Connection: close\r\n"));
    EXPECT_TRUE(client.IsClosed());
  }
}

TEST_F(ServerTest, TakesNoEmptyKey) {
  options_.api_keys = {"secret", ""};
  const auto server = Server::Listen(options_);
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code, ErrorCode::kInvalidInput);
}

TEST_F(ServerTest, LetsAllowedOriginsReadAnswers) {
  options_.allowed_origins = {"https://chat.example"};
  options_.api_keys = {"secret"};
  Start();
  TestClient client = Connect();
  EXPECT_TRUE(client.Get("/health", "Origin: https://chat.example\r\n")
                  .Has("Access-Control-Allow-Origin: https://chat.example\r\n"));
  EXPECT_FALSE(client.Get("/health", "Origin: https://evil.example\r\n").Has("Access-Control"));
  client.Send(
      "OPTIONS /v1/completions HTTP/1.1\r\nOrigin: https://chat.example\r\n"
      "Access-Control-Request-Method: POST\r\n\r\n");
  EXPECT_TRUE(client.Read(/*has_body=*/false).Has("Access-Control-Allow-Headers: authorization"));
  const std::string asks = "Access-Control-Request-Headers: authorization,x-stainless-os\r\n\r\n";
  client.Send("OPTIONS /v1/completions HTTP/1.1\r\nOrigin: https://chat.example\r\n" + asks);
  EXPECT_TRUE(client.Read(/*has_body=*/false).Has("Access-Control-Allow-Headers: authorization,x-stainless-os\r\n"));
  client.Send("OPTIONS /v1/completions HTTP/1.1\r\nOrigin: https://evil.example\r\n" + asks);
  EXPECT_FALSE(client.Read(/*has_body=*/false).Has("Access-Control"));
}

// vLLM's names, so that its dashboards need one change; all are there before the first request.
TEST_F(ServerTest, HasTheMetricsOfVllm) {
  Start();
  const std::string text = Connect().Get("/metrics").body;
  const std::pair<const char*, std::vector<const char*>> types[] = {
      {"gauge", {"num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"}},
      {"counter",
       {"prefix_cache_queries_total", "prefix_cache_hits_total", "prompt_tokens_total", "generation_tokens_total",
        "request_success_total", "num_preemptions_total"}},
      {"histogram",
       {"time_to_first_token_seconds", "inter_token_latency_seconds", "request_time_per_output_token_seconds",
        "e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds",
        "request_decode_time_seconds", "iteration_tokens_total"}}};
  for (const auto& [type, names] : types) {
    for (const std::string name : names) {
      EXPECT_THAT(text, HasSubstr("# TYPE swiftkv:" + name + " " + type + "\n"));
      EXPECT_THAT(text, HasSubstr("\nswiftkv:" + name + (type == std::string("histogram") ? "_count{" : "{")));
    }
  }
  for (const std::string reason : {"stop", "length", "abort", "error"}) {
    EXPECT_THAT(text,
                HasSubstr("swiftkv:request_success_total{model_name=\"tiny\",finished_reason=\"" + reason + "\"} 0\n"));
  }
}

TEST_F(ServerTest, CountsWhatItDoes) {
  Start();
  Complete({{"prompt", std::string(100, 'a')}, {"max_tokens", 8}, {"ignore_eos", true}});
  // The engine publishes its counts after it has handed out a step's tokens.
  ASSERT_TRUE(Eventually([&] { return server_->stats().generation_tokens == 8; }));
  const std::string text = Connect().Get("/metrics").body;
  for (const char* line : {"swiftkv:prompt_tokens_total{model_name=\"tiny\"} 100",
                           "swiftkv:generation_tokens_total{model_name=\"tiny\"} 8",
                           "swiftkv:time_to_first_token_seconds_count{model_name=\"tiny\"} 1",
                           "swiftkv:inter_token_latency_seconds_count{model_name=\"tiny\"} 7",
                           "swiftkv:e2e_request_latency_seconds_count{model_name=\"tiny\"} 1",
                           "swiftkv:request_queue_time_seconds_count{model_name=\"tiny\"} 1",
                           "swiftkv:request_prefill_time_seconds_count{model_name=\"tiny\"} 1",
                           "swiftkv:request_decode_time_seconds_count{model_name=\"tiny\"} 1",
                           "swiftkv:request_time_per_output_token_seconds_count{model_name=\"tiny\"} 1",
                           "swiftkv:prefix_cache_queries_total{model_name=\"tiny\"} 100",
                           "swiftkv:num_requests_running{model_name=\"tiny\"} 0", "finished_reason=\"length\"} 1\n",
                           "swiftkv:skipped_flops_total"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(ServerTest, AnswersManyAtOnceAsAlone) {
  Start();
  std::vector<Json> bodies;
  std::vector<std::string> alone;
  for (int i = 0; i < 32; ++i) {
    bodies.push_back({{"prompt", std::string(1 + i * 5, static_cast<char>('a' + i % 26))},
                      {"max_tokens", 5 + i},
                      {"seed", i},
                      {"ignore_eos", true},
                      {"stream", true}});
    alone.push_back({});
    for (const Json& event : Events(Post("/v1/completions", bodies.back()))) {
      alone.back() += event["choices"][0]["text"].get<std::string>();
    }
  }
  std::vector<TestClient> clients;
  for (int i = 0; i < 256; ++i) {
    clients.push_back(Connect());
    clients.back().SendPost("/v1/completions", bodies[static_cast<size_t>(i % 32)].dump());
  }
  for (int i = 0; i < 256; ++i) {
    std::string text;
    for (const Json& event : Events(clients[static_cast<size_t>(i)].Read())) {
      text += event["choices"][0]["text"].get<std::string>();
    }
    EXPECT_EQ(text, alone[static_cast<size_t>(i % 32)]) << i;
  }
}

TEST_F(ServerTest, EndsTheRequestOfAClientThatLeaves) {
  Start();
  for (const bool stream : {false, true}) {
    TestClient client = Connect();
    const Json body = {{"prompt", "abc"}, {"max_tokens", 500}, {"ignore_eos", true}, {"n", 8}, {"stream", stream}};
    client.SendPost("/v1/completions", body.dump());
    ASSERT_TRUE(Eventually([&] { return server_->stats().num_requests_running > 0; }));
    client.Close();
    EXPECT_TRUE(Eventually([&] { return server_->idle(); }));
  }
  EXPECT_THAT(Connect().Get("/metrics").body, HasSubstr("finished_reason=\"abort\"} 2\n"));
}

// Both threads for long work are in a slow template when a third client asks and leaves.
TEST_F(ServerTest, ForgetsTheQueuedRequestOfAClientThatLeaves) {
  std::ostringstream log;
  const auto logger = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  const std::string folder =
      WriteTinyModel(std::filesystem::temp_directory_path() / ("swiftkv-server-slow-" + std::to_string(getpid())), {});
  std::ofstream(folder + "/slow.jinja")
      << "{% for i in range(2000) %}{% for j in range(2000) %}{% endfor %}{% endfor %}";
  const auto model = LoadModel({.model = folder, .dtype = DType::kF32, .chat_template_file = folder + "/slow.jinja"});
  ASSERT_TRUE(model) << model.error().message;
  Listen();
  ASSERT_TRUE(server_->Serve(*model, engine_options_));
  const std::string body = R"({"messages": [{"role": "user", "content": "a"}]})";
  std::vector<TestClient> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(Connect());
    clients.back().SendPost("/tokenize", body, "x-request-id: client-" + std::to_string(i) + "\r\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  clients.pop_back();
  for (TestClient& client : clients) EXPECT_EQ(client.Read().status, 200);
  server_.reset();
  spdlog::set_default_logger(logger);
  EXPECT_THAT(log.str(), HasSubstr("request=client-2 path=/tokenize error=\"the client went away\""));
  std::filesystem::remove_all(folder);
}

TEST_F(ServerTest, RefusesWhatItCannotQueue) {
  engine_options_.max_waiting = 2;
  engine_options_.engine.scheduler.max_num_seqs = 1;
  Start();
  std::vector<TestClient> clients;
  const Json body = {{"prompt", "abc"}, {"max_tokens", 400}, {"ignore_eos", true}};
  for (int i = 0; i < 12; ++i) {
    clients.push_back(Connect());
    clients.back().SendPost("/v1/completions", body.dump());
  }
  int refused = 0;
  for (TestClient& client : clients) {
    const TestResponse response = client.Read();
    if (response.status == 200) continue;
    EXPECT_EQ(response.status, 429);
    EXPECT_TRUE(response.Has("Retry-After: "));
    ++refused;
  }
  EXPECT_GT(refused, 0);
  // A request of many prompts that does not fit leaves none of them behind.
  EXPECT_EQ(Post("/v1/completions", {{"prompt", Json(std::vector<std::string>(100, "a"))}}).status, 429);
  EXPECT_TRUE(Eventually([&] { return server_->idle(); }));
}

TEST_F(ServerTest, EndsARequestWhoseTimeIsOver) {
  options_.request_timeout_s = 1e-6;
  Start();
  const TestResponse response = Post("/v1/completions", {{"prompt", "abc"}, {"max_tokens", 400}});
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("time limit"));
  EXPECT_TRUE(Eventually([&] { return server_->idle(); }));
}

TEST_F(ServerTest, DrainsBeforeItStops) {
  Start();
  TestClient client = Connect();
  const Json body = {{"prompt", "abc"}, {"max_tokens", 500}, {"ignore_eos", true}};
  client.SendPost("/v1/completions", body.dump());
  ASSERT_TRUE(Eventually([&] { return server_->stats().num_requests_running > 0; }));
  server_->Drain();
  EXPECT_EQ(Connect().Get("/ready").status, 503);
  EXPECT_EQ(Connect().Get("/health").status, 200);
  const TestResponse refused = Post("/v1/completions", {{"prompt", "a"}});
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.Has("Retry-After: "));
  const TestResponse answer = client.Read();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(Json::parse(answer.body)["usage"]["completion_tokens"], 500);
  EXPECT_TRUE(Eventually([&] { return server_->idle(); }));
  server_->Stop(std::chrono::seconds(1));
}

TEST_F(ServerTest, StopsUnderLoad) {
  Start();
  std::vector<TestClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(Connect());
    const Json body = {{"prompt", "abc"}, {"max_tokens", 500}, {"ignore_eos", true}, {"stream", i % 2 == 0}};
    clients.back().SendPost("/v1/completions", body.dump());
  }
  ASSERT_TRUE(Eventually([&] { return server_->stats().num_requests_running > 0; }));
  server_.reset();
}

}  // namespace
}  // namespace swiftkv
