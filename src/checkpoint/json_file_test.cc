#include "checkpoint/json_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/test_files.h"

namespace swiftkv {
namespace {

using testing::HasSubstr;

std::string Repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(JsonFileTest, ReadsAnObjectInOrder) {
  TemporaryFolder folder;
  const auto json = ReadJsonFile(folder.Write("config.json", R"({"b": "[[\"[", "a": {"c": [1]}})"));
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ(json->dump(), R"({"b":"[[\"[","a":{"c":[1]}})");
}

TEST(JsonFileTest, RefusesWhatIsNoSmallObject) {
  const auto message = [](const std::string& text) { return MessageOf(ParseJsonObject(text, "file")); };
  EXPECT_THAT(message(""), HasSubstr("file: not valid JSON"));
  EXPECT_THAT(message("{\"a\":\"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("{\"a\":1e999}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("[1]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(message(Repeated("[", 1 << 20)), HasSubstr("nested more than 64 deep"));
  EXPECT_THAT(message(Repeated("{\"a\":", 100000)), HasSubstr("nested more than 64 deep"));
  EXPECT_THAT(message("{" + Repeated("\"a\":1,", 30000) + "\"b\":1}"), HasSubstr("more than 8192 members"));
  std::string large = "{\"a\":1";
  for (int i = 0; i < 8000; ++i) large += ",\"" + std::to_string(i) + "\":1";
  large += "}";
  EXPECT_TRUE(ParseJsonObject(large, "file"));
  EXPECT_THAT(message("{\"a\":[" + large + "," + large + "," + large + "]}"), HasSubstr("their keys take more than"));
  TemporaryFolder folder;
  EXPECT_THAT(MessageOf(ReadJsonFile(folder.Write("big.json", std::string(5 << 20, ' ')))), HasSubstr("the limit is"));
  EXPECT_THAT(MessageOf(ReadJsonFile(folder.path())), HasSubstr("not a regular file"));
  EXPECT_EQ(ReadJsonFile(folder.path() + "/none").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace swiftkv
