// Runs the swiftkv binary as a user would.
#ifndef SWIFTKV_TESTS_E2E_PROCESS_H_
#define SWIFTKV_TESTS_E2E_PROCESS_H_

#include <functional>
#include <string>
#include <vector>

namespace swiftkv {

struct ProcessOptions {
  std::string input = {};                     // standard input
  std::vector<std::string> environment = {};  // "NAME=VALUE", beside this process's own
  std::string output_file = {};               // standard output goes there; empty: it is captured
  bool close_output = false;                  // nobody reads standard output
  // A signal to send once some standard output has come; 0: none.
  int signal_after_output = 0;
  // A signal to send once standard error holds a text; 0: none.
  int signal_after_error = 0;
  std::string error_text = {};
};

struct ProcessResult {
  int exit_code = -1;  // 128 + signal if a signal ended it
  std::string out;
  std::string err;
};

// SWIFTKV_BINARY (set by CMake) with `arguments`.
ProcessResult RunSwiftKv(const std::vector<std::string>& arguments, const ProcessOptions& options = {});

}  // namespace swiftkv

#endif  // SWIFTKV_TESTS_E2E_PROCESS_H_
