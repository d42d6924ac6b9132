// One connection of an HttpServer, for http.cc alone: three coroutines on one strand. One reads bytes, one turns them
// into requests and waits for the answers, one writes. They meet in plain members, so that a client that has gone is
// noticed at any time and a client that reads slowly stops nobody but itself.
#ifndef SWIFTKV_SERVER_HTTP_CONNECTION_H_
#define SWIFTKV_SERVER_HTTP_CONNECTION_H_

#include <array>
#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "server/http.h"
#include "server/http_stream.h"

namespace swiftkv {

class HttpConnection;

// What all connections share.
struct HttpShared {
  HttpOptions options;
  HttpHandler handler;
  bool on_loopback = false;  // the address listened on
  std::atomic<size_t> bodies_bytes = 0;
  std::atomic<bool> stopping = false;
  std::atomic<bool> stopped = false;  // no thread runs the strands any more

  std::mutex mutex;
  std::condition_variable all_closed;
  std::unordered_map<HttpConnection*, std::weak_ptr<HttpConnection>> connections;  // open; under `mutex`
};

// Wakes the one coroutine that waits for it. Both are on the connection's strand, so nothing is lost in between.
class HttpSignal {
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit HttpSignal(const boost::asio::any_io_executor& strand) : timer_(strand) {}
  void Notify() { timer_.cancel(); }
  // False: the time is over.
  boost::asio::awaitable<bool> Wait(Time deadline = Time::max());

 private:
  boost::asio::steady_timer timer_;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(const boost::asio::any_io_executor& strand, std::unique_ptr<HttpStream> stream,
                 std::shared_ptr<HttpShared> shared);
  void Start();
  // Thread-safe. Closes at once, or, with `after_reply`, once the reply under way has gone out.
  void Stop(bool after_reply);

 private:
  class BodyShare;
  class Reply;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using Time = std::chrono::steady_clock::time_point;

  boost::asio::awaitable<void> Run();
  boost::asio::awaitable<void> ReadLoop();
  boost::asio::awaitable<void> WriteLoop();
  boost::asio::awaitable<bool> ServeOne();
  boost::asio::awaitable<int> ReadHeader(Parser* parser, BodyShare* body);
  boost::asio::awaitable<int> ReadBody(Parser* parser, BodyShare* body);
  boost::asio::awaitable<int> Feed(Parser* parser, bool header_only, Time deadline, BodyShare* body);
  boost::asio::awaitable<void> Linger();
  HttpRequest TakeHead(const Parser& parser);

  // On the strand, for the reply with that number; nothing if it is not the one under way.
  void Send(uint64_t reply, HttpResponse response);
  void Begin(uint64_t reply, const HttpResponse& head);
  void Write(uint64_t reply, const std::string& piece);
  void End(uint64_t reply);
  void Abandon(uint64_t reply);
  void OnGone(uint64_t reply, std::function<void()> callback);

  bool IsUnderWay(uint64_t reply) const { return open_ && answering_ && reply == reply_; }
  void QueueHead(const HttpResponse& response, const std::string& framing);
  void Queue(std::string bytes);
  void EndReply();
  void Close();

  boost::asio::any_io_executor strand_;
  std::unique_ptr<HttpStream> stream_;
  std::shared_ptr<HttpShared> shared_;
  bool open_ = true;

  // What has come and no request has taken. ReadLoop appends.
  std::array<char, 16 << 10> chunk_;
  std::string input_;
  bool discard_input_ = false;
  HttpSignal input_arrived_;
  HttpSignal input_taken_;

  // What is to be written. WriteLoop takes.
  std::deque<std::string> output_;
  size_t output_bytes_ = 0;            // with what WriteLoop is writing
  std::optional<Time> backlog_since_;  // since when that has been more than max_backlog_bytes
  HttpSignal output_arrived_;
  HttpSignal output_written_;
  boost::asio::steady_timer watchdog_;  // closes the connection when a write or the handshake takes too long

  // The reply under way.
  uint64_t reply_ = 0;
  bool answering_ = false;
  bool begun_ = false;
  bool chunked_ = false;
  bool keep_alive_ = true;
  bool head_only_ = false;
  unsigned version_ = 11;  // 10: HTTP/1.0
  std::string request_id_;
  std::function<void()> on_gone_;
  HttpSignal answered_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_HTTP_CONNECTION_H_
