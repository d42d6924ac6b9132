// The swiftkv binary at a terminal of its own, with somebody who types.
#ifndef SWIFTKV_TESTS_E2E_TERMINAL_SESSION_H_
#define SWIFTKV_TESTS_E2E_TERMINAL_SESSION_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace swiftkv {

class TerminalSession {
 public:
  explicit TerminalSession(const std::vector<std::string>& arguments);
  ~TerminalSession();  // ends a program that still runs
  TerminalSession(const TerminalSession&) = delete;
  TerminalSession& operator=(const TerminalSession&) = delete;

  void Type(std::string_view keys);
  // True once `text` has come that was not waited for before; false if it does not come within a minute.
  bool Shows(std::string_view text);
  // Waits for the end. 128 + signal if a signal ended it.
  int ExitCode();
  const std::string& screen() const { return screen_; }

 private:
  bool Read(int milliseconds);
  int terminal_ = -1;
  pid_t child_ = -1;
  std::string screen_;
  size_t seen_ = 0;
};

}  // namespace swiftkv

#endif  // SWIFTKV_TESTS_E2E_TERMINAL_SESSION_H_
