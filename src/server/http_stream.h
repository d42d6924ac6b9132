// A connected socket, plain or TLS, behind one interface, so that the connection's code is compiled once. For
// connection.cc and http.cc alone.
#ifndef SWIFTKV_SERVER_HTTP_STREAM_H_
#define SWIFTKV_SERVER_HTTP_STREAM_H_

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/system/error_code.hpp>
#include <memory>

namespace swiftkv {

class HttpStream {
 public:
  virtual ~HttpStream() = default;
  virtual boost::asio::awaitable<boost::system::error_code> Handshake() = 0;
  // At most one read and one write at a time. On an error the result is 0.
  virtual boost::asio::awaitable<size_t> ReadSome(boost::asio::mutable_buffer to) = 0;
  virtual boost::asio::awaitable<size_t> WriteSome(boost::asio::const_buffer from) = 0;
  // The peer sees the end of what was written; reading goes on.
  virtual void ShutdownSend() = 0;
  virtual void Close() = 0;
};

// `tls` null: plain; it must outlive the stream.
std::unique_ptr<HttpStream> MakeHttpStream(boost::asio::generic::stream_protocol::socket socket,
                                           boost::asio::ssl::context* tls);

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_HTTP_STREAM_H_
