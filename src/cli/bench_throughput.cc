// swiftkv bench throughput: offline, all requests at once, base and SwiftKV.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/throughput.h"
#include "bench/workload.h"
#include "cli/bench_options.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/terminal.h"

namespace swiftkv {
namespace {

struct Flags {
  MeasuredModelFlags model;
  std::string dataset = "random";
  WorkloadOptions workload = {.num_prompts = 16, .prompt_tokens = 2000, .output_tokens = 256};
  EngineLoadOptions engine;
  int64_t repetitions = 1;
  int threads = 0;
  OutputFlags output;
};

Status Throughput(const Flags& flags) {
  WorkloadOptions workload_options = flags.workload;
  SWIFTKV_ASSIGN_OR_RETURN(workload_options.dataset, ParseDataset(flags.dataset));
  UseThreads(flags.threads);
  MachineInfo machine = ReadMachineInfo();
  SWIFTKV_ASSIGN_OR_RETURN(const MeasuredModel model, flags.model.Load());
  machine.gpu = model.weights.backend->device_name();
  if (workload_options.max_model_len == 0) {
    workload_options.max_model_len = model.weights.config.max_position_embeddings;
  }
  SWIFTKV_ASSIGN_OR_RETURN(Workload workload, MakeWorkload(workload_options));
  for (LoadRequest& request : workload.requests) request.arrival = 0;
  FillWithTokenIds(model.weights.config.vocab_size, workload_options.seed, &workload.requests);
  if (workload.left_out > 0 && !flags.output.quiet) {
    WriteNote(fmt::format("swiftkv: {} requests of more than {} tokens were left out", workload.left_out,
                          workload_options.max_model_len));
  }
  std::vector<ThroughputResult> results;
  {
    ProgressLine line("bench throughput", flags.output.quiet);
    EngineLoadOptions options = flags.engine;
    options.cancelled = [] { return Interrupted() != 0; };
    options.progress = [&](int64_t done) { line.Show(fmt::format("{}/{}", done, workload.requests.size())); };
    SWIFTKV_ASSIGN_OR_RETURN(results, MeasureThroughput(model, workload.requests, options, flags.repetitions));
  }
  const ModelInfo info = Describe(model, flags.engine.kv_cache_dtype);
  return WriteOutput(flags.output.json ? JsonLine(ThroughputJson(machine, info, results))
                                       : ThroughputText(machine, info, results));
}

}  // namespace

RunCommand AddBenchThroughputCommand(CLI::App* bench) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      bench->add_subcommand("throughput", "Tokens a second with all requests at once, without a server");
  flags->model.Add(command);
  command->add_option("--input-len", flags->workload.prompt_tokens, "Tokens of a prompt")->capture_default_str();
  command->add_option("--output-len", flags->workload.output_tokens, "Tokens of an output")->capture_default_str();
  command->add_option("--num-prompts", flags->workload.num_prompts, "Requests")->capture_default_str();
  command->add_option("-r,--repetitions", flags->repetitions, "Rounds, base and SwiftKV in turns")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--dataset-name", flags->dataset, "random, or lengths from a lengths-file or trace")
      ->check(CLI::IsMember({"random", "lengths-file", "trace"}))
      ->capture_default_str();
  command->add_option("--dataset-path", flags->workload.path, "CSV file of lengths (docs/bench.md)")->type_name("FILE");
  command->add_option("--random-range-ratio", flags->workload.range_ratio, "Lengths are uniform within this share")
      ->capture_default_str();
  command->add_option("--max-model-len", flags->workload.max_model_len, "Leave out longer requests; 0: the context's")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddEngineFlags(command, &flags->engine);
  command->add_option("-t,--threads", flags->threads, "Threads; 0: the cores that this process may use")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_option("-s,--seed", flags->workload.seed, "Of lengths and prompts")->capture_default_str();
  flags->output.Add(command);
  FinishCommand(command,
                "Example, the model card's case:\n"
                "  swiftkv bench throughput smollm2-135m --adapter models/smollm2-135m-swiftkv-33 --input-len 2000 "
                "--output-len 256\n");
  return [flags] { return Throughput(*flags); };
}

}  // namespace swiftkv
