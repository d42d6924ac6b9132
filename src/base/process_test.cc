#include "base/process.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace swiftkv {
namespace {

TEST(RunProgramTest, GivesExitCodeAndStandardError) {
  const Result<ProcessEnd> end = RunProgram({"sh", "-c", "cat; echo out; echo problem >&2; exit 3"}, {});
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_EQ(end->exit_code, 3);
  EXPECT_EQ(end->error_output, "problem\n");
  EXPECT_EQ(RunProgram({"sh", "-c", "kill -9 $$"}, {})->exit_code, 137);
}

TEST(RunProgramTest, ArgumentsAreNoCommands) {
  const std::string folder = testing::TempDir();
  const Result<ProcessEnd> end = RunProgram(
      {"sh", "-c", "printf '%s' \"$1\" >&2; pwd >&2", "sh", "; $(touch x) `touch x` 'a\"b"}, {.folder = folder});
  ASSERT_TRUE(end);
  EXPECT_TRUE(end->error_output.starts_with("; $(touch x) `touch x` 'a\"b")) << end->error_output;
  EXPECT_NE(end->error_output.find(std::filesystem::canonical(folder).string()), std::string::npos);
}

TEST(RunProgramTest, ALongErrorOutputIsCut) {
  const Result<ProcessEnd> end = RunProgram({"sh", "-c", "yes problem | head -c 300000 >&2"}, {});
  ASSERT_TRUE(end);
  EXPECT_EQ(end->exit_code, 0);
  EXPECT_EQ(end->error_output.size(), 4096u);
}

TEST(RunProgramTest, AMissingProgramIsNotFound) {
  EXPECT_EQ(RunProgram({"swiftkv-no-such-program"}, {}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(RunProgram({"sh", "-c", "true"}, {.folder = "/nonexistent"}).error().code, ErrorCode::kNotFound);
}

TEST(RunProgramTest, AProgramThatDoesNotEndIsEnded) {
  for (const char* script : {"exec sleep 60", "exec sleep 60 2>/dev/null"}) {
    const auto start = std::chrono::steady_clock::now();
    const Result<ProcessEnd> end = RunProgram({"sh", "-c", script}, {.limit = std::chrono::milliseconds(100)});
    ASSERT_FALSE(end);
    EXPECT_EQ(end.error().code, ErrorCode::kResourceExhausted);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  }
}

}  // namespace
}  // namespace swiftkv
