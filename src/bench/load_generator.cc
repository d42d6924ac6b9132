#include "bench/load_generator.h"

#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <deque>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/printable.h"
#include "bench/completion_stream.h"
#include "checkpoint/json_file.h"

namespace swiftkv {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Clock = std::chrono::steady_clock;
using ErrorValue = boost::system::error_code;
using Json = nlohmann::ordered_json;

constexpr size_t kReadBytes = 16 << 10;
constexpr uint32_t kMaxHeaderBytes = 64 << 10;
constexpr uint64_t kMaxAnswerBytes = uint64_t{1} << 30;
constexpr size_t kMaxErrorBytes = 4096;  // kept of an answer that is no stream
constexpr uint64_t kMaxModelsBytes = 1 << 20;
constexpr auto kModelsTimeout = std::chrono::seconds(30);
constexpr auto kCancelPoll = std::chrono::milliseconds(100);

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// At most some decades, which the clock can still count.
Clock::duration ToDuration(double seconds) {
  constexpr double kMostSeconds = 1e9;
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::min(seconds, kMostSeconds)));
}

auto ErrorTo(ErrorValue& error) { return asio::redirect_error(asio::use_awaitable, error); }

RequestFailure FailureOf(const char* doing, const ErrorValue& error) {
  const std::string detail = std::string(doing) + ": " + error.message();
  if (error == beast::error::timeout) return {"timeout", detail};
  const bool closed = error == http::error::end_of_stream || error == http::error::partial_message ||
                      error == asio::error::eof || error == asio::error::connection_reset ||
                      error == asio::error::broken_pipe;
  return {closed ? "connection closed" : doing, detail};
}

http::request<http::string_body> MakeRequest(http::verb verb, const std::string& target,
                                             const LoadGeneratorOptions& options) {
  http::request<http::string_body> request(verb, options.server.path + target, 11);
  request.set(http::field::host, options.server.host + ":" + options.server.port);
  request.set(http::field::user_agent, "swiftkv/" SWIFTKV_VERSION);
  request.set(http::field::connection, "close");
  if (!options.api_key.empty()) request.set(http::field::authorization, "Bearer " + options.api_key);
  return request;
}

Result<asio::ip::tcp::resolver::results_type> Resolve(asio::io_context* context, const ServerAddress& server) {
  ErrorValue error;
  auto endpoints = asio::ip::tcp::resolver(*context).resolve(server.host, server.port, error);
  if (error) {
    return NotFound("{}:{}: the address can't be found: {}", Printable(server.host), Printable(server.port),
                    error.message());
  }
  return endpoints;
}

// All requests of one run, on the thread that calls Run.
class Generator {
 public:
  Generator(const std::vector<LoadRequest>& requests, const LoadGeneratorOptions& options)
      : requests_(requests), options_(options) {}

  Result<LoadRun> Run();

 private:
  asio::awaitable<void> SendWhenDue();
  asio::awaitable<void> WatchCancel();
  asio::awaitable<void> RunRequest(size_t index);
  // Sends one request and reads its answer; the reason if it failed.
  asio::awaitable<std::optional<RequestFailure>> Exchange(size_t index, RequestOutcome* outcome);
  asio::awaitable<std::optional<RequestFailure>> ReadAnswer(beast::tcp_stream* stream, Clock::time_point start,
                                                            RequestOutcome* outcome);
  void StartDue();

  const std::vector<LoadRequest>& requests_;
  const LoadGeneratorOptions& options_;
  asio::io_context context_{1};
  asio::ip::tcp::resolver::results_type endpoints_;
  Clock::time_point start_;
  std::deque<size_t> due_;  // that wait for room under max_concurrency
  int64_t under_way_ = 0;
  int64_t done_ = 0;
  int64_t failed_ = 0;
  bool cancelled_ = false;
  LoadRun run_;
};

Result<LoadRun> Generator::Run() {
  SWIFTKV_ASSIGN_OR_RETURN(endpoints_, Resolve(&context_, options_.server));
  run_.outcomes.resize(requests_.size());
  start_ = Clock::now();
  asio::co_spawn(context_, SendWhenDue(), asio::detached);
  if (options_.cancelled) asio::co_spawn(context_, WatchCancel(), asio::detached);
  context_.run();
  if (cancelled_) return MakeError(ErrorCode::kCancelled, "interrupted");
  return std::move(run_);
}

asio::awaitable<void> Generator::SendWhenDue() {
  asio::steady_timer timer(context_);
  for (size_t i = 0; i < requests_.size(); ++i) {
    const Clock::time_point due = start_ + ToDuration(requests_[i].arrival);
    if (due > Clock::now()) {
      ErrorValue ignored;
      timer.expires_at(due);
      co_await timer.async_wait(ErrorTo(ignored));
    }
    due_.push_back(i);
    StartDue();
  }
}

asio::awaitable<void> Generator::WatchCancel() {
  asio::steady_timer timer(context_);
  while (done_ < std::ssize(requests_)) {
    if (options_.cancelled()) {
      cancelled_ = true;
      context_.stop();
    }
    ErrorValue ignored;
    timer.expires_after(kCancelPoll);
    co_await timer.async_wait(ErrorTo(ignored));
  }
}

void Generator::StartDue() {
  while (!due_.empty() && (options_.max_concurrency == 0 || under_way_ < options_.max_concurrency)) {
    const size_t index = due_.front();
    due_.pop_front();
    run_.max_concurrent = std::max(run_.max_concurrent, ++under_way_);
    asio::co_spawn(context_, RunRequest(index), asio::detached);
  }
}

asio::awaitable<void> Generator::RunRequest(size_t index) {
  RequestOutcome& outcome = run_.outcomes[index];
  outcome.prompt_tokens = requests_[index].prompt_tokens;
  outcome.failure = co_await Exchange(index, &outcome);
  if (outcome.failure) ++failed_;
  ++done_;
  --under_way_;
  run_.duration = Seconds(Clock::now() - start_);
  if (options_.progress) options_.progress(done_, failed_);
  StartDue();
}

asio::awaitable<std::optional<RequestFailure>> Generator::Exchange(size_t index, RequestOutcome* outcome) {
  http::request<http::string_body> request = MakeRequest(http::verb::post, options_.endpoint, options_);
  request.set(http::field::content_type, "application/json");
  request.set(http::field::accept, "text/event-stream");
  request.body() = RequestBody(requests_[index], options_);
  request.prepare_payload();

  const Clock::time_point start = Clock::now();
  outcome->start = Seconds(start - start_);
  beast::tcp_stream stream(context_);
  stream.expires_after(ToDuration(options_.request_timeout));
  ErrorValue error;
  co_await stream.async_connect(endpoints_, ErrorTo(error));
  if (error) co_return FailureOf("connect", error);
  stream.socket().set_option(asio::ip::tcp::no_delay(true), error);
  co_await http::async_write(stream, request, ErrorTo(error));
  if (error) co_return FailureOf("send", error);
  co_return co_await ReadAnswer(&stream, start, outcome);
}

asio::awaitable<std::optional<RequestFailure>> Generator::ReadAnswer(beast::tcp_stream* stream, Clock::time_point start,
                                                                     RequestOutcome* outcome) {
  beast::flat_buffer buffer(kMaxHeaderBytes + kReadBytes);
  http::response_parser<http::buffer_body> parser;
  parser.header_limit(kMaxHeaderBytes);
  parser.body_limit(kMaxAnswerBytes);
  ErrorValue error;
  co_await http::async_read_header(*stream, buffer, parser, ErrorTo(error));
  if (error) co_return FailureOf("receive", error);
  const unsigned status = parser.get().result_int();
  const bool is_stream = status == 200 && parser.get()[http::field::content_type].starts_with("text/event-stream");

  CompletionStream answer(options_.keep_text);
  std::string other;  // the start of an answer that is no stream
  std::array<char, kReadBytes> bytes;
  while (!parser.is_done() && !answer.done()) {
    parser.get().body().data = bytes.data();
    parser.get().body().size = bytes.size();
    co_await http::async_read_some(*stream, buffer, parser, ErrorTo(error));
    if (error && error != http::error::need_buffer) co_return FailureOf("receive", error);
    const std::string_view piece(bytes.data(), bytes.size() - parser.get().body().size);
    if (!is_stream) {
      other.append(piece.substr(0, kMaxErrorBytes - other.size()));
      continue;
    }
    const Status read = answer.Push(piece, Seconds(Clock::now() - start));
    if (!read)
      co_return RequestFailure{read.error().code == ErrorCode::kIo ? "server error" : "malformed answer",
                               read.error().message};
  }
  if (status != 200) co_return RequestFailure{fmt::format("http {}", status), Printable(other)};
  if (!is_stream) co_return RequestFailure{"malformed answer", fmt::format("no event stream: {}", Printable(other))};
  if (const Status finished = answer.Finish(outcome); !finished) {
    co_return RequestFailure{"malformed answer", finished.error().message};
  }
  co_return std::nullopt;
}

asio::awaitable<void> FetchModels(asio::io_context* context, asio::ip::tcp::resolver::results_type endpoints,
                                  const LoadGeneratorOptions& options, http::response_parser<http::string_body>* parser,
                                  ErrorValue* error) {
  beast::tcp_stream stream(*context);
  stream.expires_after(kModelsTimeout);
  co_await stream.async_connect(endpoints, ErrorTo(*error));
  if (*error) co_return;
  const http::request<http::string_body> request = MakeRequest(http::verb::get, "/v1/models", options);
  co_await http::async_write(stream, request, ErrorTo(*error));
  if (*error) co_return;
  beast::flat_buffer buffer;
  parser->header_limit(kMaxHeaderBytes);
  parser->body_limit(kMaxModelsBytes);
  co_await http::async_read(stream, buffer, *parser, ErrorTo(*error));
}

}  // namespace

Result<ServerAddress> ParseBaseUrl(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return InvalidInput("{}: it must begin with http://", Printable(url));
  ServerAddress server;
  std::string rest = url.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  server.path = rest.substr(slash);
  while (server.path.ends_with('/')) server.path.pop_back();
  rest.resize(slash);
  // An IPv6 address stands in brackets.
  const size_t bracket = rest.starts_with('[') ? rest.find(']') : 0;
  const size_t colon = bracket == std::string::npos ? bracket : rest.find(':', bracket);
  server.port = colon == std::string::npos ? "80" : rest.substr(colon + 1);
  server.host = rest.substr(0, colon);
  if (server.host.starts_with('[') && server.host.ends_with(']')) {
    server.host = server.host.substr(1, server.host.size() - 2);
  }
  const bool is_number = !server.port.empty() && std::all_of(server.port.begin(), server.port.end(),
                                                             [](char c) { return c >= '0' && c <= '9'; });
  if (server.host.empty() || server.host.starts_with('[') || !is_number) {
    return InvalidInput("{}: it must be http://HOST:PORT, with a path if need be", Printable(url));
  }
  return server;
}

std::string RequestBody(const LoadRequest& request, const LoadGeneratorOptions& options) {
  Json body;
  if (!options.model.empty()) body["model"] = options.model;
  if (options.endpoint.ends_with("/chat/completions")) {
    body["messages"] = Json::array({{{"role", "user"}, {"content", request.prompt}}});
    body["max_completion_tokens"] = request.output_tokens;
  } else if (request.prompt.empty()) {
    body["prompt"] = request.prompt_token_ids;
  } else {
    body["prompt"] = request.prompt;
  }
  body["max_tokens"] = request.output_tokens;
  body["temperature"] = options.temperature;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (options.ignore_eos) body["ignore_eos"] = true;
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<LoadRun> RunLoad(const std::vector<LoadRequest>& requests, const LoadGeneratorOptions& options) {
  return Generator(requests, options).Run();
}

Result<std::string> AskModel(const LoadGeneratorOptions& options) {
  asio::io_context context{1};
  SWIFTKV_ASSIGN_OR_RETURN(const auto endpoints, Resolve(&context, options.server));
  http::response_parser<http::string_body> parser;
  ErrorValue error;
  asio::co_spawn(context, FetchModels(&context, endpoints, options, &parser, &error), asio::detached);
  context.run();
  const std::string origin = options.server.host + ":" + options.server.port + "/v1/models";
  if (error) return IoError("{}: {}", origin, error.message());
  if (const unsigned status = parser.get().result_int(); status != 200) {
    const std::string_view start = std::string_view(parser.get().body()).substr(0, kMaxErrorBytes);
    return IoError("{}: http {}: {} (--model NAME does without asking)", origin, status, Printable(start));
  }
  SWIFTKV_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(parser.get().body(), origin));
  const Json::json_pointer first_id("/data/0/id");
  if (!json.contains(first_id) || !json[first_id].is_string()) {
    return InvalidInput("{}: the answer names no model; give --model", origin);
  }
  return json[first_id].get<std::string>();
}

}  // namespace swiftkv
