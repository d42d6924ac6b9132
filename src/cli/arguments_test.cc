// Spellings of other tools, and flags from a file.
#include "cli/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <filesystem>

#include "base/file.h"
#include "cli/options.h"

namespace swiftkv {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Program {
  CLI::App app;
  CLI::App* serve = app.add_subcommand("serve");
  std::string model = "none";
  std::string prompt;
  int port = 8000;
  int max_num_seqs = 64;
  bool caches = true;
  std::vector<std::string> keys;
  std::vector<std::string> pairs;

  Program() {
    serve->add_option("model,-m,--model", model);
    serve->add_option("-p,--prompt", prompt);
    serve->add_option("--port", port)->check(CLI::Range(0, 65535))->envname("SWIFTKV_TEST_PORT");
    serve->add_option("--max-num-seqs", max_num_seqs);
    serve->add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", caches);
    MayBeRepeated(serve->add_option("--api-key", keys));
    MayBeRepeated(serve->add_option("--pg", pairs));
  }
  std::vector<std::string> Spelled(std::vector<std::string> arguments) const {
    return OwnSpelling(app, std::move(arguments));
  }
  void Parse(std::vector<std::string> arguments) {
    std::reverse(arguments.begin(), arguments.end());
    app.parse(std::move(arguments));
  }
  Status Apply(const std::string& yaml) {
    const std::string path = testing::TempDir() + "swiftkv_arguments_" + std::to_string(getpid()) + ".yaml";
    EXPECT_TRUE(WriteFile(path, yaml));
    Status status = ApplyConfigFile(path, serve);
    std::filesystem::remove(path);
    return status;
  }
};

std::string ErrorOf(const Status& status) { return status ? "none" : status.error().message; }

TEST(OwnSpellingTest, KnowsFlagsOfOtherTools) {
  const Program program;
  EXPECT_THAT(program.Spelled({"serve", "--max_num_seqs", "3", "--api_key=a_b"}),
              ElementsAre("serve", "--max-num-seqs", "3", "--api-key=a_b"));
  EXPECT_THAT(program.Spelled({"serve", "--no_enable-prefix_caching"}),
              ElementsAre("serve", "--no-enable-prefix-caching"));
  EXPECT_THAT(program.Spelled({"serve", "-pg", "16,4", "-pg=1,2"}), ElementsAre("serve", "--pg", "16,4", "--pg=1,2"));
}

TEST(OwnSpellingTest, LeavesTheRestAlone) {
  const Program program;
  const std::vector<std::vector<std::string>> kept = {{"serve", "--not_ours", "a_b"},  // to be named as it was written
                                                      {"serve", "--prompt", "--max_num_seqs"},  // a value
                                                      {"serve", "-p", "--max_num_seqs"},        // another
                                                      {"serve", "-pword"},                // a short flag with its value
                                                      {"serve", "--", "--max_num_seqs"},  // no flag any more
                                                      {"--max_num_seqs"},                 // of no command yet
                                                      {"nonsense", "--max_num_seqs"}};
  for (const std::vector<std::string>& arguments : kept) EXPECT_EQ(program.Spelled(arguments), arguments);
  EXPECT_THAT(program.Spelled({"serve", "--prompt=--max_num_seqs", "--max_num_seqs", "1"}),
              ElementsAre("serve", "--prompt=--max_num_seqs", "--max-num-seqs", "1"));
}

TEST(OverruledVariablesTest, AFlagBeatsTheVariablesOfThoseThatItExcludes) {
  setenv("SWIFTKV_TEST_FILE", "of the environment", 1);
  const auto file = [](const std::vector<std::string>& arguments, bool needs) {
    Program program;
    std::string value = "none";
    CLI::Option* const prompt = program.serve->get_option("--prompt")->envname("SWIFTKV_TEST_PROMPT");
    CLI::Option* const option = program.serve->add_option("--file", value)->envname("SWIFTKV_TEST_FILE");
    needs ? option->needs(prompt) : option->excludes(prompt);
    DropOverruledVariables(arguments, &program.app);
    program.Parse(arguments);
    return value;
  };
  const std::string variable = "of the environment";
  EXPECT_EQ(file({"serve"}, false), variable);
  EXPECT_EQ(file({"serve", "--port", "1", "--", "--prompt"}, false), variable);
  EXPECT_EQ(file({"serve", "-p", "x"}, false), "none");
  EXPECT_EQ(file({"serve", "--prompt=x"}, false), "none");
  EXPECT_EQ(file({"serve", "--file", "x"}, false), "x");
  EXPECT_THROW(file({"serve", "--file", "x", "--prompt", "y"}, false), CLI::ExcludesError);
  EXPECT_EQ(file({"serve", "--prompt", "x"}, true), variable);
  EXPECT_EQ(file({"serve"}, true), "none") << "it would not count";
  EXPECT_THROW(file({"serve", "--file", "x"}, true), CLI::RequiresError);
  setenv("SWIFTKV_TEST_PROMPT", "x", 1);
  EXPECT_EQ(file({"serve"}, true), variable);
  unsetenv("SWIFTKV_TEST_PROMPT");
  unsetenv("SWIFTKV_TEST_FILE");
}

TEST(MayBeRepeatedTest, TakesValuesAsTheyStand) {
  Program program;
  program.Parse({"serve", "--api-key", "[a,b]", "--api-key=[]", "--api-key", "c,d", "org/name"});
  EXPECT_THAT(program.keys, ElementsAre("[a,b]", "[]", "c,d"));
  EXPECT_EQ(program.model, "org/name");
}

TEST(ConfigFileTest, SetsWhatNothingElseHasSet) {
  setenv("SWIFTKV_TEST_PORT", "7000", 1);
  Program program;
  program.Parse({"serve", "--max-num-seqs", "5"});
  unsetenv("SWIFTKV_TEST_PORT");
  ASSERT_EQ(ErrorOf(program.Apply("model: org/name\nport: 9000\nmax_num_seqs: 7\napi-key: [one, two]\n"
                                  "enable-prefix-caching: false\n")),
            "none");
  EXPECT_EQ(program.model, "org/name");
  EXPECT_EQ(program.port, 7000) << "the environment's";
  EXPECT_EQ(program.max_num_seqs, 5) << "the flag's";
  EXPECT_THAT(program.keys, ElementsAre("one", "two"));
  EXPECT_FALSE(program.caches);
}

TEST(ConfigFileTest, BothFormsOfAFlag) {
  for (const auto& [yaml, caches] : {std::pair{"no-enable-prefix-caching: true", false},
                                     {"no_enable_prefix_caching: false", true},
                                     {"enable_prefix_caching: true", true},
                                     {"", true}}) {
    Program program;
    program.Parse({"serve"});
    ASSERT_EQ(ErrorOf(program.Apply(yaml)), "none");
    EXPECT_EQ(program.caches, caches) << yaml;
  }
}

TEST(ConfigFileTest, WrongFilesAreSentences) {
  const auto message = [](const std::string& yaml) {
    Program program;
    program.Parse({"serve"});
    return ErrorOf(program.Apply(yaml));
  };
  EXPECT_THAT(message("port: 1\nports: 2"), AllOf(HasSubstr(".yaml:2: ports is no flag"), HasSubstr("serve")));
  EXPECT_THAT(message("config: other.yaml"), HasSubstr("config is no flag"));
  EXPECT_THAT(message("help: true"), HasSubstr("help is no flag"));
  EXPECT_THAT(message("port: 99999"), HasSubstr("99999 not in range"));
  EXPECT_THAT(message("port: [1, 2]"), HasSubstr("port"));
  EXPECT_THAT(message("port: {a: 1}"), HasSubstr("needs a value"));
  EXPECT_THAT(message("port:"), HasSubstr("needs a value"));
  EXPECT_THAT(message("enable-prefix-caching: perhaps"), HasSubstr("enable-prefix-caching"));
  EXPECT_THAT(message("max-num-seqs: 1\nmax_num_seqs: 2"), HasSubstr("stands there already"));
  EXPECT_THAT(message("- port"), HasSubstr("must be a YAML map"));
  EXPECT_THAT(message("a: &x 1\nport: *x"), HasSubstr("alias"));
  Program program;
  EXPECT_THAT(ErrorOf(ApplyConfigFile("/nonexistent.yaml", program.serve)), HasSubstr("/nonexistent.yaml"));
}

}  // namespace
}  // namespace swiftkv
