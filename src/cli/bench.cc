// swiftkv bench: one subcommand for each kind of measurement.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cli/bench_options.h"
#include "cli/commands.h"

namespace swiftkv {

RunCommand AddBenchCommand(CLI::App* program) {
  CLI::App* bench = program->add_subcommand("bench", "Measure latency, throughput, a server, the machine");
  bench->require_subcommand(1);
  bench->footer("\nswiftkv bench COMMAND --help explains a measurement. docs/bench.md says what the figures mean.");
  std::vector<std::pair<std::string, RunCommand>> commands;
  commands.emplace_back("latency", AddBenchLatencyCommand(bench));
  commands.emplace_back("throughput", AddBenchThroughputCommand(bench));
  commands.emplace_back("serve", AddBenchServeCommand(bench));
  commands.emplace_back("sweep", AddBenchSweepCommand(bench));
  commands.emplace_back("roofline", AddBenchRooflineCommand(bench));
  return [bench, commands]() -> Status {
    for (const auto& [name, run] : commands) {
      if (bench->got_subcommand(name)) return run();
    }
    return InvalidInput("bench: no measurement was named");
  };
}

}  // namespace swiftkv
