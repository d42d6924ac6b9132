#include "server/access.h"

#include <gtest/gtest.h>

#include "server/server_fixture.h"

namespace swiftkv {
namespace {

// DNS rebinding: a page's own name leads to 127.0.0.1.
TEST_F(ServerTest, RefusesPagesThatCallItByTheirOwnName) {
  const auto status = [&](const std::string& path, const std::string& host,
                          const std::string& header = "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n") {
    TestClient client = Connect();
    client.Send("GET " + path + " HTTP/1.1\r\n" + (host.empty() ? "" : "Host: " + host + "\r\n") + header + "\r\n");
    return client.Read().status;
  };
  options_.allowed_origins = {"https://chat.example:8443"};
  Start();
  for (const char* host : {"", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "localhost", "LOCALHOST:8000",
                           "chat.localhost", "chat.example", "chat.example:8000"}) {
    EXPECT_EQ(status("/v1/models", host), 200) << host;
  }
  for (const char* host : {"evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example",
                           "evillocalhost", "[evil]", "["}) {
    EXPECT_EQ(status("/v1/models", host), 403) << host;
    EXPECT_EQ(status("/nowhere", host), 403) << host;
    EXPECT_EQ(status("/health", host), 200) << host;
    EXPECT_EQ(status("/v1/models", host, "Origin: http://evil.example\r\n"), 403) << host;
    EXPECT_EQ(status("/v1/models", host, "User-Agent: curl/8\r\n"), 200) << "no browser sent it";
  }
  options_.allowed_origins = {"*"};
  Start();
  EXPECT_EQ(status("/v1/models", "evil.example"), 200);
  options_.allowed_origins = {};
  options_.api_keys = {"secret"};
  Start();
  EXPECT_EQ(status("/v1/models", "evil.example"), 401);
}

}  // namespace
}  // namespace swiftkv
