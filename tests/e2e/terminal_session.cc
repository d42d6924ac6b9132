#include "e2e/terminal_session.h"

#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::minutes kPatience{1};
constexpr int kStepMs = 100;

}  // namespace

TerminalSession::TerminalSession(const std::vector<std::string>& arguments) {
  winsize size = {.ws_row = 24, .ws_col = 200, .ws_xpixel = 0, .ws_ypixel = 0};
  child_ = forkpty(&terminal_, nullptr, nullptr, &size);
  if (child_ != 0) return;
  setenv("TERM", "xterm", 1);
  std::vector<char*> argv = {const_cast<char*>(SWIFTKV_BINARY)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(SWIFTKV_BINARY, argv.data());
  _exit(127);
}

TerminalSession::~TerminalSession() {
  if (child_ > 0) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  if (terminal_ >= 0) close(terminal_);
}

void TerminalSession::Type(std::string_view keys) {
  while (!keys.empty()) {
    const ssize_t count = write(terminal_, keys.data(), std::min<size_t>(keys.size(), 64));
    if (count <= 0) return;
    keys.remove_prefix(static_cast<size_t>(count));
    Read(/*milliseconds=*/0);  // a program that nobody listens to stops reading
  }
}

// False when the program has closed the terminal.
bool TerminalSession::Read(int milliseconds) {
  pollfd ready = {.fd = terminal_, .events = POLLIN, .revents = 0};
  if (poll(&ready, 1, milliseconds) <= 0) return true;
  char bytes[4096];
  const ssize_t count = read(terminal_, bytes, sizeof bytes);
  if (count > 0) screen_.append(bytes, static_cast<size_t>(count));
  return count > 0;
}

bool TerminalSession::Shows(std::string_view text) {
  for (const Clock::time_point end = Clock::now() + kPatience; Clock::now() < end;) {
    const size_t found = screen_.find(text, seen_);
    if (found != std::string::npos) {
      seen_ = found + text.size();
      return true;
    }
    if (!Read(kStepMs)) break;
  }
  return false;
}

int TerminalSession::ExitCode() {
  for (const Clock::time_point end = Clock::now() + kPatience; Clock::now() < end && Read(kStepMs);) {
  }
  int status = 0;
  if (waitpid(child_, &status, 0) != child_) return -1;
  child_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace swiftkv
