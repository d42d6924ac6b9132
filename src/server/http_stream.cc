#include "server/http_stream.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

namespace swiftkv {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Socket = asio::generic::stream_protocol::socket;

class PlainStream final : public HttpStream {
 public:
  explicit PlainStream(Socket socket) : socket_(std::move(socket)) {}

  asio::awaitable<error_code> Handshake() override { co_return error_code(); }

  asio::awaitable<size_t> ReadSome(asio::mutable_buffer to) override {
    error_code error;
    const size_t count = co_await socket_.async_read_some(to, asio::redirect_error(asio::use_awaitable, error));
    co_return error ? 0 : count;
  }

  asio::awaitable<size_t> WriteSome(asio::const_buffer from) override {
    error_code error;
    const size_t count = co_await socket_.async_write_some(from, asio::redirect_error(asio::use_awaitable, error));
    co_return error ? 0 : count;
  }

  void ShutdownSend() override {
    error_code ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
  }

  void Close() override {
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  Socket socket_;
};

class TlsStream final : public HttpStream {
 public:
  TlsStream(Socket socket, asio::ssl::context* tls) : stream_(std::move(socket), *tls) {}

  asio::awaitable<error_code> Handshake() override {
    error_code error;
    co_await stream_.async_handshake(asio::ssl::stream_base::server, asio::redirect_error(asio::use_awaitable, error));
    co_return error;
  }

  asio::awaitable<size_t> ReadSome(asio::mutable_buffer to) override {
    error_code error;
    const size_t count = co_await stream_.async_read_some(to, asio::redirect_error(asio::use_awaitable, error));
    co_return error ? 0 : count;
  }

  asio::awaitable<size_t> WriteSome(asio::const_buffer from) override {
    error_code error;
    const size_t count = co_await stream_.async_write_some(from, asio::redirect_error(asio::use_awaitable, error));
    co_return error ? 0 : count;
  }

  // No close_notify: the length of every answer is told inside of it, so an end cannot be mistaken.
  void ShutdownSend() override {
    error_code ignored;
    stream_.next_layer().shutdown(Socket::shutdown_send, ignored);
  }

  void Close() override {
    error_code ignored;
    stream_.next_layer().close(ignored);
  }

 private:
  asio::ssl::stream<Socket> stream_;
};

}  // namespace

std::unique_ptr<HttpStream> MakeHttpStream(Socket socket, asio::ssl::context* tls) {
  if (tls == nullptr) return std::make_unique<PlainStream>(std::move(socket));
  return std::make_unique<TlsStream>(std::move(socket), tls);
}

}  // namespace swiftkv
