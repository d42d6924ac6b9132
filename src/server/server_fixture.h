// A server of a tiny model, for tests of what clients see.
#ifndef SWIFTKV_SERVER_SERVER_FIXTURE_H_
#define SWIFTKV_SERVER_SERVER_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "e2e/tiny_model.h"
#include "server/server.h"
#include "server/test_client.h"

namespace swiftkv {

using Json = nlohmann::json;

// One character a token, 512 tokens of context.
inline const LoadedModel& TinyModel() {
  static const LoadedModel model = [] {
    const std::string folder =
        WriteTinyModel(std::filesystem::temp_directory_path() / ("swiftkv-server-test-" + std::to_string(getpid())),
                       {.swiftkv = true});
    auto loaded = LoadModel({.model = folder, .dtype = DType::kF32});
    if (!loaded) {
      ADD_FAILURE() << loaded.error().message;
      std::abort();
    }
    std::filesystem::remove_all(folder);
    return std::move(*loaded);
  }();
  return model;
}

// The data of each event of a stream, without the last one, which must be [DONE].
inline std::vector<Json> Events(const TestResponse& response) {
  std::vector<std::string> lines;
  std::string body = response.body;
  while (!body.empty()) {
    const size_t end = body.find("\n\n");
    EXPECT_EQ(body.substr(0, 6), "data: ");
    if (end == std::string::npos) break;
    lines.push_back(body.substr(6, end - 6));
    body.erase(0, end + 2);
  }
  std::vector<Json> events;
  if (lines.empty()) return events;
  EXPECT_EQ(lines.back(), "[DONE]");
  lines.pop_back();
  for (const std::string& line : lines) events.push_back(Json::parse(line));
  return events;
}

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    options_.served_model_names = {"tiny", "also-tiny"};
    engine_options_.engine.kv_cache_tokens = 8192;
  }

  void Start() {
    Listen();
    const Status serving = server_->Serve(TinyModel(), engine_options_);
    ASSERT_TRUE(serving) << serving.error().message;
  }

  void Listen() {
    auto listening = Server::Listen(options_);
    ASSERT_TRUE(listening) << listening.error().message;
    server_ = std::move(*listening);
  }

  TestClient Connect() const { return TestClient(server_->port()); }

  TestResponse Post(const std::string& path, const Json& body, const std::string& headers = {}) const {
    return Connect().Post(path, body.dump(), headers);
  }

  Json Answer(const std::string& path, const Json& body) const {
    const TestResponse response = Post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body);
  }
  Json Complete(Json body) const { return Answer("/v1/completions", body); }

  // Waits for what other threads bring about.
  static bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 30'000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  ServerOptions options_;
  AsyncEngineOptions engine_options_;
  std::unique_ptr<Server> server_;
};

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_SERVER_FIXTURE_H_
