#include "server/http.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "server/http_connection.h"

namespace swiftkv {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Protocol = asio::generic::stream_protocol;
using Acceptor = asio::basic_socket_acceptor<Protocol>;

constexpr std::chrono::milliseconds kAcceptRetry(50);

// Connections are file descriptors, of which a process may have 1,024 unless it asks for more.
void RaiseFileLimit(int connections) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const auto wanted = static_cast<rlim_t>(connections) + 256;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
    spdlog::warn("the limit on open files is {}: too few for {} connections", limit.rlim_cur, connections);
  }
}

// A socket file that nobody listens on is left over from a process that was killed.
Status RemoveStaleSocket(const std::string& path) {
  struct stat info = {};
  if (lstat(path.c_str(), &info) != 0) return Ok();
  if (!S_ISSOCK(info.st_mode)) return InvalidInput("--uds {}: the file exists and is not a socket", path);
  asio::io_context io;
  asio::local::stream_protocol::socket probe(io);
  error_code error;
  probe.connect(asio::local::stream_protocol::endpoint(path), error);
  if (!error) return IoError("--uds {}: another process listens there", path);
  unlink(path.c_str());
  return Ok();
}

Result<Protocol::endpoint> Resolve(asio::io_context* io, const HttpOptions& options) {
  if (!options.uds.empty()) {
    constexpr size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;
    if (options.uds.size() > kMaxPath) {
      return InvalidInput("--uds: the path has {} bytes; a socket's may have {}", options.uds.size(), kMaxPath);
    }
    SWIFTKV_RETURN_IF_ERROR(RemoveStaleSocket(options.uds));
    return Protocol::endpoint(asio::local::stream_protocol::endpoint(options.uds));
  }
  error_code error;
  asio::ip::tcp::resolver resolver(*io);
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port),
                       asio::ip::tcp::resolver::passive | asio::ip::tcp::resolver::numeric_service, error);
  if (error || found.empty()) return InvalidInput("--host {}: {}", options.host, error.message());
  return Protocol::endpoint(found.begin()->endpoint());
}

Result<std::unique_ptr<asio::ssl::context>> MakeTls(const HttpOptions& options) {
  if (options.ssl_certfile.empty() && options.ssl_keyfile.empty()) return std::unique_ptr<asio::ssl::context>();
  if (options.ssl_certfile.empty() || options.ssl_keyfile.empty()) {
    return InvalidInput("--ssl-certfile and --ssl-keyfile belong together");
  }
  auto tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                   asio::ssl::context::no_tlsv1_1);
  error_code error;
  tls->use_certificate_chain_file(options.ssl_certfile, error);
  if (error) return InvalidInput("--ssl-certfile {}: {}", options.ssl_certfile, error.message());
  tls->use_private_key_file(options.ssl_keyfile, asio::ssl::context::pem, error);
  if (error) return InvalidInput("--ssl-keyfile {}: {}", options.ssl_keyfile, error.message());
  return tls;
}

uint16_t PortOf(const Protocol::endpoint& endpoint) {
  if (endpoint.protocol().family() == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in*>(endpoint.data())->sin_port);
  }
  if (endpoint.protocol().family() == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6*>(endpoint.data())->sin6_port);
  }
  return 0;
}

bool IsLoopback(const Protocol::endpoint& endpoint) {
  if (endpoint.protocol().family() == AF_INET) {
    return ntohl(reinterpret_cast<const sockaddr_in*>(endpoint.data())->sin_addr.s_addr) >> 24 == 127;
  }
  if (endpoint.protocol().family() != AF_INET6) return false;
  return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(endpoint.data())->sin6_addr);
}

}  // namespace

std::string_view HttpRequest::Header(std::string_view name) const {
  for (const HttpHeader& header : headers) {
    if (boost::beast::iequals(header.name, name)) return header.value;
  }
  return {};
}

class HttpServer::Impl {
 public:
  Impl(HttpOptions options, HttpHandler handler) : shared(std::make_shared<HttpShared>()) {
    shared->options = std::move(options);
    shared->handler = std::move(handler);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { Stop({}); }

  Status Listen() {
    SWIFTKV_ASSIGN_OR_RETURN(tls, MakeTls(shared->options));
    SWIFTKV_ASSIGN_OR_RETURN(const Protocol::endpoint endpoint, Resolve(&io, shared->options));
    error_code error;
    acceptor.open(endpoint.protocol(), error);
    if (!error && shared->options.uds.empty()) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (!error) port = PortOf(acceptor.local_endpoint(error));
    if (error) {
      const HttpOptions& options = shared->options;
      const std::string where = options.uds.empty() ? fmt::format("{}:{}", options.host, options.port) : options.uds;
      return IoError("can't listen on {}: {}", where, error.message());
    }
    shared->on_loopback = IsLoopback(endpoint);
    RaiseFileLimit(shared->options.max_connections);
    SpawnAccept();
    for (int i = 0; i < shared->options.io_threads; ++i) threads.emplace_back([this] { Work(); });
    return Ok();
  }

  void Stop(std::chrono::milliseconds grace) {
    if (threads.empty()) return;
    shared->stopping = true;
    asio::post(acceptor.get_executor(), [this] {
      error_code ignored;
      acceptor.close(ignored);
    });
    StopConnections(/*after_reply=*/true, grace);
    StopConnections(/*after_reply=*/false, std::chrono::seconds(1));
    io.stop();
    for (std::thread& thread : threads) thread.join();
    threads.clear();
    shared->stopped = true;
    if (!shared->options.uds.empty()) unlink(shared->options.uds.c_str());
  }

  std::shared_ptr<HttpShared> shared;
  std::unique_ptr<asio::ssl::context> tls;
  asio::io_context io;
  Acceptor acceptor{asio::make_strand(io)};
  uint16_t port = 0;
  std::vector<std::thread> threads;

 private:
  void Work() {
    while (true) {
      try {
        io.run();
        return;
      } catch (const std::exception& error) {  // out of memory: the handler is lost, the server goes on
        spdlog::error("an I/O thread goes on after: {}", error.what());
      }
    }
  }

  void SpawnAccept() {
    asio::co_spawn(acceptor.get_executor(), Accept(), [this](const std::exception_ptr& failure) {
      if (!failure) return;
      spdlog::error("a connection was lost: there is not enough memory for it");
      SpawnAccept();
    });
  }

  asio::awaitable<void> Accept() {
    asio::steady_timer retry(acceptor.get_executor());
    while (!shared->stopping) {
      asio::any_io_executor strand = asio::make_strand(io);
      Protocol::socket socket(strand);
      error_code error;
      co_await acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
      if (!acceptor.is_open()) co_return;
      if (error) {  // no file descriptor is free: those who leave will free some
        retry.expires_after(kAcceptRetry);
        co_await retry.async_wait(asio::redirect_error(asio::use_awaitable, error));
        continue;
      }
      Admit(strand, std::move(socket));
    }
  }

  void Admit(const asio::any_io_executor& strand, Protocol::socket socket) {
    error_code ignored;
    if (Connections() >= shared->options.max_connections) {
      socket.non_blocking(true, ignored);
      constexpr std::string_view kFull =
          "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
      if (!tls) socket.send(asio::buffer(kFull), 0, ignored);
      return;
    }
    // Small pieces of a stream must not wait for the acknowledgement of the one before.
    if (shared->options.uds.empty()) socket.set_option(asio::ip::tcp::no_delay(true), ignored);
    std::make_shared<HttpConnection>(strand, MakeHttpStream(std::move(socket), tls.get()), shared)->Start();
  }

  int Connections() const {
    const std::lock_guard lock(shared->mutex);
    return static_cast<int>(shared->connections.size());
  }

  void StopConnections(bool after_reply, std::chrono::milliseconds patience) {
    std::vector<std::shared_ptr<HttpConnection>> connections;
    {
      const std::lock_guard lock(shared->mutex);
      for (const auto& [key, connection] : shared->connections) {
        if (auto held = connection.lock()) connections.push_back(std::move(held));
      }
    }
    for (const auto& connection : connections) connection->Stop(after_reply);
    connections.clear();
    std::unique_lock lock(shared->mutex);
    shared->all_closed.wait_for(lock, patience, [&] { return shared->connections.empty(); });
  }

  friend class HttpServer;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::Start(HttpOptions options, HttpHandler handler) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(handler));
  SWIFTKV_RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

void HttpServer::Stop(std::chrono::milliseconds grace) { impl_->Stop(grace); }
uint16_t HttpServer::port() const { return impl_->port; }
int HttpServer::connections() const { return impl_->Connections(); }

std::string HttpServer::address() const {
  const HttpOptions& options = impl_->shared->options;
  if (!options.uds.empty()) return "unix:" + options.uds;
  const bool is_v6 = options.host.find(':') != std::string::npos;
  return fmt::format("{}://{}:{}", impl_->tls ? "https" : "http", is_v6 ? "[" + options.host + "]" : options.host,
                     impl_->port);
}

}  // namespace swiftkv
