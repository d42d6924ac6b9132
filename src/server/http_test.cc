#include "server/http.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

#include "server/test_client.h"

namespace swiftkv {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// Writes a key and a certificate that it has signed itself.
void WriteCertificate(const std::string& key_path, const std::string& certificate_path) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_sign(certificate, key, EVP_sha256());
  FILE* file = fopen(key_path.c_str(), "w");
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  fclose(file);
  file = fopen(certificate_path.c_str(), "w");
  PEM_write_X509(file, certificate);
  fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

// What comes back over TLS until the connection ends.
std::string TalkTls(uint16_t port, const std::string& request) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  BIO* bio = BIO_new_ssl_connect(context);
  BIO_set_conn_hostname(bio, ("127.0.0.1:" + std::to_string(port)).c_str());
  std::string answer;
  if (BIO_write(bio, request.data(), static_cast<int>(request.size())) > 0) {
    char bytes[4096];
    for (int count = 0; (count = BIO_read(bio, bytes, sizeof bytes)) > 0;)
      answer.append(bytes, static_cast<size_t>(count));
  }
  BIO_free_all(bio);
  SSL_CTX_free(context);
  return answer;
}

// A server whose paths behave in ways that tests need.
class HttpTest : public ::testing::Test {
 protected:
  HttpTest() {
    options_.make_error = [](int status, const std::string& message) {
      return HttpResponse{.status = status, .body = message};
    };
    options_.max_header_bytes = 4096;
    options_.max_body_bytes = 1 << 20;
  }

  void Start() {
    auto started = HttpServer::Start(
        options_, [this](HttpRequest request, HttpReplyPtr reply) { Handle(std::move(request), std::move(reply)); });
    ASSERT_TRUE(started) << started.error().message;
    server_ = std::move(*started);
  }

  void Handle(HttpRequest request, HttpReplyPtr reply) {
    if (request.path == "/drop") return;
    if (request.path == "/hold") {
      reply->OnGone([this] { ++gone_; });
      const std::lock_guard lock(mutex_);
      held_.push_back(std::move(reply));
      return;
    }
    if (request.path == "/flood") {
      reply->OnGone([this] { ++gone_; });
      reply->Begin({});
      for (int i = 0; i < 200 && gone_ == 0; ++i) reply->Write(std::string(100'000, 'x'));
      reply->End();
      return;
    }
    reply->Send({.body = request.method + " " + request.path + " " + request.body + " " +
                         std::string(request.Header("X-Test"))});
  }

  TestClient Connect() const { return TestClient(server_->port()); }

  // Waits for what other threads bring about.
  static bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 30'000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return false;
  }

  HttpReplyPtr Held() {
    const std::lock_guard lock(mutex_);
    return held_.empty() ? nullptr : held_.back();
  }

  HttpOptions options_;
  std::atomic<int> gone_ = 0;
  std::mutex mutex_;
  std::unique_ptr<HttpServer> server_;
  std::vector<HttpReplyPtr> held_;
};

TEST_F(HttpTest, AnswersManyRequestsOnOneConnection) {
  Start();
  TestClient client = Connect();
  const TestResponse first = client.Get("/a?query=1", "x-test: value\r\n");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.body, "GET /a  value");
  EXPECT_TRUE(first.Has("Connection: keep-alive"));
  EXPECT_EQ(client.Post("/b", "text").body, "POST /b text ");
  // Sent before the answers are read.
  client.Send("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.Read().body, "GET /1  ");
  EXPECT_EQ(client.Read().body, "GET /2  ");
  EXPECT_TRUE(client.IsClosed());
}

TEST_F(HttpTest, KnowsHeadChunksAndOldClients) {
  Start();
  TestClient client = Connect();
  client.Send("HEAD /a HTTP/1.1\r\n\r\n");
  const TestResponse head = client.Read(/*has_body=*/false);
  EXPECT_EQ(head.status, 200);
  EXPECT_TRUE(head.Has("Content-Length: 8\r\n"));
  client.Send("POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(client.Read().body, "POST /c abcde ");
  client.Send("GET /old HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(client.Read().Has("Connection: close"));
  EXPECT_TRUE(client.IsClosed());
}

TEST_F(HttpTest, AsksForTheBodyThatIsExpected) {
  Start();
  TestClient client = Connect();
  client.Send("POST /e HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Read(/*has_body=*/false).status, 100);
  client.Send("ok");
  EXPECT_EQ(client.Read().body, "POST /e ok ");
  client.Send("POST /e HTTP/1.1\r\nContent-Length: 2\r\nExpect: money\r\n\r\n");
  EXPECT_EQ(client.Read().status, 417);
}

TEST_F(HttpTest, EchoesPlainRequestIdsOnly) {
  Start();
  TestClient client = Connect();
  EXPECT_TRUE(client.Get("/", "X-Request-Id: run-7.a_B\r\n").Has("x-request-id: run-7.a_B\r\n"));
  EXPECT_FALSE(client.Get("/", "X-Request-Id: a b\r\n").Has("a b"));
  EXPECT_FALSE(client.Get("/", "X-Request-Id: " + std::string(200, 'a') + "\r\n").Has(std::string(20, 'a')));
}

TEST_F(HttpTest, RefusesWhatIsTooLargeOrNoHttp) {
  Start();
  EXPECT_EQ(Connect().Get("/" + std::string(10'000, 'a')).status, 431);
  EXPECT_EQ(Connect().Get("/", "X-Large: " + std::string(100'000, 'a') + "\r\n").status, 431);
  EXPECT_EQ(Connect().Post("/", std::string(2 << 20, 'a')).status, 413);
  for (const char* bytes :
       {"\r\n\r\n\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02garbage\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    TestClient client = Connect();
    client.Send(bytes);
    const int status = client.Read().status;
    EXPECT_TRUE(status == 400 || status == 413) << bytes << ": " << status;
    EXPECT_TRUE(client.IsClosed());
  }
  TestClient chunks = Connect();
  chunks.Send("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + std::string(0x200000, 'a'));
  EXPECT_EQ(chunks.Read().status, 413);
  EXPECT_EQ(Connect().Get("/after").status, 200);
}

TEST_F(HttpTest, BoundsTheBodiesOfAllRequestsTogether) {
  options_.max_bodies_bytes = 1'000'000;
  Start();
  std::optional<TestClient> half;
  // Either may be the one that finds no room; again, until it is the second.
  EXPECT_TRUE(Eventually([&] {
    half.emplace(Connect());
    half->Send("POST / HTTP/1.1\r\nContent-Length: 800000\r\n\r\n" + std::string(700'000, 'a'));
    return Connect().Post("/", std::string(500'000, 'b')).status == 503;
  }));
  half->Close();
  EXPECT_TRUE(Eventually([&] { return Connect().Post("/", std::string(500'000, 'b')).status == 200; }));
}

TEST_F(HttpTest, EndsThoseWhoSendTooSlowly) {
  options_.header_timeout = milliseconds(500);
  options_.body_timeout = milliseconds(500);
  options_.idle_timeout = milliseconds(1000);
  Start();
  TestClient header = Connect();
  header.Send("GET / HT");
  EXPECT_EQ(header.Read().status, 408);
  TestClient body = Connect();
  body.Send("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(body.Read().status, 408);
  TestClient idle = Connect();
  EXPECT_EQ(idle.Get("/").status, 200);
  EXPECT_TRUE(idle.IsClosed());
  EXPECT_TRUE(Connect().IsClosed());
}

TEST_F(HttpTest, NoticesAClientThatLeaves) {
  Start();
  TestClient client = Connect();
  client.Send("GET /hold HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return Held() != nullptr; }));
  client.Close();
  EXPECT_TRUE(Eventually([&] { return gone_ == 1; }));
  Held()->Send({.body = "too late"});
  EXPECT_EQ(Connect().Get("/").status, 200);
}

TEST_F(HttpTest, CutsOffASlowReaderAndNobodyElse) {
  options_.max_queued_bytes = 1 << 20;
  Start();
  TestClient slow(server_->port(), /*receive_buffer=*/4096);
  slow.Send("GET /flood HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(Eventually([&] { return gone_ == 1; }));
  EXPECT_EQ(Connect().Get("/").status, 200);
}

TEST_F(HttpTest, SendsABurstToAClientThatReads) {
  Start();
  EXPECT_EQ(Connect().Get("/flood").body.size(), 20'000'000u);
  EXPECT_EQ(gone_, 0);
}

TEST_F(HttpTest, CutsOffAClientThatStaysBehind) {
  options_.max_backlog_bytes = 64 << 10;
  options_.write_timeout = milliseconds(1000);
  Start();
  TestClient slow(server_->port(), /*receive_buffer=*/4096);
  slow.Send("GET /hold HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return Held() != nullptr; }));
  Held()->Begin({.body = std::string(60 << 20, 'x')});
  // It always reads something, but never all but the last 64 KiB.
  EXPECT_TRUE(Eventually([&] {
    slow.ReadMore();
    Held()->Write("more");
    return gone_ == 1;
  }));
  EXPECT_EQ(Connect().Get("/").status, 200);
}

TEST_F(HttpTest, RefusesByTheHeader) {
  options_.refuse = [](const HttpRequest& head) {
    EXPECT_EQ(head.body, "");
    return head.path == "/no" ? std::optional(HttpResponse{.status = 401, .body = head.id}) : std::nullopt;
  };
  options_.max_bodies_bytes = 100'000;
  Start();
  // Bodies that never come take nothing from those that do.
  std::vector<TestClient> idle;
  for (int i = 0; i < 4; ++i) {
    idle.push_back(Connect());
    idle.back().Send("POST /no HTTP/1.1\r\nContent-Length: 90000\r\nx-request-id: mine\r\n\r\n" +
                     std::string(80'000, 'a'));
    const TestResponse refused = idle.back().Read();
    EXPECT_EQ(refused.status, 401);
    EXPECT_EQ(refused.body, "mine");
    EXPECT_TRUE(refused.Has("Connection: close"));
  }
  EXPECT_EQ(Connect().Post("/", std::string(90'000, 'b')).status, 200);
  // Behind a small one the connection goes on.
  TestClient client = Connect();
  EXPECT_EQ(client.Post("/no", "small").status, 401);
  EXPECT_EQ(client.Get("/no").status, 401);
  EXPECT_EQ(client.Post("/yes", "small").body, "POST /yes small ");
}

TEST_F(HttpTest, CutsOffAClientThatReadsNothing) {
  options_.write_timeout = milliseconds(200);
  options_.max_queued_bytes = 64 << 20;
  Start();
  TestClient slow(server_->port(), /*receive_buffer=*/4096);
  slow.Send("GET /hold HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return Held() != nullptr; }));
  Held()->Begin({.body = std::string(20 << 20, 'x')});
  EXPECT_TRUE(Eventually([&] { return gone_ == 1; }));
}

TEST_F(HttpTest, StreamsPieces) {
  Start();
  TestClient client = Connect();
  client.Send("GET /hold HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return Held() != nullptr; }));
  Held()->Begin({.content_type = "text/event-stream"});
  Held()->Write("one ");
  EXPECT_TRUE(client.ReadUntil("one "));
  Held()->Write("two");
  Held()->End();
  Held()->Write("after the end");
  EXPECT_EQ(client.Read().body, "one two");
  EXPECT_EQ(client.Get("/next").status, 200);
  EXPECT_EQ(gone_, 0);
}

TEST_F(HttpTest, AnswersForAHandlerThatForgot) {
  Start();
  TestClient client = Connect();
  EXPECT_EQ(client.Get("/drop").status, 500);
  EXPECT_EQ(client.Get("/").status, 200);
}

TEST_F(HttpTest, HoldsManyConnectionsAndNoMore) {
  options_.max_connections = 300;
  Start();
  std::vector<TestClient> clients;
  for (int i = 0; i < 300; ++i) clients.push_back(Connect());
  EXPECT_TRUE(Eventually([&] { return server_->connections() == 300; }));
  for (TestClient& client : clients) EXPECT_EQ(client.Get("/").status, 200);
  EXPECT_EQ(Connect().Read().status, 503);
  clients.pop_back();
  EXPECT_TRUE(Eventually([&] { return Connect().Get("/").status == 200; }));
}

TEST_F(HttpTest, StopLetsTheReplyUnderWayGoOut) {
  Start();
  TestClient busy = Connect();
  busy.Send("GET /hold HTTP/1.1\r\n\r\n");
  TestClient idle = Connect();
  EXPECT_EQ(idle.Get("/").status, 200);
  ASSERT_TRUE(Eventually([&] { return Held() != nullptr; }));
  std::thread answer([&] {
    std::this_thread::sleep_for(milliseconds(100));
    Held()->Send({.body = "the last one"});
  });
  server_->Stop(std::chrono::seconds(30));
  answer.join();
  EXPECT_EQ(busy.Read().body, "the last one");
  EXPECT_TRUE(idle.IsClosed());
}

TEST_F(HttpTest, StopDoesNotWaitForever) {
  Start();
  TestClient busy = Connect();
  busy.Send("GET /hold HTTP/1.1\r\n\r\n");
  ASSERT_TRUE(Eventually([&] { return Held() != nullptr; }));
  server_->Stop(milliseconds(50));
  EXPECT_EQ(gone_, 1);
  Held()->Send({.body = "nobody is there"});
}

TEST_F(HttpTest, ListensOnAUnixSocket) {
  options_.uds = std::filesystem::temp_directory_path() / ("swiftkv-http-test-" + std::to_string(getpid()));
  Start();
  EXPECT_EQ(TestClient(options_.uds).Get("/u").body, "GET /u  ");
  EXPECT_FALSE(HttpServer::Start(options_, nullptr));  // somebody listens there
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(options_.uds));
}

TEST_F(HttpTest, SpeaksTls) {
  const std::string base = std::filesystem::temp_directory_path() / ("swiftkv-http-test-" + std::to_string(getpid()));
  options_.ssl_keyfile = base + ".key";
  options_.ssl_certfile = base + ".cert";
  options_.header_timeout = milliseconds(500);
  WriteCertificate(options_.ssl_keyfile, options_.ssl_certfile);
  Start();
  EXPECT_THAT(server_->address(), HasSubstr("https://"));
  TestClient plain = Connect();
  plain.Send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(plain.IsClosed());
  EXPECT_TRUE(Connect().IsClosed());  // never shakes hands
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(TalkTls(server_->port(), "GET /tls HTTP/1.1\r\nConnection: close\r\n\r\n"), HasSubstr("GET /tls  "));
  }
  std::filesystem::remove(options_.ssl_keyfile);
  std::filesystem::remove(options_.ssl_certfile);
}

TEST_F(HttpTest, SaysWhyItCannotStart) {
  Start();
  HttpOptions taken = options_;
  taken.port = server_->port();
  EXPECT_THAT(HttpServer::Start(taken, nullptr).error().message, HasSubstr("can't listen on"));
  HttpOptions nowhere = options_;
  nowhere.host = "no such host";
  EXPECT_THAT(HttpServer::Start(nowhere, nullptr).error().message, HasSubstr("--host no such host"));
  HttpOptions half_tls = options_;
  half_tls.ssl_certfile = "cert.pem";
  EXPECT_THAT(HttpServer::Start(half_tls, nullptr).error().message, HasSubstr("belong together"));
  half_tls.ssl_keyfile = "key.pem";
  EXPECT_THAT(HttpServer::Start(half_tls, nullptr).error().message, HasSubstr("cert.pem"));
}

}  // namespace
}  // namespace swiftkv
