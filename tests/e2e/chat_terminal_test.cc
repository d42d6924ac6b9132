// swiftkv chat at a terminal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "e2e/terminal_session.h"
#include "e2e/tiny_model.h"

namespace swiftkv {
namespace {

constexpr char kLeft[] = "\x1b[D";
constexpr char kUp[] = "\x1b[A";
constexpr char kBackspace[] = "\x7f";
constexpr char kCtrlC[] = "\x03";
constexpr char kCtrlD[] = "\x04";

class ChatTerminalTest : public testing::Test {
 protected:
  ChatTerminalTest() : folder_(testing::TempDir() + "swiftkv_terminal_" + std::to_string(getpid())) {
    WriteTinyModel(folder_);
  }
  ~ChatTerminalTest() override { std::filesystem::remove_all(folder_); }
  std::string folder_;  // a token for each character, a context of 512
};

TEST_F(ChatTerminalTest, LinesAreEditedAndRemembered) {
  TerminalSession chat({"chat", folder_, "--max-tokens", "2", "--ignore-eos"});
  ASSERT_TRUE(chat.Shows("> ")) << chat.screen();
  chat.Type(std::string("hexlo") + kLeft + kLeft + kBackspace + "l\n");  // hello
  const size_t tokens = std::string("[user] hello [assistant] ").size();
  EXPECT_TRUE(chat.Shows("prompt " + std::to_string(tokens) + " tokens")) << chat.screen();
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type("/reset\n");
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type(std::string(kUp) + kUp + "\n");
  EXPECT_TRUE(chat.Shows("prompt " + std::to_string(tokens) + " tokens")) << chat.screen();
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type(std::string("some words") + kCtrlC);
  ASSERT_TRUE(chat.Shows("\n> ")) << "Ctrl-C drops the line";
  chat.Type(kCtrlD);
  EXPECT_EQ(chat.ExitCode(), 0) << chat.screen();
}

TEST_F(ChatTerminalTest, CtrlCStopsAnAnswerAndNothingElse) {
  TerminalSession chat({"chat", folder_, "--ignore-eos"});
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type("go\n");
  ASSERT_TRUE(chat.Shows("go\r\n"));
  chat.Type(kCtrlC);
  ASSERT_TRUE(chat.Shows("decode")) << chat.screen();
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type("/reset\n");
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type("and now\n");
  EXPECT_TRUE(chat.Shows("decode")) << chat.screen();
  chat.Type("/exit\n");
  EXPECT_EQ(chat.ExitCode(), 0) << chat.screen();
}

// Longer than the 4,095 bytes that a terminal driver keeps of a line.
TEST_F(ChatTerminalTest, ALongLineArrivesWhole) {
  TerminalSession chat({"chat", folder_});
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type(std::string(6000, 'x') + "\n");
  EXPECT_TRUE(chat.Shows("the prompt has 6020 tokens; the context holds 512")) << chat.screen();
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type(kCtrlD);
  EXPECT_EQ(chat.ExitCode(), 0);
}

TEST_F(ChatTerminalTest, AFullContextIsASentenceAndNotTheEnd) {
  TerminalSession chat({"chat", folder_, "--ignore-eos"});
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type("hello\n");
  EXPECT_TRUE(chat.Shows("the context of 512 tokens is full; /reset forgets the conversation")) << chat.screen();
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type("more\n");
  EXPECT_TRUE(chat.Shows("the context holds 512: /reset forgets it")) << chat.screen();
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type("/reset\n");
  ASSERT_TRUE(chat.Shows("> "));
  chat.Type("hello\n");
  EXPECT_TRUE(chat.Shows("prompt 25 tokens")) << chat.screen();
}

}  // namespace
}  // namespace swiftkv
