#include "server/generation.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <sstream>
#include <utility>

#include "server/server_fixture.h"

namespace swiftkv {
namespace {

// A client that is cut off with the first piece of its answer.
class CutOffReply final : public HttpReply {
 public:
  explicit CutOffReply(boost::asio::thread_pool* strand) : strand_(strand) {}
  void Send(HttpResponse) override {}
  void Begin(HttpResponse) override {}
  void Write(std::string) override {
    if (const auto callback = std::exchange(on_gone_, nullptr)) callback();
  }
  void End() override {}
  void Post(std::function<void()> work) override { boost::asio::post(*strand_, std::move(work)); }
  void OnGone(std::function<void()> callback) override { on_gone_ = std::move(callback); }

 private:
  boost::asio::thread_pool* strand_;
  std::function<void()> on_gone_;
};

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Generation, EndsOnceWhereItsLastPieceIsCutOff) {
  std::ostringstream log;
  const auto logger = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  ServerMetrics metrics("tiny");
  const LoadedModel& model = TinyModel();
  AsyncEngineOptions options;
  options.engine.kv_cache_tokens = 1024;
  auto engine = AsyncEngine::Start(model.weights, model.mode, model.text.tokenizer.get(), options);
  ASSERT_TRUE(engine) << engine.error().message;
  const ServerContext context = {
      .model = &model, .engine = engine->get(), .metrics = &metrics, .model_names = {"tiny"}, .run_aside = nullptr};
  boost::asio::thread_pool strand(1);
  GenerationRequest request{.prompts = {std::string("Hi")}, .stream = true};
  request.sampling.max_tokens = 1;
  auto reply = std::make_shared<CutOffReply>(&strand);
  const std::weak_ptr<CutOffReply> held = reply;
  StartGeneration(context, std::move(request), {{40, 41}}, "id", std::exchange(reply, nullptr));
  while (!held.expired()) std::this_thread::yield();
  strand.join();
  spdlog::set_default_logger(logger);
  EXPECT_EQ(Count(log.str(), "request=id"), 1u) << log.str();
  EXPECT_EQ(Count(log.str(), "finish=abort"), 1u) << log.str();
  const std::string text = metrics.Text({});
  EXPECT_EQ(Count(text, "finished_reason=\"abort\"} 1\n"), 1u) << text;
  EXPECT_EQ(Count(text, "swiftkv:request_success_total{"), 4u) << text;
  for (const char* reason : {"stop", "length", "error"}) {
    EXPECT_EQ(Count(text, std::string("finished_reason=\"") + reason + "\"} 0\n"), 1u) << text;
  }
}

}  // namespace
}  // namespace swiftkv
