// swiftkv bench sweep: input lengths and request rates, base and SwiftKV, and a report with the model card's pictures.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/parallel.h"
#include "bench/engine_load.h"
#include "bench/sweep.h"
#include "cli/bench_options.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/terminal.h"

namespace swiftkv {
namespace {

struct Flags {
  MeasuredModelFlags model;
  std::string input_lens = "512,2000,4000,7500";
  std::string request_rates;
  std::string relative_rates = "0.25,0.5,0.75,1,1.25";
  std::string output_folder = "swiftkv-sweep";
  SweepOptions sweep;
  EngineLoadOptions engine;
  int threads = 0;
  bool resume = false;
  OutputFlags output;
};

// What was asked for, without what does not shape the figures.
std::string CommandText(const Flags& flags, const MeasuredModel& model) {
  const std::string rates = flags.request_rates.empty() ? " --relative-request-rate " + flags.relative_rates
                                                        : " --request-rate " + flags.request_rates;
  return fmt::format(
      "swiftkv bench sweep, {}: --random-input-len {} --random-output-len {} --num-prompts {}{} "
      "--max-num-batched-tokens {} --max-num-seqs {} --seed {}, dtype {}, quantization {}, kv-cache-dtype {}",
      model.origin, flags.input_lens, flags.sweep.output_len, flags.sweep.num_prompts, rates,
      flags.engine.scheduler.max_num_batched_tokens, flags.engine.scheduler.max_num_seqs, flags.sweep.seed,
      Name(model.weights.dtype), flags.model.quantization,
      Name(flags.engine.kv_cache_dtype.value_or(model.weights.dtype)));
}

// What a point's figures follow from besides its own setting.
std::string JobText(const Flags& flags, const MeasuredModel& model, const MachineInfo& machine) {
  const ModelConfig& config = model.weights.config;
  std::string job = fmt::format(
      "{}, {}, {}, {} threads, n = {}, g = {}, {}, {}, {}, batches of {} and {}, seed {}", model.origin, machine.cpu,
      machine.isa, machine.threads, config.num_key_value_layers, config.key_value_group_size, Name(model.weights.dtype),
      flags.model.quantization, Name(flags.engine.kv_cache_dtype.value_or(model.weights.dtype)),
      flags.engine.scheduler.max_num_batched_tokens, flags.engine.scheduler.max_num_seqs, flags.sweep.seed);
  // Left out at their defaults: points from before these two counted are still known.
  if (!machine.gpu.empty()) job += ", " + machine.gpu;
  if (flags.engine.kv_cache_tokens > 0) job += fmt::format(", cache of {} tokens", flags.engine.kv_cache_tokens);
  return job;
}

Status MakeFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return IoError("{}: {}", folder, error.message());
  return Ok();
}

// Points of an earlier run make way; nothing that was measured is lost.
Status SetPointsAside(const std::string& path, bool quiet) {
  std::error_code missing;
  if (const auto size = std::filesystem::file_size(path, missing); missing || size == 0) return Ok();
  SWIFTKV_ASSIGN_OR_RETURN(const std::string set_aside, SetAside(path));
  if (!quiet) {
    WriteNote(
        fmt::format("swiftkv: {} had points of an earlier run, which are in {} now; --resume goes on from such points",
                    path, set_aside));
  }
  return Ok();
}

Status RunSweepCommand(const Flags& flags) {
  SweepOptions options = flags.sweep;
  SWIFTKV_ASSIGN_OR_RETURN(options.input_lens, ParseNumbers("--random-input-len", flags.input_lens, 1));
  SWIFTKV_ASSIGN_OR_RETURN(options.relative_rates, ParseRates("--relative-request-rate", flags.relative_rates));
  if (!flags.request_rates.empty()) {
    SWIFTKV_ASSIGN_OR_RETURN(options.request_rates, ParseRates("--request-rate", flags.request_rates));
  }
  UseThreads(flags.threads);
  Sweep sweep;
  sweep.machine = ReadMachineInfo();
  SWIFTKV_ASSIGN_OR_RETURN(const MeasuredModel model, flags.model.Load());
  sweep.machine.gpu = model.weights.backend->device_name();
  sweep.origin = model.origin;
  sweep.config = model.weights.config;
  sweep.command = CommandText(flags, model);
  options.vocab_size = sweep.config.vocab_size;
  for (const int64_t input_len : options.input_lens) {
    if (input_len > sweep.config.max_position_embeddings - options.output_len) {
      return InvalidInput("input {} and output {}: the model's context holds {} tokens", input_len, options.output_len,
                          sweep.config.max_position_embeddings);
    }
  }
  SWIFTKV_RETURN_IF_ERROR(MakeFolder(flags.output_folder));
  EngineLoadOptions engine = flags.engine;
  engine.cancelled = [] { return Interrupted() != 0; };
  // What was measured outlives an end before the sweep's.
  const std::string job = JobText(flags, model, sweep.machine);
  const std::string path = flags.output_folder + "/points.jsonl";
  if (flags.resume) {
    SWIFTKV_ASSIGN_OR_RETURN(options.known, ReadSweepPoints(path, job));
  } else {
    SWIFTKV_RETURN_IF_ERROR(SetPointsAside(path, flags.output.quiet));
  }
  std::string known;
  for (const SweepPoint& point : options.known) known += SweepPointLine(point, job);
  SWIFTKV_RETURN_IF_ERROR(WriteFile(path, known));
  SWIFTKV_ASSIGN_OR_RETURN(AppendFile log, AppendFile::Open(path));
  {
    ProgressLine line("bench sweep", flags.output.quiet);
    const auto seen = [&](const SweepPoint& point) {
      line.Show(fmt::format("{}, input {}, {:.3g} req/s: {:.1f} tok/s", ModeLabel(point.mode), point.input_len,
                            point.request_rate, point.report.total_token_throughput()));
      return log.Append(SweepPointLine(point, job));
    };
    const auto measure = [&](Mode mode, const std::vector<LoadRequest>& requests) {
      return RunEngineLoad(model.weights, mode, requests, engine);
    };
    SWIFTKV_ASSIGN_OR_RETURN(sweep.points, RunSweep(model.modes, options, measure, seen));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const std::string warning, WriteSweepReport(flags.output_folder, sweep));
  if (!flags.output.quiet) {
    if (!warning.empty()) WriteNote("swiftkv: " + warning);
    WriteNote(fmt::format("swiftkv: {}/{} has the pictures", flags.output_folder, kSweepReport));
  }
  if (!flags.output.json) return WriteOutput(MachineText(sweep.machine) + "\n\n" + SweepText(sweep.points));
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const SweepPoint& point : sweep.points) json.push_back(SweepPointJson(point));
  return WriteOutput(JsonLine(json));
}

}  // namespace

RunCommand AddBenchSweepCommand(CLI::App* bench) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      bench->add_subcommand("sweep", "Input lengths and request rates, base and SwiftKV, with pictures");
  flags->model.Add(command);
  command->add_option("--random-input-len,--input-len", flags->input_lens, "Prompt lengths")->capture_default_str();
  command->add_option("--random-output-len,--output-len", flags->sweep.output_len, "Tokens of an output")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--request-rate", flags->request_rates,
                      "Requests a second; absent: as --relative-request-rate says");
  command
      ->add_option("--relative-request-rate", flags->relative_rates,
                   "Shares of the requests a second that base reaches with all requests at once")
      ->capture_default_str();
  command->add_option("--num-prompts", flags->sweep.num_prompts, "Requests of each point")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("-o,--output-dir", flags->output_folder, "Folder for figures, pictures and report")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_flag("--resume", flags->resume, "Go on from the points in --output-dir");
  AddEngineFlags(command, &flags->engine);
  command->add_option("-t,--threads", flags->threads, "Threads; 0: the cores that this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_option("-s,--seed", flags->sweep.seed, "Of prompts and arrivals")->capture_default_str();
  flags->output.Add(command);
  FinishCommand(command,
                "Example:\n"
                "  swiftkv bench sweep smollm2-135m --adapter models/smollm2-135m-swiftkv-33 -o sweep\n");
  return [flags] { return RunSweepCommand(*flags); };
}

}  // namespace swiftkv
