// swiftkv bench serve: load on any OpenAI-compatible server, and what it made of it.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/durable_folder.h"
#include "base/file.h"
#include "bench/load_generator.h"
#include "bench/machine.h"
#include "bench/serve_report.h"
#include "bench/workload.h"
#include "cli/bench_options.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "engine/load.h"

namespace swiftkv {
namespace {

struct Flags {
  std::string base_url;
  std::string backend = "openai";
  std::string endpoint;
  std::string tokenizer = "smollm2-135m";
  std::string dataset = "random";
  std::string request_rate = "inf";
  std::string percentiles = "50,90,99";
  std::vector<std::string> percentile_metrics = {"ttft", "tpot", "itl", "e2el"};
  std::vector<std::string> goodput;
  std::string prompt_format = "text";
  int64_t warm_ups = 1;
  bool save_result = false;
  std::string result_folder;
  std::string result_filename;
  bool save_detailed = false;
  OutputFlags output;
  LoadGeneratorOptions load;
  WorkloadOptions workload = {.num_prompts = 100};
};

// Seeds of prompts: those that warm up are never those that are measured, for a server may keep prefixes.
constexpr uint64_t kWarmUpSeed = 0x5eed;

Status FillPrompts(const Flags& flags, const TextModel& text, uint64_t seed, std::vector<LoadRequest>* requests) {
  if (flags.prompt_format == "text") return FillWithText(*text.tokenizer, seed, requests);
  FillWithTokenIds(text.tokenizer->vocab_size(), seed, requests);
  return Ok();
}

Result<LoadGeneratorOptions> MakeLoadOptions(const Flags& flags) {
  LoadGeneratorOptions load = flags.load;
  if (!flags.base_url.empty()) {
    SWIFTKV_ASSIGN_OR_RETURN(load.server, ParseBaseUrl(flags.base_url));
  }
  load.endpoint = flags.endpoint;
  if (load.endpoint.empty()) {
    load.endpoint = flags.backend == "openai-chat" ? "/v1/chat/completions" : "/v1/completions";
  }
  if (!load.endpoint.starts_with('/')) return InvalidInput("--endpoint {}: it must begin with /", load.endpoint);
  if (load.endpoint.ends_with("/chat/completions") && flags.prompt_format != "text") {
    return InvalidInput("--prompt-format {}: a chat's messages are text", flags.prompt_format);
  }
  if (flags.dataset == "custom" && flags.prompt_format != "text") {
    return InvalidInput("--prompt-format {}: the file's prompts are text", flags.prompt_format);
  }
  load.keep_text = flags.save_detailed;
  load.cancelled = [] { return Interrupted() != 0; };
  return load;
}

// All that is known before the server is asked for anything.
struct Plan {
  Workload workload;
  LoadGeneratorOptions load;
  ServeReportOptions report;
  TextModel text;
};

Result<Plan> MakePlan(const Flags& flags) {
  Plan plan;
  WorkloadOptions options = flags.workload;
  SWIFTKV_ASSIGN_OR_RETURN(options.dataset, ParseDataset(flags.dataset));
  SWIFTKV_ASSIGN_OR_RETURN(const std::vector<double> rates, ParseRates("--request-rate", flags.request_rate));
  if (rates.size() != 1) {
    return InvalidInput("--request-rate {}: one rate (bench sweep takes several)", flags.request_rate);
  }
  options.arrivals.request_rate = rates.front();
  if (options.dataset == WorkloadSource::kTrace && !std::isinf(rates.front())) {
    return InvalidInput("--request-rate {}: a trace brings its own times; --trace-speedup makes them faster or slower",
                        flags.request_rate);
  }
  options.arrivals.seed = options.seed;
  SWIFTKV_ASSIGN_OR_RETURN(plan.report.percents, ParsePercents("--metric-percentiles", flags.percentiles));
  if (!flags.goodput.empty()) {
    SWIFTKV_ASSIGN_OR_RETURN(plan.report.goodput, ParseGoodput(flags.goodput));
  }
  SWIFTKV_ASSIGN_OR_RETURN(plan.load, MakeLoadOptions(flags));
  SWIFTKV_ASSIGN_OR_RETURN(plan.workload, MakeWorkload(options));
  SWIFTKV_ASSIGN_OR_RETURN(const ModelFiles files, OpenModelFiles(flags.tokenizer, ""));
  SWIFTKV_ASSIGN_OR_RETURN(plan.text, LoadTextModel(files, std::nullopt));
  SWIFTKV_RETURN_IF_ERROR(FillPrompts(flags, plan.text, options.seed, &plan.workload.requests));
  plan.report.metrics = flags.percentile_metrics;
  plan.report.request_rate = plan.workload.request_rate;
  plan.report.burstiness = options.arrivals.burstiness;
  plan.report.max_concurrency = flags.load.max_concurrency;
  if (plan.workload.left_out > 0 && !flags.output.quiet) {
    WriteNote(fmt::format("swiftkv: {} requests of more than {} tokens were left out", plan.workload.left_out,
                          options.max_model_len));
  }
  if (plan.workload.repeated > 0 && !flags.output.quiet) {
    const int64_t all = std::ssize(plan.workload.requests);
    WriteNote(fmt::format(
        "swiftkv: the file has {} prompts for {} requests, and is gone through again; a server that keeps prefixes "
        "answers prompts that come again from its cache",
        all - plan.workload.repeated, all));
  }
  return plan;
}

Status WarmUp(const Flags& flags, const Plan& plan) {
  if (flags.warm_ups == 0) return Ok();
  std::vector<LoadRequest> requests(static_cast<size_t>(flags.warm_ups), plan.workload.requests.front());
  for (LoadRequest& request : requests) {
    request.arrival = 0;
    request.prompt.clear();  // another one of the same length
  }
  SWIFTKV_RETURN_IF_ERROR(FillPrompts(flags, plan.text, flags.workload.seed ^ kWarmUpSeed, &requests));
  SWIFTKV_ASSIGN_OR_RETURN(const LoadRun run, RunLoad(requests, plan.load));
  for (const RequestOutcome& outcome : run.outcomes) {
    if (!outcome.failure) continue;
    return IoError("the request that warms up failed: {}: {} (--num-warmups 0 does without)", outcome.failure->kind,
                   outcome.failure->detail);
  }
  return Ok();
}

nlohmann::ordered_json ResultJson(const Flags& flags, const Plan& plan, const ServeReport& report, const LoadRun& run) {
  nlohmann::ordered_json json = {{"date", ReadMachineInfo().date},     {"endpoint_type", flags.backend},
                                 {"backend", flags.backend},           {"label", nullptr},
                                 {"model_id", plan.load.model},        {"tokenizer_id", flags.tokenizer},
                                 {"num_prompts", run.outcomes.size()}, {"dataset_name", flags.dataset}};
  json.update(ServeReportJson(report));
  if (flags.save_detailed) json.update(DetailsJson(run));
  return json;
}

// Where the result is written to, named as vllm's where no name was given; empty: nowhere.
std::string ResultFile(const Flags& flags, const Plan& plan, const nlohmann::ordered_json& result) {
  std::string name = flags.result_filename;
  if (name.empty() && !flags.save_result && flags.result_folder.empty()) return {};
  if (name.empty()) {
    std::string time = result["date"];  // 2026-11-25T10:30:00Z
    std::erase_if(time, [](char c) { return c == '-' || c == ':' || c == 'Z'; });
    std::replace(time.begin(), time.end(), 'T', '-');
    const int64_t limit = flags.load.max_concurrency;
    name = fmt::format("{}-{}qps{}-{}-{}.json", flags.backend, flags.request_rate,
                       limit > 0 ? fmt::format("-concurrency{}", limit) : "",
                       plan.load.model.substr(plan.load.model.rfind('/') + 1), time);
  }
  return std::filesystem::path(flags.result_folder) / name;
}

Status Serve(const Flags& flags) {
  SWIFTKV_ASSIGN_OR_RETURN(Plan plan, MakePlan(flags));
  if (!flags.result_folder.empty()) SWIFTKV_RETURN_IF_ERROR(MakeFolders(flags.result_folder));
  if (plan.load.model.empty()) {
    SWIFTKV_ASSIGN_OR_RETURN(plan.load.model, AskModel(plan.load));
  }
  SWIFTKV_RETURN_IF_ERROR(WarmUp(flags, plan));
  LoadRun run;
  {
    ProgressLine line("bench serve", flags.output.quiet);
    plan.load.progress = [&](int64_t done, int64_t failed) {
      line.Show(fmt::format("{}/{} requests, {} failed", done, plan.workload.requests.size(), failed));
    };
    SWIFTKV_ASSIGN_OR_RETURN(run, RunLoad(plan.workload.requests, plan.load));
  }
  const ServeReport report = MakeServeReport(plan.workload.requests, run, plan.report);
  const nlohmann::ordered_json json = ResultJson(flags, plan, report, run);
  if (const std::string file = ResultFile(flags, plan, json); !file.empty()) {
    SWIFTKV_RETURN_IF_ERROR(WriteFile(file, JsonLine(json)));
  }
  SWIFTKV_RETURN_IF_ERROR(WriteOutput(flags.output.json ? JsonLine(json) : ServeReportText(report)));
  if (report.completed == 0) return IoError("every request failed");
  return Ok();
}

void AddServerFlags(CLI::App* command, Flags* flags) {
  command->add_option("--base-url", flags->base_url, "http://HOST:PORT, with a path if need be; instead of --host");
  command->add_option("--host", flags->load.server.host, "Where the server is")->capture_default_str();
  command->add_option("--port", flags->load.server.port, "")->capture_default_str();
  command->add_option("--backend", flags->backend, "openai or vllm: text completions; openai-chat: chat completions")
      ->check(CLI::IsMember({"openai", "vllm", "openai-chat"}))
      ->capture_default_str();
  command->add_option("--endpoint", flags->endpoint, "Path to send to; absent: the backend's, under /v1");
  command->add_option("-m,--model", flags->load.model, "Name of the model; absent: the first of /v1/models");
  command->add_option("--api-key", flags->load.api_key, "Sent as bearer token");
  command->add_option("--tokenizer", flags->tokenizer, "Model argument whose tokenizer makes prompts of their length")
      ->capture_default_str();
  command->add_option("--prompt-format", flags->prompt_format, "text, or token ids of the tokenizer's vocabulary")
      ->check(CLI::IsMember({"text", "ids"}))
      ->capture_default_str();
  command->add_option("--temperature", flags->load.temperature, "0: always the most likely token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command
      ->add_flag("--ignore-eos,!--no-ignore-eos", flags->load.ignore_eos,
                 "Ask for outputs of their full length (the default)")
      ->capture_default_str();
  command->add_option("--request-timeout", flags->load.request_timeout, "Seconds that a request may take")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
}

void AddWorkloadFlags(CLI::App* command, Flags* flags) {
  command->add_option("--dataset-name", flags->dataset, "random, lengths-file, trace, or custom: prompts of a file")
      ->capture_default_str();
  command
      ->add_option("--dataset-path", flags->workload.path,
                   "CSV file of lengths or of a trace, JSON lines of prompts (docs/bench.md)")
      ->type_name("FILE");
  command->add_option("--num-prompts", flags->workload.num_prompts, "Requests")->capture_default_str();
  command->add_option("--random-input-len", flags->workload.prompt_tokens, "Tokens of a prompt")->capture_default_str();
  command->add_option("--random-output-len,--custom-output-len", flags->workload.output_tokens, "Tokens of an output")
      ->capture_default_str();
  command
      ->add_option("--random-range-ratio", flags->workload.range_ratio,
                   "Lengths are uniform within this share of theirs, below and above")
      ->capture_default_str();
  command->add_option("--request-rate", flags->request_rate, "Requests a second; inf: all at once")
      ->capture_default_str();
  command
      ->add_option("--burstiness", flags->workload.arrivals.burstiness,
                   "Shape of the gaps' gamma distribution: 1 is a Poisson process, less is burstier")
      ->capture_default_str();
  command->add_option("--max-concurrency", flags->load.max_concurrency, "Requests under way at once; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--trace-speedup", flags->workload.speedup, "A trace's requests come that many times faster")
      ->capture_default_str();
  command->add_option("--max-model-len", flags->workload.max_model_len, "Leave out longer requests; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--num-warmups", flags->warm_ups, "Requests before those that are measured")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command->add_option("-s,--seed", flags->workload.seed, "Of lengths, prompts and arrivals")->capture_default_str();
}

}  // namespace

RunCommand AddBenchServeCommand(CLI::App* bench) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench->add_subcommand("serve", "Load any OpenAI-compatible server and measure its answers");
  AddServerFlags(command, flags.get());
  AddWorkloadFlags(command, flags.get());
  command->add_option("--percentile-metrics", flags->percentile_metrics, "Metrics that the report has")
      ->delimiter(',')
      ->check(CLI::IsMember({"ttft", "tpot", "itl", "e2el"}))
      ->capture_default_str();
  command->add_option("--metric-percentiles", flags->percentiles, "Percentiles of each of them")->capture_default_str();
  command->add_option("--goodput", flags->goodput, "Limits that good requests keep: ttft:MS tpot:MS e2el:MS");
  command->add_flag("--save-result", flags->save_result, "Write the JSON result to a file too");
  command->add_option("--result-dir", flags->result_folder, "The same, into this folder")->type_name("DIR");
  command->add_option("--result-filename", flags->result_filename, "The same, under this name")->type_name("FILE");
  command->add_flag("--save-detailed", flags->save_detailed, "With every request's figures and text in the JSON");
  flags->output.Add(command);
  FinishCommand(command, std::string("Examples:\n"
                                     "  swiftkv bench serve --port 8000 --random-input-len 2000 --request-rate 2\n"
                                     "  swiftkv bench serve --dataset-name trace --dataset-path "
                                     "azure_llm_2023_conv.csv --trace-speedup 2\n\n") +
                             kServeFormulas);
  return [flags] { return Serve(*flags); };
}

}  // namespace swiftkv
