// The load generator against servers that behave, and servers that don't.
#include "bench/load_generator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "bench/scripted_server.h"

namespace swiftkv {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr milliseconds kNow(0);

std::string Header(std::string_view status = "200 OK", std::string_view type = "text/event-stream") {
  return fmt::format("HTTP/1.1 {}\r\nContent-Type: {}\r\nConnection: close\r\n\r\n", status, type);
}
std::string Token(std::string_view text) {
  return fmt::format("data: {{\"choices\":[{{\"index\":0,\"text\":\"{}\",\"finish_reason\":null}}]}}\n\n", text);
}
const std::string kEnd =
    "data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}],"
    "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";

Script GoodAnswer() {
  return {{kNow, Header()}, {milliseconds(30), Token("a")}, {milliseconds(20), Token("b") + Token("c")}, {kNow, kEnd}};
}

LoadGeneratorOptions OptionsFor(const ScriptedServer& server) {
  LoadGeneratorOptions options;
  options.server.port = server.port();
  options.model = "m";
  options.request_timeout = 20;
  return options;
}

std::vector<LoadRequest> Requests(int count, double gap = 0) {
  std::vector<LoadRequest> requests;
  for (int i = 0; i < count; ++i) {
    requests.push_back({.prompt = fmt::format("p{}", i), .prompt_tokens = 4, .output_tokens = 3, .arrival = gap * i});
  }
  return requests;
}

// The failure of a single request that is answered with `script`.
RequestFailure FailureOf(const Script& script, double timeout = 20) {
  ScriptedServer server([&](int, const std::string&) { return script; });
  LoadGeneratorOptions options = OptionsFor(server);
  options.request_timeout = timeout;
  const auto run = RunLoad(Requests(1), options);
  EXPECT_TRUE(run.has_value());
  EXPECT_TRUE(run->outcomes.front().failure.has_value());
  return run->outcomes.front().failure.value_or(RequestFailure{});
}

TEST(LoadGeneratorTest, MeasuresWhatTheServerDoes) {
  ScriptedServer server([](int, const std::string&) { return GoodAnswer(); });
  const auto run = RunLoad(Requests(3, 0.05), OptionsFor(server));
  ASSERT_TRUE(run.has_value());
  for (size_t i = 0; i < 3; ++i) {
    const RequestOutcome& outcome = run->outcomes[i];
    ASSERT_FALSE(outcome.failure) << outcome.failure->detail;
    EXPECT_GE(outcome.start, 0.05 * static_cast<double>(i));
    EXPECT_GE(outcome.ttft, 0.03);
    EXPECT_GE(outcome.latency, 0.05);
    EXPECT_THAT(outcome.inter_token, SizeIs(2));
    EXPECT_EQ(outcome.prompt_tokens, 5);
    EXPECT_EQ(outcome.output_tokens, 3);
  }
  EXPECT_GE(run->duration, 0.15);
}

TEST(LoadGeneratorTest, SendsWhatAnOpenAiServerReads) {
  ScriptedServer server([](int, const std::string&) { return GoodAnswer(); });
  LoadGeneratorOptions options = OptionsFor(server);
  options.server.path = "/base";
  options.api_key = "secret";
  ASSERT_TRUE(RunLoad(Requests(1), options));
  const std::string request = server.requests().front();
  EXPECT_THAT(request, HasSubstr("POST /base/v1/completions HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("Authorization: Bearer secret\r\n"));
  const auto body = nlohmann::json::parse(request.substr(request.find("\r\n\r\n") + 4));
  EXPECT_EQ(body, nlohmann::json::parse(R"({"model":"m","prompt":"p0","max_tokens":3,"temperature":0.0,"stream":true,
                                            "stream_options":{"include_usage":true},"ignore_eos":true})"));
  options.endpoint = "/v1/chat/completions";
  const auto chat = nlohmann::json::parse(RequestBody(Requests(1).front(), options));
  EXPECT_EQ(chat["messages"], nlohmann::json::parse(R"([{"role":"user","content":"p0"}])"));
  options.endpoint = "/v1/completions";
  const LoadRequest ids{.prompt_token_ids = {3, 1, 4}, .output_tokens = 1};
  EXPECT_EQ(nlohmann::json::parse(RequestBody(ids, options))["prompt"], nlohmann::json({3, 1, 4}));
}

TEST(LoadGeneratorTest, AnOpenLoopDoesNotWaitForAnswers) {
  ScriptedServer server([](int, const std::string&) { return GoodAnswer(); });
  const auto run = RunLoad(Requests(256), OptionsFor(server));
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(run->max_concurrent, 256);
  for (const RequestOutcome& outcome : run->outcomes) EXPECT_FALSE(outcome.failure) << outcome.failure->detail;
}

TEST(LoadGeneratorTest, MaxConcurrencyHoldsBack) {
  std::atomic<int> at_once = 0, most = 0;
  ScriptedServer server([&](int, const std::string&) {
    most = std::max<int>(most, ++at_once);
    std::this_thread::sleep_for(milliseconds(20));
    --at_once;
    return GoodAnswer();
  });
  LoadGeneratorOptions options = OptionsFor(server);
  options.max_concurrency = 2;
  const auto run = RunLoad(Requests(8), options);
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(run->max_concurrent, 2);
  EXPECT_LE(most, 2);
  for (const RequestOutcome& outcome : run->outcomes) EXPECT_FALSE(outcome.failure);
}

TEST(LoadGeneratorTest, EveryFailureHasAName) {
  EXPECT_EQ(FailureOf({{kNow, Header("503 Busy", "application/json") + "{\"error\":\"full\"}"}}).kind, "http 503");
  EXPECT_THAT(FailureOf({{kNow, Header("503 Busy", "application/json") + "{\"error\":\"full\"}"}}).detail,
              HasSubstr("full"));
  EXPECT_EQ(FailureOf({{kNow, Header("200 OK", "application/json") + "{}"}}).kind, "malformed answer");
  EXPECT_EQ(FailureOf({{kNow, Header() + "data: {nonsense\n\n"}}).kind, "malformed answer");
  EXPECT_EQ(FailureOf({{kNow, Header() + Token("a")}}).kind, "malformed answer");
  EXPECT_EQ(FailureOf({{kNow, Header() + "data: {\"error\":{\"message\":\"no memory\"}}\n\n"}}).kind, "server error");
  EXPECT_EQ(FailureOf({}).kind, "connection closed");
  EXPECT_EQ(FailureOf({{kNow, "no HTTP at all\r\n\r\n"}}).kind, "receive");
  EXPECT_EQ(FailureOf({{kNow, Header() + Token("a")}, {milliseconds(1500), kEnd}}, 0.2).kind, "timeout");
  EXPECT_EQ(FailureOf({{kNow, fmt::format("HTTP/1.1 200 OK\r\nX: {:x<100000}", "")}}).kind, "receive");
}

TEST(LoadGeneratorTest, NobodyListens) {
  LoadGeneratorOptions options;
  {
    const ScriptedServer server([](int, const std::string&) { return Script(); });
    options.server.port = server.port();
  }
  const auto run = RunLoad(Requests(2), options);
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(run->outcomes[1].failure->kind, "connect");
  EXPECT_EQ(AskModel(options).error().code, ErrorCode::kIo);
  options.server.host = "host.invalid";
  EXPECT_EQ(RunLoad(Requests(1), options).error().code, ErrorCode::kNotFound);
}

TEST(LoadGeneratorTest, CancellingEndsTheRun) {
  ScriptedServer server([](int, const std::string&) { return Script{{milliseconds(1500), Header()}}; });
  LoadGeneratorOptions options = OptionsFor(server);
  options.cancelled = [] { return true; };
  EXPECT_EQ(RunLoad(Requests(2), options).error().code, ErrorCode::kCancelled);
}

TEST(LoadGeneratorTest, AsksForTheModel) {
  ScriptedServer server([](int, const std::string&) {
    return Script{{kNow, Header("200 OK", "application/json") + R"({"data":[{"id":"smol"}]})"}};
  });
  EXPECT_EQ(*AskModel(OptionsFor(server)), "smol");
  ScriptedServer odd([](int, const std::string&) {
    return Script{{kNow, Header("200 OK", "application/json") + R"({"data":{}})"}};
  });
  EXPECT_THAT(AskModel(OptionsFor(odd)).error().message, HasSubstr("--model"));
  ScriptedServer deep([](int, const std::string&) {
    return Script{{kNow, Header("200 OK", "application/json") + R"({"data":)" + std::string(100000, '[')}};
  });
  EXPECT_THAT(AskModel(OptionsFor(deep)).error().message, HasSubstr("/v1/models: JSON nested"));
  ScriptedServer closed([](int, const std::string&) {
    return Script{{kNow, Header("401 Unauthorized", "application/json") + R"({"error":"wrong key"})"}};
  });
  EXPECT_THAT(AskModel(OptionsFor(closed)).error().message,
              HasSubstr("/v1/models: http 401: {\"error\":\"wrong key\"}"));
}

TEST(ParseBaseUrlTest, TakesUrlsApart) {
  const auto full = ParseBaseUrl("http://example.org:8080/openai/");
  ASSERT_TRUE(full.has_value());
  EXPECT_EQ(full->host, "example.org");
  EXPECT_EQ(full->port, "8080");
  EXPECT_EQ(full->path, "/openai");
  EXPECT_EQ(ParseBaseUrl("http://localhost")->port, "80");
  EXPECT_EQ(ParseBaseUrl("http://[::1]:9")->host, "::1");
  for (const char* wrong :
       {"", "localhost:80", "https://x", "http://", "http://:80", "http://x:", "http://x:8a", "http://[::1"}) {
    EXPECT_FALSE(ParseBaseUrl(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace swiftkv
