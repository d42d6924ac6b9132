// Event streams of servers, cut in every possible way.
#include "bench/completion_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/sse_parser.h"

namespace swiftkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The events of `pieces`, pushed one after the other.
std::vector<std::string> Events(const std::vector<std::string>& pieces) {
  SseParser parser;
  std::vector<std::string> events;
  for (const std::string& piece : pieces) {
    EXPECT_TRUE(parser.Push(piece, [&](std::string_view data) -> Status {
      events.emplace_back(data);
      return Ok();
    }));
  }
  return events;
}

TEST(SseParserTest, AnyCutGivesTheSameEvents) {
  const std::string stream =
      ": a comment\r\n\r\ndata: one\n\nevent: x\ndata:two\r\ndata: lines\r\n\r\nid: 7\r\rdata\r\rdata: last\n\ndata: "
      "cut";
  const std::vector<std::string> whole = Events({stream});
  EXPECT_THAT(whole, ElementsAre("one", "two\nlines", "", "last"));
  std::vector<std::string> bytes;
  for (const char c : stream) bytes.emplace_back(1, c);
  EXPECT_EQ(Events(bytes), whole);
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    EXPECT_EQ(Events({stream.substr(0, cut), stream.substr(cut)}), whole) << cut;
  }
}

TEST(SseParserTest, AnEventThatNeverEndsIsRefused) {
  SseParser parser;
  const auto ignore = [](std::string_view) -> Status { return Ok(); };
  const std::string line = "data: " + std::string(1000, 'x') + "\n";
  Status status;
  for (int i = 0; i < 2000 && status; ++i) status = parser.Push(line, ignore);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("1048576"));
}

std::string Chunk(const std::string& json) { return "data: " + json + "\n\n"; }

TEST(CompletionStreamTest, TimesTextCompletions) {
  CompletionStream stream(/*keep_text=*/true);
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[{"index":0,"text":"a","finish_reason":null}]})"), 0.5));
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[{"index":0,"text":"","finish_reason":null}]})"), 0.6));
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[{"index":0,"text":"b","finish_reason":null}]})"), 0.8));
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[{"index":0,"text":"","finish_reason":"length"}]})"), 0.9));
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4}})"), 1.0));
  EXPECT_FALSE(stream.done());
  EXPECT_TRUE(stream.Push("data: [DONE]\n\n", 1.0));
  EXPECT_TRUE(stream.done());
  RequestOutcome outcome{.start = 3, .prompt_tokens = 6};
  ASSERT_TRUE(stream.Finish(&outcome));
  EXPECT_EQ(outcome.start, 3);
  EXPECT_EQ(outcome.ttft, 0.5);
  EXPECT_EQ(outcome.latency, 0.8);
  EXPECT_THAT(outcome.inter_token, ElementsAre(::testing::DoubleNear(0.1, 1e-9), ::testing::DoubleNear(0.2, 1e-9)));
  EXPECT_EQ(outcome.prompt_tokens, 7);
  EXPECT_EQ(outcome.output_tokens, 4);
  EXPECT_EQ(outcome.text, "ab");
}

TEST(CompletionStreamTest, ARoleIsNoOutput) {
  CompletionStream stream(/*keep_text=*/false);
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})"), 0.1));
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[{"delta":{"content":"x"}}]})"), 0.4));
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[{"delta":{"content":"y"}}]})"), 0.5));
  EXPECT_TRUE(stream.Push(Chunk(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})"), 0.7));
  RequestOutcome outcome{.prompt_tokens = 6};
  ASSERT_TRUE(stream.Finish(&outcome));
  EXPECT_EQ(outcome.ttft, 0.4);
  EXPECT_EQ(outcome.latency, 0.5);
  EXPECT_EQ(outcome.prompt_tokens, 6);
  EXPECT_EQ(outcome.output_tokens, 2);  // by outputs, without usage
  EXPECT_EQ(outcome.text, "");
}

TEST(CompletionStreamTest, WhatGoesWrongIsNamed) {
  EXPECT_THAT(CompletionStream(false).Push("data: {nonsense\n\n", 0).error().message,
              HasSubstr("not valid JSON: {nonsense"));
  EXPECT_THAT(CompletionStream(false).Push("data: [1]\n\n", 0).error().message, HasSubstr("not a JSON object: [1]"));
  const std::string deep(100000, '[');
  EXPECT_THAT(CompletionStream(false).Push("data: {\"a\":" + deep + "\n\n", 0).error().message, HasSubstr("nested"));
  const Status server = CompletionStream(false).Push(Chunk(R"({"error":{"message":"out of memory"}})"), 0);
  EXPECT_EQ(server.error().code, ErrorCode::kIo);
  EXPECT_EQ(server.error().message, "out of memory");
  for (const char* odd : {"{}", R"({"choices":3})", R"({"choices":[3]})", R"({"choices":[{"text":5}]})",
                          R"({"usage":{"completion_tokens":-3}})", R"({"choices":[{"delta":"x"}]})"}) {
    EXPECT_TRUE(CompletionStream(false).Push(Chunk(odd), 0)) << odd;
  }
  CompletionStream cut(false);
  EXPECT_TRUE(cut.Push(Chunk(R"({"choices":[{"text":"a"}]})"), 0.5));
  RequestOutcome outcome;
  EXPECT_THAT(cut.Finish(&outcome).error().message, HasSubstr("before the answer did"));
  EXPECT_EQ(outcome.ttft, 0.5);  // what was seen stays
  CompletionStream empty(false);
  EXPECT_TRUE(empty.Push("data: [DONE]\n\n", 0.5));
  EXPECT_THAT(empty.Finish(&outcome).error().message, HasSubstr("no output"));
}

}  // namespace
}  // namespace swiftkv
