// `swiftkv serve` as a process: start, signals, exit codes. What it answers is tested in src/server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "e2e/process.h"
#include "e2e/tiny_model.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;

class ServeTest : public ::testing::Test {
 protected:
  ServeTest()
      : folder_(std::filesystem::temp_directory_path() / ("swiftkv-serve-test-" + std::to_string(getpid()))),
        model_(WriteTinyModel(folder_)) {}
  ~ServeTest() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
  std::string model_;
};

TEST_F(ServeTest, StartsAndEndsWithASignal) {
  for (const int signal : {SIGTERM, SIGINT}) {
    const ProcessResult result = RunSwiftKv({"serve", model_, "--port", "0", "--served-model-name", "tiny"},
                                            {.signal_after_error = signal, .error_text = "ready at"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, HasSubstr("info ready at http://127.0.0.1:"));
    EXPECT_THAT(result.err, HasSubstr("tiny in mode base, context 512 tokens"));
    EXPECT_THAT(result.err, HasSubstr("shutting down"));
    EXPECT_EQ(result.out, "");
  }
}

TEST_F(ServeTest, SaysWhyItCannotStart) {
  const ProcessResult tls = RunSwiftKv({"serve", model_, "--port", "0", "--ssl-certfile", "cert.pem"});
  EXPECT_EQ(tls.exit_code, 2);
  EXPECT_THAT(tls.err, HasSubstr("belong together"));
  const ProcessResult host = RunSwiftKv({"serve", model_, "--port", "0", "--host", "no such host"});
  EXPECT_EQ(host.exit_code, 2);
  const ProcessResult memory = RunSwiftKv({"serve", model_, "--port", "0", "--kv-cache-memory", "1e18"});
  EXPECT_EQ(memory.exit_code, 1);
  EXPECT_THAT(memory.err, HasSubstr("K/V cache"));
}

}  // namespace
}  // namespace swiftkv
