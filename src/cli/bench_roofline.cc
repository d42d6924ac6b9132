// swiftkv bench roofline: what this machine can do at best.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/roofline.h"
#include "cli/bench_options.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/terminal.h"

namespace swiftkv {
namespace {

struct Flags {
  OutputFlags output;
  int threads = 0;
  double seconds = 2;
  std::string device = "auto";
};

Status RunRoofline(const Flags& flags) {
  UseThreads(flags.threads);
  RooflineOptions options{.seconds = flags.seconds};
  SWIFTKV_ASSIGN_OR_RETURN(options.backend, ChooseDevice(flags.device));
  if (!options.backend->memory().is_host()) options.dtypes = {DType::kF8E4M3, DType::kBF16, DType::kF32};
  MachineInfo machine = ReadMachineInfo();
  machine.gpu = options.backend->device_name();
  SWIFTKV_ASSIGN_OR_RETURN(const Roofline roofline, MeasureRoofline(options));
  if (!flags.output.json) return WriteOutput(RooflineText(machine, roofline));
  nlohmann::ordered_json json = MachineJson(machine);
  json.update(RooflineJson(roofline));
  return WriteOutput(JsonLine(json));
}

}  // namespace

RunCommand AddBenchRooflineCommand(CLI::App* bench) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      bench->add_subcommand("roofline", "Products and bytes a second that this machine reaches at best");
  command->add_option("-t,--threads", flags->threads, "Threads; 0: the cores that this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_option("--seconds", flags->seconds, "Time for each figure")
      ->check(CLI::Range(0.01, 600.0))
      ->capture_default_str();
  AddDeviceFlag(command, &flags->device);
  flags->output.Add(command);
  FinishCommand(command, "Example:\n  swiftkv bench roofline --json\n");
  return [flags] { return RunRoofline(*flags); };
}

}  // namespace swiftkv
