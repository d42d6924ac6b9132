// An open-loop load generator for any OpenAI-compatible server: requests are sent when they are due, whatever became of
// those before. One thread, asynchronous; each request has a connection of its own.
//
//   SWIFTKV_ASSIGN_OR_RETURN(const ServerAddress server, ParseBaseUrl("http://127.0.0.1:8000"));
//   SWIFTKV_ASSIGN_OR_RETURN(const LoadRun run, RunLoad(requests, {.server = server, .model = "smollm2-135m"}));
#ifndef SWIFTKV_BENCH_LOAD_GENERATOR_H_
#define SWIFTKV_BENCH_LOAD_GENERATOR_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/load_run.h"

namespace swiftkv {

struct ServerAddress {
  std::string host = "127.0.0.1";
  std::string port = "8000";
  std::string path = "";  // before the endpoint, without a slash at its end
};
// "http://host:port/path". Error kInvalidInput; https is not supported.
Result<ServerAddress> ParseBaseUrl(const std::string& url);

struct LoadGeneratorOptions {
  ServerAddress server;
  std::string endpoint = "/v1/completions";  // one that ends in /chat/completions gets messages
  std::string model = {};                    // the field "model"; empty: none is sent
  std::string api_key = {};                  // Authorization: Bearer
  double temperature = 0;
  bool ignore_eos = true;
  int64_t max_concurrency = 0;        // requests under way at one time; those due beyond wait. 0: as many as are due
  double request_timeout = 6 * 3600;  // seconds, from connecting to the end
  bool keep_text = false;
  std::function<bool()> cancelled = {};                             // asked some times a second
  std::function<void(int64_t done, int64_t failed)> progress = {};  // after each request
};

// Requests in the order of their arrival. What goes wrong with a request is its outcome's failure. Errors: kNotFound
// (the host has no address), kInvalidInput, kCancelled.
Result<LoadRun> RunLoad(const std::vector<LoadRequest>& requests, const LoadGeneratorOptions& options);

// The first model that GET /v1/models names. Errors: kIo (no answer), kInvalidInput (another answer).
Result<std::string> AskModel(const LoadGeneratorOptions& options);

// The body of one request, exactly as it is sent.
std::string RequestBody(const LoadRequest& request, const LoadGeneratorOptions& options);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_LOAD_GENERATOR_H_
