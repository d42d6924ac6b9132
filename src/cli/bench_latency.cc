// swiftkv bench latency: prefill and decode speed, as llama-bench measures them, base and SwiftKV side by side.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <memory>

#include "base/parallel.h"
#include "base/printable.h"
#include "bench/latency.h"
#include "cli/bench_options.h"
#include "cli/options.h"
#include "cli/terminal.h"

namespace swiftkv {
namespace {

struct Flags {
  MeasuredModelFlags model;
  std::string prompt = "512";
  std::string generate = "128";
  std::vector<std::string> prompt_generate;
  std::string depth = "0";
  std::string batch = "2048";
  std::string micro_batch;
  std::string sequences = "1";
  std::string threads = "0";
  std::optional<DType> kv_cache_dtype;
  int64_t repetitions = 5;
  bool no_warm_up = false;
  bool no_roofline = false;
  bool quiet = false;
  bool json = false;  // as output does
  std::string output = "md";
};

// pp, tg and pg of one setting; a length of 0 asks for no test.
Result<std::vector<LatencyTest>> TestsOf(const Flags& flags, const LatencyTest& setting) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> prompts, ParseNumbers("-p", flags.prompt, 0));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> generates, ParseNumbers("-n", flags.generate, 0));
  std::vector<LatencyTest> tests;
  const auto add = [&](int64_t prompt, int64_t generate) {
    LatencyTest test = setting;
    test.prompt = prompt;
    test.generate = generate;
    if (prompt + generate > 0) tests.push_back(test);
  };
  for (const int64_t prompt : prompts) add(prompt, 0);
  for (const int64_t generate : generates) add(0, generate);
  for (const std::string& pair : flags.prompt_generate) {
    SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> numbers, ParseNumbers("-pg", pair, 0));
    if (numbers.size() != 2) return InvalidInput("--pg {}: it must be PROMPT,OUTPUT, such as 512,128", Printable(pair));
    add(numbers[0], numbers[1]);
  }
  return tests;
}

// Tokens of a step, for each of -b and -ub the smaller: a batch is one step here. Each once.
Result<std::vector<int64_t>> StepSizes(const Flags& flags) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> batches, ParseNumbers("-b", flags.batch, 1));
  if (flags.micro_batch.empty()) return batches;
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> micro_batches, ParseNumbers("-ub", flags.micro_batch, 1));
  std::vector<int64_t> sizes;
  for (const int64_t batch : batches) {
    for (const int64_t micro_batch : micro_batches) {
      const int64_t size = std::min(batch, micro_batch);
      if (std::find(sizes.begin(), sizes.end(), size) == sizes.end()) sizes.push_back(size);
    }
  }
  return sizes;
}

// Every combination of the lists, the number of threads changing slowest.
Result<std::vector<LatencyTest>> AllTests(const Flags& flags) {
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> threads, ParseNumbers("-t", flags.threads, 0));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> sequences, ParseNumbers("--parallel", flags.sequences, 1));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> batches, StepSizes(flags));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<int64_t> depths, ParseNumbers("-d", flags.depth, 0));
  std::vector<LatencyTest> tests;
  for (const int64_t thread : threads) {
    LatencyTest setting{.kv_cache_dtype = flags.kv_cache_dtype};
    setting.threads = thread == 0 ? AvailableCores() : static_cast<int>(std::min<int64_t>(thread, AvailableCores()));
    for (const int64_t sequence : sequences) {
      setting.sequences = sequence;
      for (const int64_t batch : batches) {
        setting.batch_tokens = batch;
        for (const int64_t depth : depths) {
          setting.depth = depth;
          SWIFTKV_ASSIGN_OR_RETURN(const std::vector<LatencyTest> more, TestsOf(flags, setting));
          tests.insert(tests.end(), more.begin(), more.end());
        }
      }
    }
  }
  if (tests.empty()) return InvalidInput("there is nothing to measure: -p and -n are 0, and there is no --pg");
  return tests;
}

// Limits measured with as many bytes as the weights have: what a decode step reads may lie in a cache.
Result<std::vector<Roofline>> MeasureRooflines(const LatencyReport& report, const std::vector<LatencyTest>& tests,
                                               const kernels::Backend* backend) {
  std::vector<Roofline> rooflines;
  for (size_t i = 0; i < tests.size(); ++i) {
    if (i > 0 && tests[i].threads == tests[i - 1].threads) {
      rooflines.push_back(rooflines.back());
      continue;
    }
    SetThreads(tests[i].threads);
    const auto bytes = static_cast<int64_t>(report.model.size_bytes);
    SWIFTKV_ASSIGN_OR_RETURN(Roofline roofline,
                             MeasureRoofline({.read_bytes = std::clamp<int64_t>(bytes, 1 << 20, kBeyondCaches),
                                              .dtypes = {report.product_dtype},
                                              .backend = backend}));
    rooflines.push_back(std::move(roofline));
  }
  return rooflines;
}

Status Latency(const Flags& flags) {
  SWIFTKV_ASSIGN_OR_RETURN(const ReportFormat format, ParseReportFormat(flags.json ? "json" : flags.output));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<LatencyTest> tests, AllTests(flags));
  // The report's head names the most; each line of its table has its own.
  SetThreads(std::max_element(tests.begin(), tests.end(), [](const LatencyTest& a, const LatencyTest& b) {
               return a.threads < b.threads;
             })->threads);
  LatencyReport report;
  report.machine = ReadMachineInfo();
  SWIFTKV_ASSIGN_OR_RETURN(const MeasuredModel model, flags.model.Load());
  report.machine.gpu = model.weights.backend->device_name();
  report.model = Describe(model, flags.kv_cache_dtype);
  report.product_dtype = ProductDType(model.weights);
  {
    ProgressLine line("bench latency", flags.quiet);
    const LatencyOptions options{
        .repetitions = flags.repetitions,
        .warm_up = !flags.no_warm_up,
        .cancelled = [] { return Interrupted() != 0; },
        .progress = [&](int64_t done, int64_t all) { line.Show(fmt::format("{}/{}", done, all)); }};
    SWIFTKV_ASSIGN_OR_RETURN(report.results, MeasureLatency(model, tests, options));
  }
  if (!flags.no_roofline) {
    SWIFTKV_ASSIGN_OR_RETURN(report.rooflines, MeasureRooflines(report, tests, model.weights.backend));
  }
  return WriteOutput(LatencyReportText(report, format));
}

}  // namespace

RunCommand AddBenchLatencyCommand(CLI::App* bench) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench->add_subcommand("latency", "Prefill and decode speed, as llama-bench measures them");
  flags->model.Add(command);
  AddCacheFlag(command, &flags->kv_cache_dtype);
  command->add_option("-p,--n-prompt", flags->prompt, "Prompt lengths; 0: none")->capture_default_str();
  command->add_option("-n,--n-gen", flags->generate, "Output lengths; 0: none")->capture_default_str();
  MayBeRepeated(command->add_option("--pg", flags->prompt_generate, "Prompt and output in one test; may be repeated"))
      ->type_name("PROMPT,OUTPUT");
  command->add_option("-d,--n-depth", flags->depth, "Tokens already in the cache")->capture_default_str();
  command->add_option("-b,--batch-size", flags->batch, "Tokens of one step at most")->capture_default_str();
  command->add_option("--ubatch-size,--ub", flags->micro_batch, "The same; the smaller of the two counts");
  command->add_option("--parallel", flags->sequences, "Sequences that run together")->capture_default_str();
  command->add_option("-t,--threads", flags->threads, "Threads; 0: the cores that this process may use")
      ->capture_default_str();
  command->add_option("-r,--repetitions", flags->repetitions, "Repetitions of each test")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_flag("--no-warmup", flags->no_warm_up, "Measure the first run too");
  command->add_flag("--no-roofline", flags->no_roofline, "Don't measure what the machine can do at best");
  CLI::Option* const output = command->add_option("-o,--output", flags->output, "md, csv, json or jsonl")
                                  ->check(CLI::IsMember({"md", "csv", "json", "jsonl"}))
                                  ->capture_default_str();
  command->add_flag("--json", flags->json, "The same as -o json")->excludes(output);
  command->add_flag("-q,--quiet", flags->quiet, "No progress on standard error");
  FinishCommand(
      command,
      "Lists are comma-separated; every combination is measured.\n"
      "Examples:\n"
      "  swiftkv bench latency smollm2-135m --adapter models/smollm2-135m-swiftkv-33 -p 512,2000 -d 0,4096\n"
      "  swiftkv bench latency --load-format dummy --config src/bench/configs/llama-3.2-1b.json -n 32 -r 3\n");
  return [flags] { return Latency(*flags); };
}

}  // namespace swiftkv
