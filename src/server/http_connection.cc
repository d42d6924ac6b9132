#include "server/http_connection.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/status.hpp>
#include <random>
#include <utility>

namespace swiftkv {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxInput = 64 << 10;  // read ahead of the request that is being answered
constexpr size_t kMaxWrite = 64 << 10;
constexpr std::chrono::seconds kLinger(2);
// The body of a request that is refused is read up to this size, so that the connection can go on; else it ends.
constexpr size_t kMaxRefusedBody = 16 << 10;

// What reading a request may come to, besides an HTTP status.
constexpr int kRequestRead = 0;
constexpr int kConnectionEnded = -1;

int StatusOf(const error_code& error) {
  if (error == http::error::header_limit) return 431;
  if (error == http::error::body_limit) return 413;
  return 400;
}

std::string MessageOf(int status, const HttpOptions& options) {
  switch (status) {
    case 408:
      return "the request did not arrive in time";
    case 413:
      return fmt::format("the request's body is larger than {} bytes", options.max_body_bytes);
    case 417:
      return "the only expectation that can be met is 100-continue";
    case 431:
      return fmt::format("the request's header is larger than {} bytes", options.max_header_bytes);
    case 503:
      return "too many large requests are being read; try again later";
    default:
      return "this is not an HTTP/1.1 request";
  }
}

// An id of the client's own goes into logs and back out, so it must be a plain word.
bool IsPlainWord(std::string_view text) {
  return !text.empty() && text.size() <= 128 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.';
  });
}

std::string NewRequestId() {
  thread_local std::mt19937_64 random{std::random_device()()};
  return fmt::format("{:016x}{:016x}", random(), random());
}

// Whether the body of a request that is refused may come, and will without being asked for.
template <class Parser>
bool HasSmallBody(const Parser& parser) {
  if (parser.is_done()) return true;
  const auto length = parser.content_length();
  return length && *length <= kMaxRefusedBody && parser.get()[http::field::expect].empty();
}

}  // namespace

asio::awaitable<bool> HttpSignal::Wait(Time deadline) {
  error_code error;
  timer_.expires_at(deadline);
  co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
  co_return error == asio::error::operation_aborted;
}

// What one request's body has of the memory for all bodies.
class HttpConnection::BodyShare {
 public:
  explicit BodyShare(std::atomic<size_t>* all) : all_(all) {}
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;
  ~BodyShare() { *all_ -= bytes_; }
  // The bytes of all.
  size_t GrowTo(size_t bytes) {
    const size_t grown = bytes - std::exchange(bytes_, bytes);
    return *all_ += grown;
  }

 private:
  std::atomic<size_t>* all_;
  size_t bytes_ = 0;
};

// The handle that the handler holds. It outlives nothing: a late call finds another reply's number and does nothing.
class HttpConnection::Reply final : public HttpReply {
 public:
  Reply(std::shared_ptr<HttpConnection> connection, uint64_t number)
      : connection_(std::move(connection)), number_(number) {}
  Reply(const Reply&) = delete;
  Reply& operator=(const Reply&) = delete;
  ~Reply() override {
    if (connection_->shared_->stopped) return;
    asio::post(connection_->strand_, [connection = connection_, number = number_] { connection->Abandon(number); });
  }

  void Send(HttpResponse response) override {
    asio::dispatch(connection_->strand_,
                   [connection = connection_, number = number_, response = std::move(response)]() mutable {
                     connection->Send(number, std::move(response));
                   });
  }
  void Begin(HttpResponse head) override {
    asio::dispatch(connection_->strand_, [connection = connection_, number = number_, head = std::move(head)] {
      connection->Begin(number, head);
    });
  }
  void Write(std::string piece) override {
    asio::dispatch(connection_->strand_, [connection = connection_, number = number_, piece = std::move(piece)] {
      connection->Write(number, piece);
    });
  }
  void End() override {
    asio::dispatch(connection_->strand_, [connection = connection_, number = number_] { connection->End(number); });
  }
  void Post(std::function<void()> work) override { asio::post(connection_->strand_, std::move(work)); }
  void OnGone(std::function<void()> callback) override {
    asio::dispatch(connection_->strand_,
                   [connection = connection_, number = number_, callback = std::move(callback)]() mutable {
                     connection->OnGone(number, std::move(callback));
                   });
  }

 private:
  std::shared_ptr<HttpConnection> connection_;
  uint64_t number_;
};

HttpConnection::HttpConnection(const asio::any_io_executor& strand, std::unique_ptr<HttpStream> stream,
                               std::shared_ptr<HttpShared> shared)
    : strand_(strand),
      stream_(std::move(stream)),
      shared_(std::move(shared)),
      input_arrived_(strand),
      input_taken_(strand),
      output_arrived_(strand),
      output_written_(strand),
      watchdog_(strand),
      answered_(strand) {}

void HttpConnection::Start() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->connections.emplace(this, weak_from_this());
  }
  asio::co_spawn(
      strand_, [self = shared_from_this()] { return self->Run(); },
      [self = shared_from_this()](const std::exception_ptr& failure) {
        if (failure) self->Close();  // out of memory: this connection's end, nobody else's
      });
}

void HttpConnection::Stop(bool after_reply) {
  asio::post(strand_, [self = shared_from_this(), after_reply] {
    self->keep_alive_ = false;
    if (!after_reply || (!self->answering_ && self->output_bytes_ == 0)) self->Close();
  });
}

asio::awaitable<void> HttpConnection::Run() {
  watchdog_.expires_after(shared_->options.header_timeout);
  watchdog_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error) self->Close();
  });
  const error_code refused = co_await stream_->Handshake();
  watchdog_.cancel();
  if (refused || !open_) {
    Close();
    co_return;
  }
  const auto close_on_failure = [self = shared_from_this()](const std::exception_ptr& failure) {
    if (failure) self->Close();
  };
  asio::co_spawn(
      strand_, [self = shared_from_this()] { return self->ReadLoop(); }, close_on_failure);
  asio::co_spawn(
      strand_, [self = shared_from_this()] { return self->WriteLoop(); }, close_on_failure);
  bool more = true;
  while (more) more = co_await ServeOne();
  co_await Linger();
  Close();
}

asio::awaitable<void> HttpConnection::ReadLoop() {
  while (open_) {
    if (input_.size() >= kMaxInput && !discard_input_) {
      co_await input_taken_.Wait();
      continue;
    }
    const size_t count = co_await stream_->ReadSome(asio::buffer(chunk_));
    if (count == 0) break;
    if (!discard_input_) input_.append(chunk_.data(), count);
    input_arrived_.Notify();
  }
  Close();
}

asio::awaitable<void> HttpConnection::WriteLoop() {
  while (open_) {
    if (output_.empty()) {
      co_await output_arrived_.Wait();
      continue;
    }
    std::string bytes = std::move(output_.front());
    output_.pop_front();
    while (!output_.empty() && bytes.size() + output_.front().size() <= kMaxWrite) {
      bytes += output_.front();
      output_.pop_front();
    }
    for (size_t written = 0; written < bytes.size();) {
      watchdog_.expires_after(shared_->options.write_timeout);
      watchdog_.async_wait([self = shared_from_this()](const error_code& error) {
        if (error) return;
        spdlog::warn("request {}: the client read nothing for {} ms and was cut off", self->request_id_,
                     self->shared_->options.write_timeout.count());
        self->Close();
      });
      const size_t count = co_await stream_->WriteSome(asio::buffer(bytes) + written);
      watchdog_.cancel();
      if (count == 0) {
        Close();
        co_return;
      }
      written += count;
      output_bytes_ -= count;
      if (output_bytes_ <= shared_->options.max_backlog_bytes) backlog_since_.reset();
    }
    output_written_.Notify();
  }
}

// False: the connection is to end.
asio::awaitable<bool> HttpConnection::ServeOne() {
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(shared_->options.max_header_bytes));
  parser.body_limit(shared_->options.max_body_bytes);
  parser.eager(false);
  BodyShare body(&shared_->bodies_bytes);
  int status = co_await ReadHeader(&parser, &body);
  if (status == kConnectionEnded) co_return false;
  HttpRequest request = TakeHead(parser);
  std::optional<HttpResponse> refusal;
  if (status == kRequestRead && shared_->options.refuse) refusal = shared_->options.refuse(request);
  if (status == kRequestRead && (!refusal || HasSmallBody(parser))) status = co_await ReadBody(&parser, &body);
  if (status == kConnectionEnded) co_return false;
  ++reply_;
  answering_ = true;
  begun_ = false;
  keep_alive_ = status == kRequestRead && parser.is_done() && parser.keep_alive() && !shared_->stopping;
  if (status != kRequestRead) {
    const std::string message = MessageOf(status, shared_->options);
    spdlog::info("request={} status={} error=\"{}\"", request_id_, status, message);
    Send(reply_, shared_->options.make_error(status, message));
  } else if (refusal) {
    Send(reply_, std::move(*refusal));
  } else {
    request.body = std::move(parser.get().body());
    shared_->handler(std::move(request), std::make_shared<Reply>(shared_from_this(), reply_));
  }
  while (open_ && answering_) co_await answered_.Wait();
  // A client that asks on without reading the answers waits here.
  while (open_ && output_bytes_ > 0) co_await output_written_.Wait();
  co_return open_&& keep_alive_;
}

asio::awaitable<int> HttpConnection::ReadHeader(Parser* parser, BodyShare* body) {
  const HttpOptions& options = shared_->options;
  const Time idle_until = Clock::now() + options.idle_timeout;
  while (open_ && input_.empty()) {
    const bool in_time = co_await input_arrived_.Wait(idle_until);
    if (!in_time && input_.empty()) co_return kConnectionEnded;
  }
  co_return co_await Feed(parser, true, Clock::now() + options.header_timeout, body);
}

asio::awaitable<int> HttpConnection::ReadBody(Parser* parser, BodyShare* body) {
  if (parser->is_done()) co_return kRequestRead;
  const std::string_view expect = parser->get()[http::field::expect];
  if (!expect.empty()) {
    if (!boost::beast::iequals(expect, "100-continue")) co_return 417;
    Queue("HTTP/1.1 100 Continue\r\n\r\n");
  }
  parser->eager(true);
  co_return co_await Feed(parser, false, Clock::now() + shared_->options.body_timeout, body);
}

// Hands what has come to the parser until it has the header or the whole request.
asio::awaitable<int> HttpConnection::Feed(Parser* parser, bool header_only, Time deadline, BodyShare* body) {
  size_t seen = 0;  // bytes of input_ that were not enough
  while (header_only ? !parser->is_header_done() : !parser->is_done()) {
    if (!open_) co_return kConnectionEnded;
    if (input_.size() <= seen) {
      const bool in_time = co_await input_arrived_.Wait(deadline);
      if (!in_time && input_.size() <= seen) co_return 408;
      continue;
    }
    error_code error;
    const size_t used = parser->put(asio::buffer(input_), error);
    input_.erase(0, used);
    input_taken_.Notify();
    seen = error == http::error::need_more ? input_.size() : 0;
    if (error && error != http::error::need_more) co_return StatusOf(error);
    if (body->GrowTo(parser->get().body().size()) > shared_->options.max_bodies_bytes) co_return 503;
  }
  co_return kRequestRead;
}

// The request without its body, as far as its header could be read.
HttpRequest HttpConnection::TakeHead(const Parser& parser) {
  const auto& header = parser.get();
  head_only_ = header.method() == http::verb::head;
  version_ = header.version();
  const std::string_view id = header["x-request-id"];
  request_id_ = IsPlainWord(id) ? std::string(id) : NewRequestId();
  HttpRequest request{.id = request_id_,
                      .method = head_only_ ? "GET" : std::string(header.method_string()),
                      .path = std::string(header.target()),
                      .on_loopback = shared_->on_loopback};
  request.path.resize(std::min(request.path.find('?'), request.path.size()));
  for (const auto& field : header) {
    request.headers.push_back({std::string(field.name_string()), std::string(field.value())});
  }
  return request;
}

// What was written goes out, and what the client still sends is read and forgotten for a while: closing at once would
// make the system throw away the answer with the unread bytes.
asio::awaitable<void> HttpConnection::Linger() {
  while (open_ && output_bytes_ > 0) co_await output_written_.Wait();
  if (!open_) co_return;
  stream_->ShutdownSend();
  discard_input_ = true;
  input_taken_.Notify();
  const Time deadline = Clock::now() + kLinger;
  bool in_time = true;
  while (open_ && in_time) in_time = co_await input_arrived_.Wait(deadline);
}

void HttpConnection::Send(uint64_t reply, HttpResponse response) {
  if (!IsUnderWay(reply) || begun_) return;
  // An answer without content has no length either (RFC 9110, 8.6).
  QueueHead(response, response.status == 204 ? "" : fmt::format("Content-Length: {}\r\n", response.body.size()));
  if (!head_only_ && !response.body.empty()) Queue(std::move(response.body));
  EndReply();
}

void HttpConnection::Begin(uint64_t reply, const HttpResponse& head) {
  if (!IsUnderWay(reply) || begun_) return;
  begun_ = true;
  chunked_ = version_ >= 11;
  if (!chunked_) keep_alive_ = false;
  QueueHead(head, chunked_ ? "Transfer-Encoding: chunked\r\n" : "");
  Write(reply, head.body);
}

void HttpConnection::Write(uint64_t reply, const std::string& piece) {
  if (!IsUnderWay(reply) || !begun_ || head_only_ || piece.empty()) return;
  const bool stays_behind = backlog_since_ && Clock::now() - *backlog_since_ > shared_->options.write_timeout;
  if (stays_behind || output_bytes_ > shared_->options.max_queued_bytes) {
    spdlog::warn("request {}: the client reads too slowly and was cut off", request_id_);
    Close();
    return;
  }
  Queue(chunked_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : piece);
}

void HttpConnection::End(uint64_t reply) {
  if (!IsUnderWay(reply) || !begun_) return;
  if (chunked_ && !head_only_) Queue("0\r\n\r\n");
  EndReply();
}

void HttpConnection::Abandon(uint64_t reply) {
  if (!IsUnderWay(reply)) return;
  spdlog::error("request {}: dropped without an answer", request_id_);
  if (begun_) {
    Close();
  } else {
    Send(reply, shared_->options.make_error(500, "the server failed to answer"));
  }
}

void HttpConnection::OnGone(uint64_t reply, std::function<void()> callback) {
  if (IsUnderWay(reply)) {
    on_gone_ = std::move(callback);
  } else if (!open_ && reply == reply_) {
    callback();
  }
}

void HttpConnection::QueueHead(const HttpResponse& response, const std::string& framing) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  std::string head = fmt::format(
      "HTTP/1.1 {} {}\r\nDate: {:%a, %d %b %Y %H:%M:%S} GMT\r\nServer: swiftkv/{}\r\nx-request-id: {}\r\n{}",
      response.status, std::string_view(reason), fmt::gmtime(std::chrono::system_clock::now()), SWIFTKV_VERSION,
      request_id_, framing);
  if (response.status != 204) head += fmt::format("Content-Type: {}\r\n", response.content_type);
  for (const HttpHeader& header : response.headers) head += fmt::format("{}: {}\r\n", header.name, header.value);
  head += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  Queue(std::move(head));
}

void HttpConnection::Queue(std::string bytes) {
  output_bytes_ += bytes.size();
  if (output_bytes_ > shared_->options.max_backlog_bytes && !backlog_since_) backlog_since_ = Clock::now();
  output_.push_back(std::move(bytes));
  output_arrived_.Notify();
}

void HttpConnection::EndReply() {
  answering_ = false;
  on_gone_ = nullptr;
  answered_.Notify();
}

void HttpConnection::Close() {
  if (!open_) return;
  open_ = false;
  stream_->Close();
  watchdog_.cancel();
  for (HttpSignal* signal : {&input_arrived_, &input_taken_, &output_arrived_, &output_written_, &answered_}) {
    signal->Notify();
  }
  if (const auto callback = std::exchange(on_gone_, nullptr); callback && answering_) callback();
  const std::lock_guard lock(shared_->mutex);
  shared_->connections.erase(this);
  if (shared_->connections.empty()) shared_->all_closed.notify_all();
}

}  // namespace swiftkv
