// The subcommands. Each adds itself and its flags to the program; the function it returns runs it once the command line
// is parsed. Its Status becomes the exit code (main.cc).
#ifndef SWIFTKV_CLI_COMMANDS_H_
#define SWIFTKV_CLI_COMMANDS_H_

#include <functional>

#include "base/status.h"

namespace CLI {
class App;
}

namespace swiftkv {

using RunCommand = std::function<Status()>;

RunCommand AddGenerateCommand(CLI::App* program);
RunCommand AddChatCommand(CLI::App* program);
RunCommand AddConvertCommand(CLI::App* program);
RunCommand AddDistillCommand(CLI::App* program);
RunCommand AddServeCommand(CLI::App* program);
RunCommand AddBenchCommand(CLI::App* program);
RunCommand AddEvalCommand(CLI::App* program);
RunCommand AddInspectCommand(CLI::App* program);
RunCommand AddDoctorCommand(CLI::App* program);

}  // namespace swiftkv

#endif  // SWIFTKV_CLI_COMMANDS_H_
