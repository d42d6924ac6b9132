// An HTTP/1.1 server on a few I/O threads: TCP or a Unix socket, with or without TLS. It knows nothing of what it
// serves, and bounds whatever a client can send or withhold.
//
//   HttpOptions options{.port = 8000};
//   SWIFTKV_ASSIGN_OR_RETURN(auto server, HttpServer::Start(options, [](HttpRequest request, HttpReplyPtr reply) {
//     reply->Send({.body = "hello " + request.path});
//   }));
//
// The handler runs on an I/O thread and returns at once; the reply may be given later, from any thread.
#ifndef SWIFTKV_SERVER_HTTP_H_
#define SWIFTKV_SERVER_HTTP_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace swiftkv {

struct HttpHeader {
  std::string name;
  std::string value;
};

struct HttpRequest {
  std::string id;      // the client's x-request-id if it is a plain word, else a new one; goes back with the reply
  std::string method;  // "GET"; HEAD comes as GET and loses the reply's body
  std::string path;    // percent-encoded as it came, without the query
  std::vector<HttpHeader> headers = {};
  std::string body = {};
  bool on_loopback = false;  // the server listens where only this machine can reach it

  // The value of the first header of that name, whatever its case; empty if there is none.
  std::string_view Header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body = {};
  std::vector<HttpHeader> headers = {};
};

// The answer to one request: Send, or Begin, any number of Write, End. Every method is thread-safe, and does nothing
// once the client has gone. A reply that is dropped without an answer answers 500. It must not outlive the server.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  virtual void Send(HttpResponse response) = 0;
  // Begins an answer that comes in pieces; `head.body` is its first one.
  virtual void Begin(HttpResponse head) = 0;
  virtual void Write(std::string piece) = 0;
  virtual void End() = 0;
  // Runs `work` on the connection's own strand: one piece after the other, in the order of the calls.
  virtual void Post(std::function<void()> work) = 0;
  // Called on the strand if the client goes away, or is cut off for being too slow, before the answer has ended.
  virtual void OnGone(std::function<void()> callback) = 0;
};
using HttpReplyPtr = std::shared_ptr<HttpReply>;
using HttpHandler = std::function<void(HttpRequest request, HttpReplyPtr reply)>;

struct HttpOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;  // 0: any free one
  std::string uds;    // path of a Unix socket, instead of host and port
  std::string ssl_keyfile;
  std::string ssl_certfile;  // PEM; with ssl_keyfile: TLS
  int io_threads = 2;

  // What a client may take. Beyond: 431, 413, 503 and the end of the connection.
  size_t max_header_bytes = 16 << 10;
  size_t max_body_bytes = 32 << 20;
  size_t max_bodies_bytes = 512 << 20;  // of all requests that are being read
  int max_connections = 4096;
  // Of a reply in pieces, what the client has not read when the next piece comes; beyond: cut off.
  size_t max_queued_bytes = 64 << 20;  // a burst
  size_t max_backlog_bytes = 4 << 20;  // for longer than write_timeout

  std::chrono::milliseconds idle_timeout = std::chrono::seconds(75);    // between two requests
  std::chrono::milliseconds header_timeout = std::chrono::seconds(10);  // TLS handshake; a request's header
  std::chrono::milliseconds body_timeout = std::chrono::seconds(60);
  std::chrono::milliseconds write_timeout = std::chrono::seconds(30);  // without any progress

  // The answer to a request that is refused for its header alone (`head` has no body), so that nobody fills the memory
  // for bodies who may not send any; nullopt: it is not. Called on an I/O thread. Null: none is.
  std::function<std::optional<HttpResponse>(const HttpRequest& head)> refuse;
  // Makes the answer to a request that can't be read. `message` is a sentence.
  std::function<HttpResponse(int status, const std::string& message)> make_error;
};

class HttpServer {
 public:
  // Errors: kInvalidInput (an address, key or certificate that can't be used), kIo (the port is taken).
  static Result<std::unique_ptr<HttpServer>> Start(HttpOptions options, HttpHandler handler);
  // Stop(0).
  ~HttpServer();

  // Accepts nothing more, lets replies under way go out for `grace`, closes all connections and joins the threads.
  void Stop(std::chrono::milliseconds grace);
  uint16_t port() const;        // 0 for a Unix socket
  std::string address() const;  // "http://127.0.0.1:8000", "unix:/run/swiftkv.sock"
  int connections() const;      // open now

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_HTTP_H_
