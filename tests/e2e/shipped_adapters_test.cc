// The adapters in models/ on the default model, which scripts/setup fetches, as scripts/demo asks them about
// docs/demo/lighthouse.txt.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "e2e/process.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;

constexpr const char* kName = "What is the name of the lighthouse?";

struct Shipped {
  std::string folder;  // of models/; empty: base
  std::string layers;  // as inspect says them
  std::string question;
  std::string answer;  // holds this
};

void PrintTo(const Shipped& shipped, std::ostream* out) { *out << (shipped.folder.empty() ? "base" : shipped.folder); }

class ShippedAdapterTest : public testing::TestWithParam<Shipped> {
 protected:
  void SetUp() override {
    if (RunSwiftKv({"inspect", "smollm2-135m"}).exit_code != 0) {
      GTEST_SKIP() << "scripts/setup fetches the default model";
    }
    std::ofstream(prompt_) << std::ifstream(SWIFTKV_SOURCE_DIR "/docs/demo/lighthouse.txt").rdbuf()
                           << "\nQuestion: " << GetParam().question;
  }
  ~ShippedAdapterTest() override { std::filesystem::remove(prompt_); }

  // `command` of the model, with the adapter.
  static ProcessResult Run(const std::string& command, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {command, "smollm2-135m"});
    if (!GetParam().folder.empty()) {
      arguments.insert(arguments.end(), {"--adapter", SWIFTKV_SOURCE_DIR "/models/" + GetParam().folder});
    }
    return RunSwiftKv(arguments);
  }

  const std::string prompt_ = testing::TempDir() + "swiftkv_lighthouse_" + std::to_string(getpid()) + ".txt";
};

TEST_P(ShippedAdapterTest, AnswersAboutADocument) {
  EXPECT_THAT(Run("inspect", {}).out, HasSubstr(GetParam().layers));
  const ProcessResult result = Run("generate", {"--chat", "--file", prompt_, "--max-tokens", "48", "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr(GetParam().answer));
}

INSTANTIATE_TEST_SUITE_P(Adapters, ShippedAdapterTest,
                         testing::Values(Shipped{"", "L = 30", kName, "Skerry Point"},
                                         Shipped{"smollm2-135m-swiftkv-33", "n = 20, g = 1",
                                                 "Who designed the lighthouse?", "Margaret Holloway"},
                                         Shipped{"smollm2-135m-swiftkv-50", "n = 15, g = 1", kName, "Skerry Point"},
                                         // It loses single facts.
                                         Shipped{"smollm2-135m-swiftkv-50-across", "n = 15, g = 3", kName,
                                                 "lighthouse"}));

}  // namespace
}  // namespace swiftkv
