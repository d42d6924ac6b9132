// `swiftkv serve` as a process: start, signals, exit codes. What it answers is tested in src/server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "e2e/process.h"
#include "e2e/tiny_model.h"
#include "server/test_client.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;

class ServeTest : public ::testing::Test {
 protected:
  ServeTest()
      : folder_(std::filesystem::temp_directory_path() / ("swiftkv-serve-test-" + std::to_string(getpid()))),
        model_(WriteTinyModel(folder_)) {}
  ~ServeTest() override {
    if (listener_ >= 0) close(listener_);
    std::filesystem::remove_all(folder_);
  }

  // A port on which somebody listens as long as the test runs.
  int TakenPort() {
    sockaddr_in address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(bind(listener_, any, size), 0);
    EXPECT_EQ(listen(listener_, 1), 0);
    EXPECT_EQ(getsockname(listener_, any, &size), 0);
    return ntohs(address.sin_port);
  }

  std::string folder_;
  std::string model_;
  int listener_ = -1;
};

TEST_F(ServeTest, StartsAndEndsWithASignal) {
  for (const int signal : {SIGTERM, SIGINT}) {
    const ProcessResult result = RunSwiftKv({"serve", model_, "--port", "0", "--served-model-name", "tiny"},
                                            {.signal_after_error = signal, .error_text = "ready at"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, HasSubstr("info ready at http://127.0.0.1:"));
    EXPECT_THAT(result.err, HasSubstr("tiny in mode base, context 512 tokens"));
    EXPECT_THAT(result.err, HasSubstr("shutting down"));
    EXPECT_EQ(result.out, "");
  }
}

// The answer is ready when the signal comes, and its client takes its time to read it.
TEST_F(ServeTest, AnswersReachSlowClientsBehindASignal) {
  const int port = TakenPort();
  close(std::exchange(listener_, -1));
  TestResponse answer;
  std::jthread slow([&] {
    const auto is_ready = [&] { return TestClient(static_cast<uint16_t>(port)).Get("/ready").status == 200; };
    for (int i = 0; i < 3000 && !is_ready(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    TestClient client(static_cast<uint16_t>(port), 4096);
    const nlohmann::json body = {{"prompt", std::string(500, 'a')},
                                 {"max_tokens", 0},
                                 {"echo", true},
                                 {"logprobs", 20},
                                 {"n", 20}};  // more than a socket holds
    client.SendPost("/v1/completions", body.dump());
    client.ReadUntil("\r\n\r\n");
    std::this_thread::sleep_for(std::chrono::seconds(4));
    answer = client.Read();
  });
  const ProcessResult result = RunSwiftKv({"serve", model_, "--port", std::to_string(port)},
                                          {.signal_after_error = SIGTERM, .error_text = "status=200 kind=completion"});
  slow.join();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  ASSERT_EQ(answer.status, 200);
  EXPECT_EQ(nlohmann::json::parse(answer.body)["choices"].size(), 20u);
}

TEST_F(ServeTest, FlagsComeFromAFileToo) {
  const std::string file = folder_ + "/serve.yaml";
  std::ofstream(file) << "model: " << model_ << "\nport: 0\nserved_model_name: [from-file]\nmax-model-len: 256\n";
  const ProcessResult result = RunSwiftKv({"serve", "--config", file, "--max-model-len", "128", "--block-size", "16"},
                                          {.signal_after_error = SIGTERM, .error_text = "ready at"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("from-file in mode base, context 128 tokens"));
  std::ofstream(file, std::ios::app) << "ports: 3\n";
  const ProcessResult unknown = RunSwiftKv({"serve", "--config", file});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("serve.yaml:5: ports is no flag"));
}

TEST_F(ServeTest, SaysWhyItCannotStart) {
  const ProcessResult port = RunSwiftKv({"serve", model_, "--port", "99999"});
  EXPECT_EQ(port.exit_code, 2);
  EXPECT_THAT(port.err, HasSubstr("99999 not in range 0 to 65535"));
  const ProcessResult block = RunSwiftKv({"serve", model_, "--port", "0", "--block-size", "32"});
  EXPECT_EQ(block.exit_code, 2);
  EXPECT_THAT(block.err, HasSubstr("32: the K/V cache has blocks of 16 tokens"));

  const ProcessResult tls = RunSwiftKv({"serve", model_, "--port", "0", "--ssl-certfile", "cert.pem"});
  EXPECT_EQ(tls.exit_code, 2);
  EXPECT_THAT(tls.err, HasSubstr("belong together"));
  const ProcessResult key = RunSwiftKv({"serve", model_, "--port", "0", "--api-key", ""});
  EXPECT_EQ(key.exit_code, 2);
  EXPECT_THAT(key.err, HasSubstr("the key is empty"));
  const ProcessResult variable = RunSwiftKv({"serve", model_, "--port", "0"}, {.environment = {"SWIFTKV_API_KEY="}});
  EXPECT_EQ(variable.exit_code, 2);
  EXPECT_THAT(variable.err, HasSubstr("SWIFTKV_API_KEY is empty"));
  const ProcessResult host = RunSwiftKv({"serve", model_, "--port", "0", "--host", "no such host"});
  EXPECT_EQ(host.exit_code, 2);
  const ProcessResult taken = RunSwiftKv({"serve", "no-such-model", "--port", std::to_string(TakenPort())});
  EXPECT_EQ(taken.exit_code, 1);
  EXPECT_THAT(taken.err, HasSubstr("can't listen on")) << "before it looks for the model";
  const ProcessResult memory = RunSwiftKv({"serve", model_, "--port", "0", "--kv-cache-memory", "1e18"});
  EXPECT_EQ(memory.exit_code, 1);
  EXPECT_THAT(memory.err, HasSubstr("K/V cache"));
}

}  // namespace
}  // namespace swiftkv
