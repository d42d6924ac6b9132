// What the server does where a large allocation fails: it refuses one request, and goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/allocation_limit.h"
#include "server/server_fixture.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;

class OutOfMemoryTest : public ServerTest {
 protected:
  ~OutOfMemoryTest() override { allocation_limit = kNoAllocationLimit; }
};

TEST_F(OutOfMemoryTest, EndsTheRequestAlone) {
  Start();
  // The answer's text is larger than the limit, what it is made of smaller.
  Json body = {{"prompt", std::string(500, 'a')}, {"max_tokens", 1}, {"prompt_logprobs", 20}};
  EXPECT_EQ(Post("/v1/completions", body).status, 200);
  allocation_limit = 256 << 10;
  const TestResponse response = Post("/v1/completions", body);
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("not enough memory"));
  body["stream"] = true;
  const std::vector<Json> events = Events(Post("/v1/completions", body));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_THAT(events[0]["error"]["message"].get<std::string>(), HasSubstr("not enough memory"));
  EXPECT_EQ(Post("/tokenize", {{"prompt", std::string(100'000, 'a')}}).status, 503);
  allocation_limit = kNoAllocationLimit;
  EXPECT_EQ(Events(Post("/v1/completions", body)).size(), 1u);
  body["stream"] = false;
  EXPECT_EQ(Post("/v1/completions", body).status, 200);
  EXPECT_TRUE(Eventually([&] { return server_->idle(); }));
}

TEST_F(OutOfMemoryTest, AcceptsAfterAConnectionForWhichThereWasNone) {
  Start();
  allocation_limit = 16 << 10;  // a connection has a buffer of that size
  EXPECT_TRUE(Connect().IsClosed());
  allocation_limit = kNoAllocationLimit;
  EXPECT_EQ(Connect().Get("/health").status, 200);
}

}  // namespace
}  // namespace swiftkv
