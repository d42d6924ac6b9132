// A blocking HTTP/1.1 client for tests, which can also misbehave: it sends any bytes and reads when it likes.
#ifndef SWIFTKV_SERVER_TEST_CLIENT_H_
#define SWIFTKV_SERVER_TEST_CLIENT_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace swiftkv {

struct TestResponse {
  int status = 0;  // 0: the connection ended before an answer
  std::string head;
  std::string body;  // without the framing of chunks
  bool Has(const std::string& text) const { return head.find(text) != std::string::npos; }
};

class TestClient {
 public:
  explicit TestClient(uint16_t port, int receive_buffer = 0) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Connect(reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  explicit TestClient(const std::string& unix_socket) {
    fd_ = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, unix_socket.c_str(), sizeof address.sun_path - 1);
    Connect(reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  TestClient(TestClient&& other) noexcept : fd_(std::exchange(other.fd_, -1)), input_(std::move(other.input_)) {}
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;
  ~TestClient() { Close(); }

  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

  bool Send(const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t count = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return false;
      sent += static_cast<size_t>(count);
    }
    return true;
  }

  // False if the connection has ended, or nothing comes for 60 s.
  bool ReadMore() {
    char bytes[1 << 14];
    const ssize_t count = recv(fd_, bytes, sizeof bytes, 0);
    if (count <= 0) return false;
    input_.append(bytes, static_cast<size_t>(count));
    return true;
  }

  // True once input_ holds `text`; false if the connection ends, or nothing comes for 60 s.
  bool ReadUntil(const std::string& text) {
    while (input_.find(text) == std::string::npos) {
      if (!ReadMore()) return false;
    }
    return true;
  }

  // True if the server has closed the connection, all input read.
  bool IsClosed() {
    while (ReadMore()) {
    }
    return true;
  }

  TestResponse Read(bool has_body = true) {
    TestResponse response;
    if (!ReadUntil("\r\n\r\n")) return response;
    response.head = Take(input_.find("\r\n\r\n") + 4);
    response.status = std::atoi(response.head.c_str() + std::strlen("HTTP/1.1 "));
    if (!has_body) return response;
    const size_t length = response.head.find("Content-Length: ");
    if (length != std::string::npos) {
      const size_t size = std::strtoul(response.head.c_str() + length + 16, nullptr, 10);
      while (input_.size() < size && ReadMore()) {
      }
      response.body = Take(size);
    } else if (response.Has("Transfer-Encoding: chunked")) {
      while (ReadUntil("\r\n")) {
        const size_t size = std::strtoul(Take(input_.find("\r\n") + 2).c_str(), nullptr, 16);
        while (input_.size() < size + 2 && ReadMore()) {
        }
        response.body += Take(size + 2).substr(0, size);
        if (size == 0) break;
      }
    }
    return response;
  }

  TestResponse Get(const std::string& path, const std::string& headers = {}) {
    Send("GET " + path + " HTTP/1.1\r\nHost: test\r\n" + headers + "\r\n");
    return Read();
  }

  TestResponse Post(const std::string& path, const std::string& body, const std::string& headers = {}) {
    SendPost(path, body, headers);
    return Read();
  }

  void SendPost(const std::string& path, const std::string& body, const std::string& headers = {}) {
    Send("POST " + path + " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body);
  }

 private:
  void Connect(const sockaddr* address, socklen_t size) {
    const timeval patience = {.tv_sec = 60, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd_, address, size) != 0) Close();
  }

  std::string Take(size_t size) {
    std::string taken = input_.substr(0, size);
    input_.erase(0, size);
    return taken;
  }

  int fd_ = -1;
  std::string input_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_TEST_CLIENT_H_
