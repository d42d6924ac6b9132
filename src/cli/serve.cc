// swiftkv serve: the OpenAI-compatible server, until a signal ends it.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "server/server.h"

namespace swiftkv {
namespace {

using Clock = std::chrono::steady_clock;

// How often the waiting main thread looks for a signal.
constexpr std::chrono::milliseconds kSignalPoll(100);
// For answers that are complete to reach their clients, at least; else what is left of --shutdown-timeout.
constexpr std::chrono::milliseconds kFlush(2000);

struct Flags {
  ModelFlags model;
  ServerOptions server;
  int64_t max_waiting = AsyncEngineOptions().max_waiting;
  int64_t max_num_seqs = 64;
  double kv_cache_memory = 0;
  std::optional<uint64_t> seed;
  double tpot_target_ms = 0;
  bool prefix_caching = true;
  int64_t block_size = kKvBlockTokens;
  std::string config;
  int shutdown_timeout = 30;
};

AsyncEngineOptions MakeAsyncEngineOptions(const Flags& flags, const LoadedModel& model) {
  AsyncEngineOptions options{.engine = MakeEngineOptions(flags.model, model), .max_waiting = flags.max_waiting};
  options.engine.scheduler.max_num_seqs = flags.max_num_seqs;
  options.engine.scheduler.enable_prefix_caching = flags.prefix_caching;
  options.engine.seed = flags.seed;
  options.engine.tpot_target_s = flags.tpot_target_ms / 1000;
  const double share = model.weights.backend->memory().is_host() ? 0.25 : 0.85;  // a GPU is ours alone
  options.engine.kv_cache_memory = flags.kv_cache_memory == 0 ? share : flags.kv_cache_memory;
  return options;
}

// Lets what runs come to its end and to its clients. A second signal ends the process (terminal.h).
void Drain(Server* server, int shutdown_timeout_s) {
  const EngineStats stats = server->stats();
  spdlog::info("shutting down: {} requests run, {} wait; they have {} s", stats.num_requests_running,
               stats.num_requests_waiting, shutdown_timeout_s);
  server->Drain();
  const Clock::time_point deadline = Clock::now() + std::chrono::seconds(shutdown_timeout_s);
  while (!server->idle() && Clock::now() < deadline) std::this_thread::sleep_for(kSignalPoll);
  if (!server->idle()) spdlog::warn("shutting down: the time is over, what still runs is cut off");
  server->Stop(std::max(kFlush, std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now())));
}

// A variable without a value is no flag to CLI11, and the server would ask for no key.
Status CheckApiKeyVariable(const Flags& flags) {
  const char* const key = std::getenv("SWIFTKV_API_KEY");
  if (flags.server.api_keys.empty() && key != nullptr && *key == 0) {
    return InvalidInput("SWIFTKV_API_KEY is empty: unset it to ask for no key");
  }
  return Ok();
}

Status Serve(const Flags& flags) {
  SWIFTKV_RETURN_IF_ERROR(CheckApiKeyVariable(flags));
  // Lines come from several threads, and are for machines as much as for people.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("swiftkv-serve"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  const Clock::time_point start = Clock::now();
  ServerOptions options = flags.server;
  if (options.served_model_names.empty()) options.served_model_names.push_back(flags.model.model);
  const std::string name = options.served_model_names.front();
  LoadedModel model;  // outlives the server
  // A port that is taken is found out before the model is loaded, and whoever watches the process finds it alive.
  SWIFTKV_ASSIGN_OR_RETURN(const auto server, Server::Listen(std::move(options)));
  spdlog::info("listening at {}, loading {}", server->address(), flags.model.model);
  SWIFTKV_ASSIGN_OR_RETURN(model, flags.model.Load());
  const AsyncEngineOptions engine = MakeAsyncEngineOptions(flags, model);
  SWIFTKV_RETURN_IF_ERROR(server->Serve(model, engine));
  const EngineStats stats = server->stats();
  spdlog::info("ready at {} after {:.2f} s: {} in mode {}, context {} tokens, K/V cache {} tokens ({} MiB)",
               server->address(), std::chrono::duration<double>(Clock::now() - start).count(), name,
               ModeName(model.mode), engine.engine.max_model_len, stats.kv_cache_tokens,
               (stats.kv_cache_tokens * stats.kv_cache_bytes_per_token) >> 20);
  while (Interrupted() == 0) std::this_thread::sleep_for(kSignalPoll);
  Drain(server.get(), flags.shutdown_timeout);
  return Ok();
}

// One value each time, so that it does not swallow the model that follows.
void AddListFlag(CLI::App* command, const char* name, std::vector<std::string>* values, const char* type,
                 const char* help) {
  MayBeRepeated(command->add_option(name, *values, help))->type_name(type);
}

void AddNetworkFlags(CLI::App* command, Flags* flags) {
  HttpOptions& http = flags->server.http;
  http.port = 8000;
  command->add_option("--host", http.host, "Address to listen on; 0.0.0.0: all of this machine's")
      ->capture_default_str();
  command->add_option("--port", http.port, "Port to listen on; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_option("--uds", http.uds, "Unix socket to listen on instead")->type_name("PATH");
  command->add_option("--ssl-keyfile", http.ssl_keyfile, "Private key for TLS (PEM)")->type_name("FILE");
  command->add_option("--ssl-certfile", http.ssl_certfile, "Certificate chain for TLS (PEM)")->type_name("FILE");
  AddListFlag(command, "--api-key", &flags->server.api_keys, "KEY", "Key that clients must show; may be repeated");
  AddListFlag(command, "--allowed-origins", &flags->server.allowed_origins, "ORIGIN",
              "Origin of web pages that may call the server (CORS), such as https://chat.example; *: any; may be "
              "repeated");
  command
      ->add_option("--request-timeout", flags->server.request_timeout_s,
                   "Seconds that a request may wait and run before it ends with an error; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--max-connections", http.max_connections, "Connections at one time")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      ->add_option("--shutdown-timeout", flags->shutdown_timeout,
                   "Seconds that running answers have to finish after the first SIGTERM or Ctrl-C")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

void AddEngineFlags(CLI::App* command, Flags* flags) {
  AddListFlag(command, "--served-model-name", &flags->server.served_model_names, "NAME",
              "Name that clients may ask for, instead of MODEL; may be repeated, answers bear the first");
  command->add_option("--max-num-seqs", flags->max_num_seqs, "Sequences that run at one time")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  command->add_option("--max-waiting", flags->max_waiting, "Requests that may wait for their first step; more get 429")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option(
          "--kv-cache-memory", flags->kv_cache_memory,
          "K/V cache: up to 1 a share of the memory that is free after loading, above it bytes; 0: 0.25, on a GPU "
          "0.85")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--tpot-target", flags->tpot_target_ms,
                   "Milliseconds a token that running answers should keep; prompts are cut smaller for it. 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option(
      "-s,--seed", flags->seed,
      "Of requests that bring none: in the same order they get the same answers again. Absent: a new one "
      "for each request");
  command->add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", flags->prefix_caching,
                    "Reuse K/V between requests (the default)");
  command->add_option("--block-size", flags->block_size, "Tokens of a block of K/V: 16")
      ->check([](const std::string& size) {
        return size == std::to_string(kKvBlockTokens)
                   ? ""
                   : fmt::format("{}: the K/V cache has blocks of {} tokens", size, kKvBlockTokens);
      })
      ->capture_default_str();
  command
      ->add_option("--config", flags->config,
                   "YAML map of these flags, each beaten by its flag and environment variable")
      ->type_name("FILE");
}

}  // namespace

RunCommand AddServeCommand(CLI::App* program) {
  auto flags = std::make_shared<Flags>();
  flags->model.log_level = "info";
  CLI::App* command = program->add_subcommand("serve", "Serve a model over an OpenAI-compatible HTTP API");
  flags->model.AddAll(command);
  AddNetworkFlags(command, flags.get());
  AddEngineFlags(command, flags.get());
  FinishCommand(
      command,
      "Examples:\n"
      "  swiftkv serve smollm2-135m --adapter models/smollm2-135m-swiftkv-33\n"
      "  swiftkv serve --config serve.yaml\n"
      "  swiftkv serve MODEL --host 0.0.0.0 --api-key \"$KEY\" --ssl-keyfile key.pem --ssl-certfile cert.pem\n"
      "The page is at http://127.0.0.1:8000/, the API's description at /openapi.json.\n");
  return [flags, command]() -> Status {
    if (!flags->config.empty()) SWIFTKV_RETURN_IF_ERROR(ApplyConfigFile(flags->config, command));
    return Serve(*flags);
  };
}

}  // namespace swiftkv
