// swiftkv: one program, one subcommand a file. This file: what holds for all of them (CPU, signals, exit codes).
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <exception>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/printable.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/terminal.h"

namespace swiftkv {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;
constexpr int kOutputClosed = 141;  // 128 + SIGPIPE, as a shell would say

// Tells of an error, unless there is nobody to tell or nothing went wrong; the exit code.
int Finish(const Status& status) {
  if (status) return 0;
  const Error& error = status.error();
  if (error.code == ErrorCode::kCancelled) return Interrupted() != 0 ? 128 + Interrupted() : kOutputClosed;
  WriteNote("swiftkv: " + error.message);
  return ExitCode(error);
}

// The commands that were read, outermost first: the program, then bench, then latency.
std::vector<const CLI::App*> CommandsRead(const CLI::App& program) {
  std::vector<const CLI::App*> commands = {&program};
  while (!commands.back()->get_subcommands().empty()) commands.push_back(commands.back()->get_subcommands().front());
  return commands;
}

// "bench latency "
std::string Names(const std::vector<const CLI::App*>& commands) {
  std::string names;
  for (size_t i = 1; i < commands.size(); ++i) names += commands[i]->get_name() + " ";
  return names;
}

// CLI11 says only that a command is missing, and does not repeat the word that it could not read.
std::string Explain(const std::vector<const CLI::App*>& commands, const CLI::ParseError& error,
                    const std::vector<std::string>& arguments) {
  const size_t depth = commands.size() - 1;
  if (depth >= arguments.size() || commands.back()->get_require_subcommand_min() == 0) return error.what();
  const std::string& word = arguments[depth];
  return fmt::format("there is no {} \"{}{}\"", word.starts_with('-') ? "flag" : "command", Names(commands),
                     Printable(word));
}

void StartLog() {
  spdlog::set_default_logger(spdlog::stderr_logger_st("swiftkv"));
  spdlog::set_pattern("swiftkv: %l: %v");
}

int RunProgram(int argc, char** argv) {
  CLI::App program("SwiftKV: convert, run and serve models whose prompt tokens skip the later layers.", "swiftkv");
  program.set_version_flag("--version", "swiftkv " SWIFTKV_VERSION);
  program.require_subcommand(1);
  program.footer(
      "\nswiftkv COMMAND --help explains a command. Every flag is also an environment variable: --top-k is "
      "SWIFTKV_TOP_K.");
  std::vector<std::pair<std::string, RunCommand>> commands;
  commands.emplace_back("generate", AddGenerateCommand(&program));
  commands.emplace_back("chat", AddChatCommand(&program));
  commands.emplace_back("serve", AddServeCommand(&program));
  commands.emplace_back("convert", AddConvertCommand(&program));
  commands.emplace_back("distill", AddDistillCommand(&program));
  commands.emplace_back("bench", AddBenchCommand(&program));
  commands.emplace_back("eval", AddEvalCommand(&program));
  commands.emplace_back("inspect", AddInspectCommand(&program));
  commands.emplace_back("doctor", AddDoctorCommand(&program));
  const std::vector<std::string> arguments = OwnSpelling(program, {argv + 1, argv + argc});
  DropOverruledVariables(arguments, &program);
  try {
    program.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::Success& success) {  // --help, --version
    std::ostringstream text;
    program.exit(success, text, text);
    return Finish(WriteOutput(text.str()));
  } catch (const CLI::ParseError& error) {
    const std::vector<const CLI::App*> read = CommandsRead(program);
    WriteNote(fmt::format("swiftkv: {}\nTry: swiftkv {}--help", Explain(read, error, arguments), Names(read)));
    return kWrongUsage;
  }
  for (const auto& [name, run] : commands) {
    if (program.got_subcommand(name)) return Finish(run());
  }
  return kWrongUsage;
}

}  // namespace
}  // namespace swiftkv

int main(int argc, char** argv) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    swiftkv::WriteNote(
        "swiftkv: this CPU lacks AVX2 and FMA, which swiftkv needs (x86-64 CPUs since about 2013 have them)");
    return swiftkv::kFailed;
  }
  swiftkv::OccupyClosedStreams();
  swiftkv::InstallSignalHandlers();
  try {
    swiftkv::StartLog();
    return swiftkv::RunProgram(argc, argv);
  } catch (const std::bad_alloc&) {
    swiftkv::WriteNote("swiftkv: out of memory");
  } catch (const std::exception& error) {
    swiftkv::WriteNote(std::string("swiftkv: internal error: ") + error.what());
  }
  return swiftkv::kFailed;
}
