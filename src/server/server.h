// The OpenAI-compatible server: the engine behind HTTP.
//
//   SWIFTKV_ASSIGN_OR_RETURN(auto server, Server::Start(model, {.http = {.port = 8000}}));
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
  AsyncEngineOptions engine = {};
  std::vector<std::string> served_model_names = {};  // empty: what the model's origin calls it
  std::vector<std::string> api_keys = {};            // any of them opens; empty: no key is asked for
  std::vector<std::string> allowed_origins = {};     // of web pages on other hosts (CORS); "*": any
};

class Server {
 public:
  // `model` must outlive the server. Errors: those of AsyncEngine::Start and HttpServer::Start.
  static Result<std::unique_ptr<Server>> Start(const LoadedModel& model, ServerOptions options);
  ~Server();

  // From now on /ready and whoever wants an answer get 503; what runs goes on.
  void Drain();
  // Nothing runs or waits.
  bool idle() const;
  // Lets answers go out for `grace`, then closes every connection and ends what still runs.
  void Stop(std::chrono::milliseconds grace);

  uint16_t port() const;
  std::string address() const;
  int connections() const;
  EngineStats stats() const;

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_SERVER_H_
