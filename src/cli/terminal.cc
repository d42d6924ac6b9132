#include "cli/terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/printable.h"

namespace swiftkv {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

void OnInterrupt(int signal) {
  if (g_interrupted != 0) _exit(128 + signal);
  g_interrupted = signal;
}

tl::unexpected<Error> InterruptedError() { return MakeError(ErrorCode::kCancelled, "interrupted"); }

// Appends what standard input has to offer; false at its end.
Result<bool> ReadSome(std::string* buffer) {
  char bytes[1 << 16];
  while (true) {
    if (Interrupted() != 0) return InterruptedError();
    const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count >= 0) {
      buffer->append(bytes, static_cast<size_t>(count));
      return count > 0;
    }
    if (errno != EINTR) return IoError("standard input: {}", std::strerror(errno));
  }
}

}  // namespace

Status WriteOutput(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(STDOUT_FILENO, text.data(), text.size());
    if (count >= 0) {
      text.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EPIPE) {
      return MakeError(ErrorCode::kCancelled, "standard output was closed");
    } else if (errno != EINTR) {
      return IoError("standard output: {}", std::strerror(errno));
    }
  }
  return Ok();
}

void WriteNote(std::string_view line) { WriteError(fmt::format("{}\n", WithoutControls(line))); }

void WriteError(std::string_view text) {
  // Nothing can be done about a standard error that is closed or full.
  [[maybe_unused]] const ssize_t ignored = write(STDERR_FILENO, text.data(), text.size());
}

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;  // without SA_RESTART: a read that waits for a line must return
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

void OccupyClosedStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) != -1 || errno != EBADF) continue;
    // Opened the wrong way round, so that reading and writing fail as before. The lowest free number is `stream`.
    [[maybe_unused]] const int fd = open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

int Interrupted() { return g_interrupted; }
void ClearInterrupt() { g_interrupted = 0; }

Result<std::optional<std::string>> LineReader::Next() {
  bool too_long = false;
  while (true) {
    const size_t newline = buffer_.find('\n');
    if (newline != std::string::npos || (ended_ && !buffer_.empty())) {
      std::string line = buffer_.substr(0, newline);
      buffer_.erase(0, newline == std::string::npos ? newline : newline + 1);
      too_long = too_long || static_cast<int64_t>(line.size()) > max_bytes_;
      if (too_long) return InvalidInput("a line of the input is longer than {} bytes", max_bytes_);
      if (line.ends_with('\r')) line.pop_back();
      return std::optional<std::string>(std::move(line));
    }
    if (ended_) return std::optional<std::string>();
    if (static_cast<int64_t>(buffer_.size()) > max_bytes_) {
      too_long = true;
      buffer_.clear();
    }
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, ReadSome(&buffer_));
    ended_ = !more;
  }
}

Result<std::string> ReadAllInput(int64_t max_bytes) {
  std::string text;
  while (true) {
    SWIFTKV_ASSIGN_OR_RETURN(const bool more, ReadSome(&text));
    if (static_cast<int64_t>(text.size()) > max_bytes) {
      return InvalidInput("standard input is longer than {} bytes", max_bytes);
    }
    if (!more) return text;
  }
}

}  // namespace swiftkv
