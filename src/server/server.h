// The OpenAI-compatible server: the engine behind HTTP.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto server, Server::Listen({.http = {.port = 8000}, .served_model_names = {"tiny"}}));
//   SWIFTKV_ASSIGN_OR_RETURN(model, LoadModel(options));
//   SWIFTKV_RETURN_IF_ERROR(server->Serve(model, {}));
//   ...
//   server->Drain();
//   while (!server->idle()) Wait();
//   server->Stop(std::chrono::seconds(1));
#ifndef SWIFTKV_SERVER_SERVER_H_
#define SWIFTKV_SERVER_SERVER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/async_engine.h"
#include "engine/load.h"
#include "server/http.h"

namespace swiftkv {

struct ServerOptions {
  HttpOptions http = {};
  std::vector<std::string> served_model_names = {};  // at least one
  std::vector<std::string> api_keys = {};            // any of them opens; empty: no key is asked for
  std::vector<std::string> allowed_origins = {};     // of web pages on other hosts (CORS); "*": any
  double request_timeout_s = 0;                      // a request may wait and run; 0: for ever
};

class Server {
 public:
  // Takes the port. Until Serve, /health says that the process lives, and whatever needs a model gets 503. Errors:
  // those of HttpServer::Start; kInvalidInput, an empty API key.
  static Result<std::unique_ptr<Server>> Listen(ServerOptions options);
  ~Server();

  // Once: from now on requests are taken. `model` must outlive the server. Errors: those of AsyncEngine::Start.
  Status Serve(const LoadedModel& model, const AsyncEngineOptions& options);
  // After Serve: from now on /ready and whoever wants an answer get 503; what runs goes on.
  void Drain();
  // After Serve: nothing runs or waits.
  bool idle() const;
  // Lets answers go out for `grace`, then closes every connection and ends what still runs.
  void Stop(std::chrono::milliseconds grace);

  uint16_t port() const;
  std::string address() const;
  int connections() const;
  EngineStats stats() const;  // after Serve

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_SERVER_H_
