// `generate --json-schema` with random weights: whatever the model prefers, the output is JSON of the schema.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "e2e/process.h"
#include "e2e/tiny_model.h"
#include "grammar/schema_validator.h"
#include "grammar/test_schemas.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class StructuredOutputTest : public testing::Test {
 protected:
  StructuredOutputTest() : folder_(testing::TempDir() + "swiftkv_structured_" + std::to_string(getpid())) {
    WriteTinyModel(folder_, {.swiftkv = true});
  }
  ~StructuredOutputTest() override { std::filesystem::remove_all(folder_); }
  ProcessResult Generate(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"generate", folder_, "--prompt", "Answer:"});
    return RunSwiftKv(arguments);
  }

  std::string folder_;
};

TEST_F(StructuredOutputTest, EveryFinishedChoiceSatisfiesTheSchema) {
  int finished = 0;
  for (const char* schema : kTestSchemas) {
    const ProcessResult result = Generate(
        {"--json-schema", schema, "--json", "--n", "4", "--temperature", "2", "--seed", "1", "--max-tokens", "200"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json output = Json::parse(result.out);
    for (const Json& choice : output.at("choices")) {
      if (choice["finish_reason"] == "length") continue;
      ++finished;
      const Json value = Json::parse(choice["text"].get<std::string>(), nullptr, /*allow_exceptions=*/false);
      EXPECT_FALSE(value.is_discarded()) << choice["text"];
      EXPECT_TRUE(SchemaValidator(Json::parse(schema)).Valid(value)) << schema << choice["text"];
    }
  }
  EXPECT_GT(finished, 40);
}

TEST_F(StructuredOutputTest, TakesASchemaFileAndAnyObject) {
  std::ofstream(folder_ + "/schema.json") << R"({"enum": ["yes", "no"]})";
  const std::string answer = Generate({"-j", folder_ + "/schema.json"}).out;
  EXPECT_TRUE(answer == "\"yes\"\n" || answer == "\"no\"\n") << answer;
  EXPECT_EQ(Generate({"--json-object", "--max-tokens", "5"}).out.front(), '{');
}

TEST_F(StructuredOutputTest, WrongSchemasAreSentences) {
  const ProcessResult unknown = Generate({"--json-schema", R"({"not": {}})"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("the keyword 'not' is not supported"));
  EXPECT_EQ(Generate({"--json-schema", "/nowhere.json"}).exit_code, 2);
  EXPECT_EQ(Generate({"--json-schema", "{}", "--json-object"}).exit_code, 2);
  EXPECT_EQ(Generate({"--json-schema", "{}", "--ignore-eos"}).exit_code, 2);
}

}  // namespace
}  // namespace swiftkv
