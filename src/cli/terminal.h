// What the program shares with its terminal: standard output that may be closed, Ctrl-C, lines of standard input.
#ifndef SWIFTKV_CLI_TERMINAL_H_
#define SWIFTKV_CLI_TERMINAL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace swiftkv {

// Results go to standard output at once, whole. Errors: kCancelled if its reader has gone, kIo (a full disk).
Status WriteOutput(std::string_view text);

// For people, on standard error: a line, which needs no newline here and loses its control characters, and text as it
// stands.
void WriteNote(std::string_view line);
void WriteError(std::string_view text);

// After it the first Ctrl-C (SIGINT) or SIGTERM only sets a flag, and the second ends the program; a closed standard
// output is an error, not a signal.
void InstallSignalHandlers();
// A standard stream that the caller closed stays unusable, instead of being what the next file is opened as.
void OccupyClosedStreams();
int Interrupted();  // the signal, 0 if there was none
void ClearInterrupt();

// Standard input, line by line.
class LineReader {
 public:
  explicit LineReader(int64_t max_bytes) : max_bytes_(max_bytes) {}
  // A line without its newline; nullopt at the end. Errors: kCancelled (Ctrl-C), kInvalidInput (longer than max_bytes;
  // the rest of that line is skipped), kIo.
  Result<std::optional<std::string>> Next();

 private:
  int64_t max_bytes_;
  std::string buffer_;
  bool ended_ = false;
};

// All of standard input. Errors: kCancelled (Ctrl-C), kInvalidInput (longer than max_bytes), kIo.
Result<std::string> ReadAllInput(int64_t max_bytes);

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_TERMINAL_H_
