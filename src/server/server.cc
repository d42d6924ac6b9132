#include "server/server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/string.hpp>
#include <charconv>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/printable.h"
#include "grammar/grammar_cache.h"
#include "grammar/token_trie.h"
#include "server/access.h"
#include "server/generation.h"
#include "server/metrics.h"
#include "server/openai_request.h"
#include "server/openai_response.h"
#include "server/page.h"
#include "text/conversation.h"

namespace swiftkv {
namespace {

using Json = nlohmann::ordered_json;

// Templates and tokenizers of large prompts run here. Two: one long one does not hold up all others.
constexpr int kAsideThreads = 2;
// A template is the model's and trusted not to be malicious; what clients put into it is not trusted to be small.
constexpr TemplateLimits kTemplateLimits = {
    .steps = 5'000'000, .output_bytes = 64ll << 20, .memory_bytes = 256ll << 20};
constexpr std::string_view kModelPath = "/v1/models/";  // and the model's name
constexpr std::string_view kPagePolicy =
    "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

// Whether the body says that it is JSON. Web pages of other origins can send other types without asking first.
bool IsJson(const HttpRequest& request) {
  std::string_view type = request.Header("Content-Type");
  type = type.substr(0, type.find_first_of("; "));
  return boost::beast::iequals(type, "application/json");
}

// Whether the header announces a body.
bool HasBody(const HttpRequest& request) {
  const std::string_view length = request.Header("Content-Length");
  return !request.Header("Transfer-Encoding").empty() || (!length.empty() && length != "0");
}

// A piece of a URL's path with "%2F" as "/"; what is no such sequence stays.
std::string PercentDecoded(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    const char* const digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() && std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      decoded += static_cast<char>(byte);
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

// Adds the same headers to whatever the answer is.
class ReplyWithHeaders final : public HttpReply {
 public:
  ReplyWithHeaders(HttpReplyPtr reply, std::vector<HttpHeader> headers)
      : reply_(std::move(reply)), headers_(std::move(headers)) {}
  void Send(HttpResponse response) override { reply_->Send(Extended(std::move(response))); }
  void Begin(HttpResponse head) override { reply_->Begin(Extended(std::move(head))); }
  void Write(std::string piece) override { reply_->Write(std::move(piece)); }
  void End() override { reply_->End(); }
  void Post(std::function<void()> work) override { reply_->Post(std::move(work)); }
  void OnGone(std::function<void()> callback) override { reply_->OnGone(std::move(callback)); }

 private:
  HttpResponse Extended(HttpResponse response) const {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    return response;
  }

  HttpReplyPtr reply_;
  std::vector<HttpHeader> headers_;
};

}  // namespace

class Server::Impl {
 public:
  explicit Impl(ServerOptions options)
      : options_(std::move(options)),
        keys_(options_.api_keys),
        metrics_(options_.served_model_names.front()),
        aside_(kAsideThreads) {
    context_ = {.metrics = &metrics_,
                .model_names = options_.served_model_names,
                .request_timeout_s = options_.request_timeout_s,
                .run_aside = [this](auto work, auto failed) { RunAside(std::move(work), std::move(failed)); }};
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { Stop({}); }

  Status Listen() {
    for (const std::string& key : options_.api_keys) {
      if (key.empty()) return InvalidInput("--api-key: the key is empty");
    }
    HttpOptions http = options_.http;
    http.refuse = [this](const HttpRequest& head) { return RefuseHead(head); };
    http.make_error = [](int status, const std::string& message) { return ErrorResponse(status, message); };
    SWIFTKV_ASSIGN_OR_RETURN(http_, HttpServer::Start(std::move(http), [this](HttpRequest request, HttpReplyPtr reply) {
                               Handle(std::move(request), std::move(reply));
                             }));
    return Ok();
  }

  Status Serve(const LoadedModel& model, const AsyncEngineOptions& options) {
    SWIFTKV_ASSIGN_OR_RETURN(engine_, AsyncEngine::Start(model.weights, model.mode, model.text.tokenizer.get(), options,
                                                         [this](int64_t tokens) { metrics_.ObserveStep(tokens); }));
    if (const auto& chat_template = model.text.chat_template; !chat_template) {
      spdlog::warn("conversations will be refused: {}", chat_template.error().message);
    }
    context_.model = &model;
    context_.engine = engine_.get();
    serving_ = true;
    return Ok();
  }

  // In the order of use, so that nobody finds the other gone.
  void Stop(std::chrono::milliseconds grace) {
    if (http_) http_->Stop(grace);
    stopped_ = true;
    aside_.join();
  }

  AsyncEngine& engine() { return *engine_; }
  HttpServer& http() { return *http_; }

 private:
  // A handler answers at once, on an I/O thread, or, with `aside`, on one of the threads for long work.
  using Handler = void (Impl::*)(const HttpRequest& request, const HttpReplyPtr& reply);
  struct Route {
    std::string_view path;
    std::string_view method;
    Handler handler;
    bool aside = false;
    bool open = false;        // needs no key
    bool needs_model = true;  // cannot answer before Serve
  };

  // A path's route; null if there is nothing.
  static const Route* FindRoute(const std::string& path) {
    static constexpr std::array<Route, 10> kRoutes = {{
        {"/v1/completions", "POST", &Impl::Completions, true},
        {"/v1/chat/completions", "POST", &Impl::ChatCompletions, true},
        {"/v1/models", "GET", &Impl::Models},
        {"/tokenize", "POST", &Impl::Tokenize, true},
        {"/detokenize", "POST", &Impl::Detokenize, true},
        {"/health", "GET", &Impl::Health, false, true, false},
        {"/ready", "GET", &Impl::Ready, false, true},
        {"/metrics", "GET", &Impl::MetricsText},
        {"/openapi.json", "GET", &Impl::OpenApi, false, false, false},
        {"/", "GET", &Impl::Page, false, false, false},
    }};
    static constexpr Route kModelRoute = {kModelPath, "GET", &Impl::OneModel};
    if (path.starts_with(kModelPath)) return &kModelRoute;
    const auto* const found =
        std::find_if(kRoutes.begin(), kRoutes.end(), [&](const Route& route) { return route.path == path; });
    return found == kRoutes.end() ? nullptr : found;
  }

  std::optional<HttpResponse> RefuseHead(const HttpRequest& head) const {
    std::optional<HttpResponse> refusal = Refuse(FindRoute(head.path), head);
    if (!refusal) return std::nullopt;
    spdlog::info("request={} status={} method={} path={}", head.id, refusal->status, Printable(head.method),
                 Printable(head.path));
    const std::vector<HttpHeader> headers = CorsHeaders(options_.allowed_origins, head);
    refusal->headers.insert(refusal->headers.end(), headers.begin(), headers.end());
    return refusal;
  }

  // A request that RefuseHead has let through.
  void Handle(HttpRequest request, HttpReplyPtr reply) {
    if (auto headers = CorsHeaders(options_.allowed_origins, request); !headers.empty()) {
      reply = std::make_shared<ReplyWithHeaders>(std::move(reply), std::move(headers));
    }
    const Route* route = FindRoute(request.path);
    if (!route->aside) {
      (this->*route->handler)(request, reply);
      return;
    }
    const auto failed = [id = request.id, reply] {
      spdlog::info("request={} status=503 error=\"out of memory\"", id);
      reply->Send(OutOfMemoryResponse());
    };
    const auto gone = std::make_shared<std::atomic<bool>>(false);
    reply->OnGone([gone] { *gone = true; });
    RunAside(
        [this, route, request = std::move(request), reply, gone] {
          if (*gone) {
            spdlog::info("request={} path={} error=\"the client went away\"", request.id, request.path);
          } else {
            (this->*route->handler)(request, reply);
          }
        },
        failed);
  }

  void RunAside(std::function<void()> work, std::function<void()> failed) {
    boost::asio::post(aside_, [this, work = std::move(work), failed = std::move(failed)] {
      if (stopped_) return;
      try {
        work();
      } catch (const std::exception& error) {  // out of memory; the pool would end the process
        spdlog::error("a thread for long work goes on after: {}", error.what());
        failed();
      }
    });
  }

  // What is wrong with a request before anybody looks into its body; nullopt if nothing is.
  std::optional<HttpResponse> Refuse(const Route* route, const HttpRequest& request) const {
    const bool is_open = route != nullptr && route->open;
    if (!is_open && options_.api_keys.empty() && request.on_loopback &&
        IsRebound(request, options_.http.host, options_.allowed_origins)) {
      return ErrorResponse(403, "the Host is no name of this machine; --allowed-origins or --api-key lets it in");
    }
    const bool is_preflight = request.method == "OPTIONS";
    if (!is_preflight && !is_open && !keys_.Allows(request)) {
      HttpResponse response = ErrorResponse(401, "a valid API key is needed", "", "invalid_api_key");
      // A browser asks its user for the key of the page.
      response.headers.push_back({"WWW-Authenticate", request.path == "/" ? "Basic realm=\"swiftkv\"" : "Bearer"});
      return response;
    }
    if (route == nullptr) return ErrorResponse(404, "there is nothing at this path");
    const std::string allow = std::string(route->method == "GET" ? "GET, HEAD" : route->method) + ", OPTIONS";
    if (is_preflight) return HttpResponse{.status = 204, .headers = {{"Allow", allow}}};
    if (request.method != route->method) {
      HttpResponse response = ErrorResponse(405, "this path answers to " + allow);
      response.headers.push_back({"Allow", allow});
      return response;
    }
    if (route->method == "GET" && HasBody(request)) return ErrorResponse(413, "this path takes no body");
    if (route->method == "POST" && !IsJson(request)) return ErrorResponse(415, "the body must be application/json");
    if (route->needs_model && !serving_) return ErrorResponse(503, "the model is still being loaded");
    return std::nullopt;
  }

  void Refuse(const HttpRequest& request, const HttpReplyPtr& reply, const HttpResponse& response,
              const std::string& message) const {
    spdlog::info("request={} status={} path={} error={}", request.id, response.status, request.path, LogValue(message));
    reply->Send(response);
  }
  void Refuse(const HttpRequest& request, const HttpReplyPtr& reply, const Error& error) const {
    Refuse(request, reply, ErrorResponse(error), error.message);
  }

  // False, and answered, if another model is meant than the one that is served.
  bool CheckModel(const std::string& name, const HttpRequest& request, const HttpReplyPtr& reply) const {
    const auto& names = context_.model_names;
    if (name.empty() || std::find(names.begin(), names.end(), name) != names.end()) return true;
    const std::string message = fmt::format("the model \"{}\" is not served here", Printable(name));
    Refuse(request, reply, ErrorResponse(404, message, "model", "model_not_found"), message);
    return false;
  }

  Result<std::string> Render(const Conversation& conversation) const {
    const TextModel& text = context_.model->text;
    if (!text.chat_template) return InvalidInput("messages need a chat template; this model has none that can be used");
    RenderOptions options;
    options.limits = kTemplateLimits;
    options.origin = "chat template";
    Result<std::string> rendered = RenderConversation(*text.chat_template, *text.tokenizer, *conversation.messages,
                                                      *conversation.variables, options);
    // Not for want of anything that might be there later: the same request would meet the same limit again.
    if (!rendered && rendered.error().code == ErrorCode::kResourceExhausted) {
      return InvalidInput("{}", rendered.error().message);
    }
    return rendered;
  }

  // Refuses a text that can't fit without making tokens of it, which takes seconds where it is large.
  Status CheckLength(const std::string& text) const {
    const size_t tokens = context_.model->text.tokenizer->MinTokens(text);
    if (tokens <= static_cast<size_t>(engine_->max_model_len())) return Ok();
    return InvalidInput("the prompt has {} bytes, at least {} tokens; the context holds {}", text.size(), tokens,
                        engine_->max_model_len());
  }

  void RefuseLength(const HttpRequest& request, const HttpReplyPtr& reply, const char* param,
                    const Error& error) const {
    Refuse(request, reply, ErrorResponse(error, param, "context_length_exceeded"), error.message);
  }

  Status Constrain(GenerationRequest* request) {
    if (request->format.kind == OutputFormat::Kind::kText) return Ok();
    SWIFTKV_ASSIGN_OR_RETURN(GrammarCache* const grammars, Grammars());
    auto constraint = request->format.kind == OutputFormat::Kind::kJsonObject
                          ? grammars->JsonObject()
                          : grammars->JsonSchema(request->format.schema);
    if (!constraint) return InvalidInput("{} can't be kept: {}", request->format.field, constraint.error().message);
    request->constraint = std::move(*constraint);
    return Ok();
  }

  // Made by the first request that needs it.
  Result<GrammarCache*> Grammars() {
    const std::lock_guard lock(grammars_mutex_);
    if (!grammars_) {
      const LoadedModel& model = *context_.model;
      SWIFTKV_ASSIGN_OR_RETURN(auto trie, TokenTrie::Create(*model.text.tokenizer, model.weights.config.vocab_size));
      grammars_.emplace(std::move(trie));
    }
    return &*grammars_;
  }

  void Completions(const HttpRequest& request, const HttpReplyPtr& reply) {
    Result<GenerationRequest> parsed = ParseCompletionRequest(request.body);
    if (!parsed) return Refuse(request, reply, parsed.error());
    if (!CheckModel(parsed->model, request, reply)) return;
    if (Status status = Constrain(&*parsed); !status) return Refuse(request, reply, status.error());
    std::vector<std::vector<int32_t>> prompts;
    for (const Prompt& prompt : parsed->prompts) {
      const auto* text = std::get_if<std::string>(&prompt);
      if (text == nullptr) {
        prompts.push_back(std::get<1>(prompt));
        continue;
      }
      if (Status status = CheckLength(*text); !status) return RefuseLength(request, reply, "prompt", status.error());
      prompts.push_back(
          context_.model->text.tokenizer->Encode(*text, {.add_special_tokens = parsed->add_special_tokens}));
    }
    StartGeneration(context_, std::move(*parsed), std::move(prompts), request.id, reply);
  }

  void ChatCompletions(const HttpRequest& request, const HttpReplyPtr& reply) {
    Result<GenerationRequest> parsed = ParseChatRequest(request.body);
    if (!parsed) return Refuse(request, reply, parsed.error());
    if (!CheckModel(parsed->model, request, reply)) return;
    if (Status status = Constrain(&*parsed); !status) return Refuse(request, reply, status.error());
    const Result<std::string> text = Render(parsed->conversation);
    if (!text) return Refuse(request, reply, text.error());
    if (Status status = CheckLength(*text); !status) return RefuseLength(request, reply, "messages", status.error());
    std::vector<int32_t> prompt =
        context_.model->text.tokenizer->Encode(*text, {.add_special_tokens = parsed->add_special_tokens});
    StartGeneration(context_, std::move(*parsed), {std::move(prompt)}, request.id, reply);
  }

  void Tokenize(const HttpRequest& request, const HttpReplyPtr& reply) {
    Result<TokenizeRequest> parsed = ParseTokenizeRequest(request.body);
    if (!parsed) return Refuse(request, reply, parsed.error());
    if (!CheckModel(parsed->model, request, reply)) return;
    Result<std::string> text = std::move(parsed->prompt);
    if (parsed->conversation.messages) text = Render(parsed->conversation);
    if (!text) return Refuse(request, reply, text.error());
    const Tokenizer& tokenizer = *context_.model->text.tokenizer;
    const std::vector<int32_t> ids = tokenizer.Encode(*text, {.add_special_tokens = parsed->add_special_tokens});
    Json answer = {{"count", ids.size()}, {"max_model_len", engine_->max_model_len()}, {"tokens", ids}};
    answer["token_strs"] = nullptr;
    if (parsed->return_token_strs) {
      Json& spellings = answer["token_strs"] = Json::array();
      for (const int32_t id : ids) spellings.push_back(tokenizer.IdToToken(id));
    }
    reply->Send(JsonResponse(answer));
  }

  void Detokenize(const HttpRequest& request, const HttpReplyPtr& reply) {
    const Result<DetokenizeRequest> parsed = ParseDetokenizeRequest(request.body);
    if (!parsed) return Refuse(request, reply, parsed.error());
    if (!CheckModel(parsed->model, request, reply)) return;
    const Tokenizer& tokenizer = *context_.model->text.tokenizer;
    for (const int32_t id : parsed->tokens) {
      if (id >= 0 && id < tokenizer.vocab_size()) continue;
      const Error error = {ErrorCode::kInvalidInput,
                           fmt::format("tokens holds {}; the vocabulary has 0 to {}", id, tokenizer.vocab_size() - 1)};
      return Refuse(request, reply, error);
    }
    reply->Send(JsonResponse({{"prompt", tokenizer.Decode(parsed->tokens, {.skip_special_tokens = false})}}));
  }

  Json ModelJson(const std::string& name) const {
    return {{"id", name},
            {"object", "model"},
            {"created", created_},
            {"owned_by", "swiftkv"},
            {"root", context_.model_names.front()},
            {"parent", nullptr},
            {"max_model_len", engine_->max_model_len()}};
  }

  void Models(const HttpRequest&, const HttpReplyPtr& reply) {
    Json list = Json::array();
    for (const std::string& name : context_.model_names) list.push_back(ModelJson(name));
    reply->Send(JsonResponse({{"object", "list"}, {"data", std::move(list)}}));
  }

  void OneModel(const HttpRequest& request, const HttpReplyPtr& reply) {
    const std::string name = PercentDecoded(request.path.substr(kModelPath.size()));
    if (name.empty()) return Models(request, reply);
    if (CheckModel(name, request, reply)) reply->Send(JsonResponse(ModelJson(name)));
  }

  void Health(const HttpRequest&, const HttpReplyPtr& reply) { reply->Send(JsonResponse({{"status", "alive"}})); }

  void Ready(const HttpRequest&, const HttpReplyPtr& reply) {
    reply->Send(engine_->draining() ? ErrorResponse(503, "the server is shutting down")
                                    : JsonResponse({{"status", "ready"}}));
  }

  void MetricsText(const HttpRequest&, const HttpReplyPtr& reply) {
    reply->Send({.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics_.Text(engine_->stats())});
  }

  void OpenApi(const HttpRequest&, const HttpReplyPtr& reply) {
    reply->Send({.content_type = "application/json", .body = std::string(kOpenApiJson)});
  }

  void Page(const HttpRequest&, const HttpReplyPtr& reply) {
    reply->Send({.content_type = "text/html; charset=utf-8",
                 .body = std::string(kPageHtml),
                 .headers = {{"Content-Security-Policy", std::string(kPagePolicy)},
                             {"X-Content-Type-Options", "nosniff"},
                             {"Referrer-Policy", "no-referrer"}}});
  }

  ServerOptions options_;
  ApiKeys keys_;
  ServerMetrics metrics_;
  boost::asio::thread_pool aside_;
  std::atomic<bool> stopped_ = false;  // nobody waits for what aside_ has yet to do
  std::mutex grammars_mutex_;
  std::optional<GrammarCache> grammars_;  // guarded by grammars_mutex_
  ServerContext context_;
  std::atomic<bool> serving_ = false;  // set once the context is whole
  int64_t created_ =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  // The engine goes before the connections whose replies its last events want.
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<AsyncEngine> engine_;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Listen(ServerOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  SWIFTKV_RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Status Server::Serve(const LoadedModel& model, const AsyncEngineOptions& options) {
  return impl_->Serve(model, options);
}
void Server::Drain() { impl_->engine().Drain(); }
bool Server::idle() const { return impl_->engine().idle(); }
void Server::Stop(std::chrono::milliseconds grace) { impl_->Stop(grace); }
uint16_t Server::port() const { return impl_->http().port(); }
std::string Server::address() const { return impl_->http().address(); }
int Server::connections() const { return impl_->http().connections(); }
EngineStats Server::stats() const { return impl_->engine().stats(); }

}  // namespace swiftkv
