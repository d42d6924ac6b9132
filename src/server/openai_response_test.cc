#include "server/openai_response.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

std::unique_ptr<Tokenizer> MakeTokenizer(const Json& vocabulary, const Json& decoder) {
  const Json json = {
      {"version", "1.0"},
      {"added_tokens", Json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", nullptr},
      {"post_processor", nullptr},
      {"decoder", decoder},
      {"model", {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", vocabulary}, {"merges", Json::array()}}}};
  auto tokenizer = Tokenizer::FromJson(json.dump(), "test");
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return std::move(*tokenizer);
}

// "é" is C3 A9, in two tokens; GPT-2's alphabet spells the space U+0120 and the newline U+010A.
std::unique_ptr<Tokenizer> ByteLevel() {
  return MakeTokenizer(
      {{"Ã", 0}, {"©", 1}, {"Ġthe", 2}, {"Ċ", 3}, {"ï¿½", 4}},
      {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}});
}

TEST(TokenBytes, AreTheTokensOwn) {
  const auto tokenizer = ByteLevel();
  EXPECT_EQ(TokenBytes(*tokenizer, 0), "\xC3");
  EXPECT_EQ(TokenBytes(*tokenizer, 1), "\xA9");
  EXPECT_EQ(TokenBytes(*tokenizer, 2), " the");
  EXPECT_EQ(TokenBytes(*tokenizer, 3), "\n");
  EXPECT_EQ(TokenBytes(*tokenizer, 4), "\xEF\xBF\xBD");  // U+FFFD itself, not a piece of a character
  EXPECT_EQ(TokenBytes(*tokenizer, 99), "");
  const auto metaspace =
      MakeTokenizer({{"▁the", 0}, {"<0xE2>", 1}},
                    {{"type", "Sequence"},
                     {"decoders", Json::array({{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                                               {{"type", "ByteFallback"}},
                                               {{"type", "Fuse"}},
                                               {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}})}});
  EXPECT_EQ(TokenBytes(*metaspace, 0), " the");
  EXPECT_EQ(TokenBytes(*metaspace, 1), "\xE2");
}

TEST(CompletionLogprobs, SpellPiecesOfCharactersAsBytes) {
  const auto tokenizer = ByteLevel();
  const std::vector<PositionLogprobs> scores = {
      {.token = {.token_id = 1, .logprob = -3, .rank = 3},
       .top = {{.token_id = 0, .logprob = -1, .rank = 1}, {.token_id = 2, .logprob = -2, .rank = 2}}}};
  int64_t offset = 5;
  const Json logprobs = CompletionLogprobs(*tokenizer, 0, scores, &offset);
  EXPECT_EQ(logprobs["tokens"], Json({"bytes:\\xc3", "bytes:\\xa9"}));
  EXPECT_EQ(logprobs["token_logprobs"], Json({nullptr, -3.0}));
  EXPECT_EQ(logprobs["top_logprobs"][1], Json({{"bytes:\\xc3", -1.0}, {" the", -2.0}, {"bytes:\\xa9", -3.0}}));
  EXPECT_EQ(logprobs["text_offset"], Json({5, 6}));
  EXPECT_EQ(offset, 6);  // the character is counted once, with its first byte
}

TEST(ChatLogprobs, TellBytes) {
  const Json logprobs = ChatLogprobs(*ByteLevel(), {{.token = {.token_id = 0, .logprob = -0.5, .rank = 1}, .top = {}}});
  EXPECT_EQ(logprobs["content"][0]["bytes"], Json::array({0xC3}));
  EXPECT_TRUE(logprobs["content"][0]["top_logprobs"].is_array());
}

TEST(ErrorResponse, NamesTheField) {
  const auto param = [](const std::string& message) {
    return Json::parse(ErrorResponse(Error{ErrorCode::kInvalidInput, message}).body)["error"]["param"];
  };
  EXPECT_EQ(param("temperature is -1; it must be 0 or more"), "temperature");
  EXPECT_EQ(param("messages[3].content must be text"), "messages");
  EXPECT_EQ(param("stream_options.include_usage must be true or false, not 1"), "stream_options");
  EXPECT_TRUE(param("the prompt is empty").is_null());
  EXPECT_EQ(ErrorResponse(Error{ErrorCode::kInvalidInput, "the prompt is empty"}, "messages").body,
            ErrorResponse(400, "the prompt is empty", "messages").body);
  const HttpResponse busy = ErrorResponse(Error{ErrorCode::kResourceExhausted, "too many"});
  EXPECT_EQ(busy.status, 429);
  EXPECT_EQ(busy.headers.front().name, "Retry-After");
  EXPECT_EQ(ErrorResponse(Error{ErrorCode::kCancelled, "the server is shutting down"}).status, 503);
  const HttpResponse failed = ErrorResponse(Error{ErrorCode::kIo, "/home/me/model.gguf: can't be read"});
  EXPECT_EQ(failed.status, 500);
  EXPECT_EQ(failed.body.find("model.gguf"), std::string::npos);
}

}  // namespace
}  // namespace swiftkv
