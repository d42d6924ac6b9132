// A server for tests, which answers every connection as a script says; a thread for each.
//
//   ScriptedServer server([](int, const std::string&) { return Script{{0ms, "HTTP/1.1 503 Busy\r\n..."}}; });
//   options.server.port = server.port();
#ifndef SWIFTKV_BENCH_SCRIPTED_SERVER_H_
#define SWIFTKV_BENCH_SCRIPTED_SERVER_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace swiftkv {

// What is sent after what wait; then the connection is closed.
using Script = std::vector<std::pair<std::chrono::milliseconds, std::string>>;

class ScriptedServer {
 public:
  // `answer` gets the number of the connection, from 0, and the request as it came; called on the connection's thread.
  using Answer = std::function<Script(int connection, const std::string& request)>;

  explicit ScriptedServer(Answer answer) : answer_(std::move(answer)), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener_, generic, size) == 0 && listen(listener_, 1024) == 0 &&
        getsockname(listener_, generic, &size) == 0) {
      port_ = std::to_string(ntohs(address.sin_port));
    }
    acceptor_ = std::thread([this] { Accept(); });
  }

  ~ScriptedServer() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    for (std::thread& thread : connections_) thread.join();
  }

  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  const std::string& port() const { return port_; }
  // The requests so far, headers and bodies.
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void Accept() {
    for (int number = 0;; ++number) {
      const int connection = accept(listener_, nullptr, nullptr);
      if (connection < 0) return;
      connections_.emplace_back([this, connection, number] { Serve(connection, number); });
    }
  }

  void Serve(int connection, int number) {
    const std::string request = ReadRequest(connection);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    for (const auto& [wait, text] : answer_(number, request)) {
      std::this_thread::sleep_for(wait);
      if (send(connection, text.data(), text.size(), MSG_NOSIGNAL) < 0) break;
    }
    close(connection);
  }

  // Header and, as Content-Length says, body.
  static std::string ReadRequest(int connection) {
    std::string request;
    size_t wanted = std::string::npos;
    char buffer[4096];
    while (request.size() < wanted) {
      const ssize_t count = recv(connection, buffer, sizeof(buffer), 0);
      if (count <= 0) break;
      request.append(buffer, static_cast<size_t>(count));
      const size_t end = request.find("\r\n\r\n");
      if (wanted != std::string::npos || end == std::string::npos) continue;
      constexpr std::string_view kLength = "Content-Length: ";
      const size_t length = request.find(kLength);
      wanted = end + 4 + (length < end ? std::stoul(request.substr(length + kLength.size())) : 0);
    }
    return request;
  }

  Answer answer_;
  int listener_;
  std::string port_;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<std::thread> connections_;
  std::thread acceptor_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_SCRIPTED_SERVER_H_
