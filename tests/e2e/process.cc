#include "e2e/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace swiftkv {
namespace {

// The child's side: descriptors in place, environment set, program started.
[[noreturn]] void StartProgram(const std::vector<std::string>& arguments, const ProcessOptions& options, int input,
                               int output, int error) {
  dup2(input, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(error, STDERR_FILENO);
  for (int fd = 3; fd < 64; ++fd) close(fd);
  std::signal(SIGPIPE, SIG_DFL);
  for (const std::string& entry : options.environment) putenv(const_cast<char*>(entry.c_str()));
  std::vector<char*> argv = {const_cast<char*>(SWIFTKV_BINARY)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(SWIFTKV_BINARY, argv.data());
  _exit(127);
}

struct Pipe {
  std::array<int, 2> fds = {-1, -1};
  Pipe() {
    if (pipe(fds.data()) != 0) fds = {-1, -1};
  }
  void Close(int end) {
    if (fds[end] >= 0) close(std::exchange(fds[end], -1));
  }
  ~Pipe() {
    Close(0);
    Close(1);
  }
};

// Feeds the input and collects what comes until both outputs are closed.
void Converse(pid_t child, const ProcessOptions& options, Pipe* input, Pipe* output, Pipe* error,
              ProcessResult* result) {
  std::string_view left = options.input;
  if (left.empty()) input->Close(1);
  bool signalled = false;
  while (output->fds[0] >= 0 || error->fds[0] >= 0) {
    std::array<pollfd, 3> polls = {pollfd{input->fds[1], POLLOUT, 0}, pollfd{output->fds[0], POLLIN, 0},
                                   pollfd{error->fds[0], POLLIN, 0}};
    poll(polls.data(), polls.size(), -1);
    if ((polls[0].revents & (POLLOUT | POLLERR)) != 0) {
      const ssize_t count = write(input->fds[1], left.data(), std::min<size_t>(left.size(), 4096));
      if (count > 0) left.remove_prefix(static_cast<size_t>(count));
      if (count < 0 || left.empty()) input->Close(1);
    }
    for (const int i : {1, 2}) {
      if (polls[i].revents == 0) continue;
      char bytes[4096];
      Pipe* pipe = i == 1 ? output : error;
      const ssize_t count = read(pipe->fds[0], bytes, sizeof bytes);
      if (count <= 0) {
        pipe->Close(0);
        continue;
      }
      (i == 1 ? result->out : result->err).append(bytes, static_cast<size_t>(count));
      if (i == 1 && options.signal_after_output != 0 && !std::exchange(signalled, true)) {
        kill(child, options.signal_after_output);
      }
      if (i == 2 && options.signal_after_error != 0 && result->err.find(options.error_text) != std::string::npos &&
          !std::exchange(signalled, true)) {
        kill(child, options.signal_after_error);
      }
    }
  }
}

}  // namespace

ProcessResult RunSwiftKv(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);
  Pipe input;
  Pipe output;
  Pipe error;
  int target = output.fds[1];
  if (!options.output_file.empty()) target = open(options.output_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (options.close_output) output.Close(0);
  const pid_t child = fork();
  if (child == 0) StartProgram(arguments, options, input.fds[0], target, error.fds[1]);
  input.Close(0);
  output.Close(1);
  error.Close(1);
  if (!options.output_file.empty()) close(target);

  ProcessResult result;
  Converse(child, options, &input, &output, &error, &result);
  int status = 0;
  waitpid(child, &status, 0);
  result.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return result;
}

}  // namespace swiftkv
