// Another program, run to its end without a shell: no argument is ever taken for a command.
//
//   SWIFTKV_ASSIGN_OR_RETURN(ProcessEnd end, RunProgram({"gnuplot", "curve.gp"}, {.folder = "out"}));
//   if (end.exit_code != 0) ... end.error_output ...
#ifndef SWIFTKV_BASE_PROCESS_H_
#define SWIFTKV_BASE_PROCESS_H_

#include <chrono>
#include <string>
#include <vector>

#include "base/status.h"

namespace swiftkv {

struct ProcessOptions {
  std::string folder = ".";  // where it runs
  std::chrono::milliseconds limit = std::chrono::seconds(60);
};

struct ProcessEnd {
  int exit_code = 0;         // 128 + the signal that ended it
  std::string error_output;  // at most the first 4 KiB of its standard error
};

// command[0]: a name that is looked up in PATH, or a path. Standard input is empty, standard output is dropped.
// Errors: kNotFound (no such program), kIo, kResourceExhausted (it was ended at the limit).
Result<ProcessEnd> RunProgram(const std::vector<std::string>& command, const ProcessOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_PROCESS_H_
