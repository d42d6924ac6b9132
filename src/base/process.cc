#include "base/process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxErrorOutput = 4096;

struct FileDescriptor {
  int fd = -1;
  ~FileDescriptor() {
    if (fd >= 0) close(fd);
  }
};

class SpawnFileActions {
 public:
  SpawnFileActions() { posix_spawn_file_actions_init(&actions_); }
  ~SpawnFileActions() { posix_spawn_file_actions_destroy(&actions_); }
  SpawnFileActions(const SpawnFileActions&) = delete;
  SpawnFileActions& operator=(const SpawnFileActions&) = delete;
  posix_spawn_file_actions_t* get() { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

// The child's signals are as a shell would leave them: ours ignore some, and block others in some threads.
class SpawnAttributes {
 public:
  SpawnAttributes() {
    posix_spawnattr_init(&attributes_);
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes_, &signals);
    sigaddset(&signals, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes_, &signals);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~SpawnAttributes() { posix_spawnattr_destroy(&attributes_); }
  SpawnAttributes(const SpawnAttributes&) = delete;
  SpawnAttributes& operator=(const SpawnAttributes&) = delete;
  const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_;
};

Result<pid_t> Spawn(const std::vector<std::string>& command, const std::string& folder, int error_output) {
  SpawnFileActions actions;
  posix_spawn_file_actions_addchdir_np(actions.get(), folder.c_str());
  posix_spawn_file_actions_addopen(actions.get(), STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(actions.get(), STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(actions.get(), error_output, STDERR_FILENO);
  const SpawnAttributes attributes;
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, arguments[0], actions.get(), attributes.get(), arguments.data(), environ);
  if (error == ENOENT) return NotFound("{}: no such program (or no folder {})", command[0], folder);
  if (error != 0) return IoError("{}: cannot start: {}", command[0], std::strerror(error));
  return pid;
}

// What comes through the pipe until it is closed; false at the deadline.
bool ReadUntil(Clock::time_point deadline, int fd, std::string* text) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, static_cast<int>(std::min<int64_t>(left, 1 << 30))) <= 0) continue;
    std::array<char, 4096> bytes;
    const ssize_t count = read(fd, bytes.data(), bytes.size());
    if (count == 0 || (count < 0 && errno != EINTR)) return true;
    const size_t room = kMaxErrorOutput - text->size();
    if (count > 0) text->append(bytes.data(), std::min(static_cast<size_t>(count), room));
  }
}

// The wait status; -1 where it still runs at the deadline.
int WaitUntil(Clock::time_point deadline, pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) != pid) {
    if (Clock::now() >= deadline) return -1;
    usleep(2000);
  }
  return status;
}

}  // namespace

Result<ProcessEnd> RunProgram(const std::vector<std::string>& command, const ProcessOptions& options) {
  const Clock::time_point deadline = Clock::now() + options.limit;
  std::array<int, 2> ends = {};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return IoError("{}: no pipe: {}", command[0], std::strerror(errno));
  const FileDescriptor reader{ends[0]};
  FileDescriptor writer{ends[1]};
  SWIFTKV_ASSIGN_OR_RETURN(const pid_t pid, Spawn(command, options.folder, writer.fd));
  close(std::exchange(writer.fd, -1));
  ProcessEnd end;
  int status = ReadUntil(deadline, reader.fd, &end.error_output) ? WaitUntil(deadline, pid) : -1;
  if (status < 0) {
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return ResourceExhausted("{}: ended, for it took longer than {} ms", command[0], options.limit.count());
  }
  end.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return end;
}

}  // namespace swiftkv
