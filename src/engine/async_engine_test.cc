#include "engine/async_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <new>
#include <thread>

#include "engine/stub_model.h"

namespace swiftkv {
namespace {

using ::testing::HasSubstr;

constexpr std::chrono::milliseconds kSlow{2};

Request MakeRequest(int32_t seed, int64_t max_tokens) {
  return {.prompt_token_ids = {seed % 30, 3, 4, 5},
          .sampling = {.temperature = 0, .max_tokens = max_tokens, .ignore_eos = true}};
}

// step_time: of each step, so that a test is sure to come before the end of an answer.
std::unique_ptr<Engine> MakeEngine(std::chrono::microseconds step_time = {}) {
  auto model = std::make_unique<StubModel>();
  model->before_run = [step_time](const Step&) {
    std::this_thread::sleep_for(step_time);
    return Ok();
  };
  auto engine = Engine::Create(std::move(model), nullptr, {.kv_cache_tokens = 4096});
  EXPECT_TRUE(engine.has_value());
  return std::move(*engine);
}

// Collects the outputs of one request; any thread.
struct Collector {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<int32_t> tokens;
  int ends = 0;
  Status error = Ok();

  AsyncEngine::OnOutput Sink() {
    return [this](RequestOutput output) {
      const std::lock_guard lock(mutex);
      tokens.insert(tokens.end(), output.token_ids.begin(), output.token_ids.end());
      if (output.finished) ++ends;
      if (!output.error) error = std::move(output.error);
      changed.notify_all();
    };
  }
  bool WaitForTokens(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(30), [&] { return tokens.size() >= count; });
  }
  bool WaitForEnd() {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(30), [&] { return ends > 0; });
  }
};

TEST(AsyncEngineTest, OutlivesAStepWithoutMemory) {
  auto model = std::make_unique<StubModel>();
  std::atomic<bool> fails = true;
  model->before_run = [&](const Step&) -> Status {
    if (fails.exchange(false)) throw std::bad_alloc();
    return Ok();
  };
  auto engine = Engine::Create(std::move(model), nullptr, {.kv_cache_tokens = 4096});
  ASSERT_TRUE(engine.has_value());
  Collector failed;
  Collector answered;
  AsyncEngine async(std::move(*engine), 1024);
  ASSERT_TRUE(async.Submit(MakeRequest(1, 5), failed.Sink()).has_value());
  ASSERT_TRUE(failed.WaitForEnd());
  EXPECT_FALSE(failed.error);
  ASSERT_TRUE(async.Submit(MakeRequest(2, 5), answered.Sink()).has_value());
  ASSERT_TRUE(answered.WaitForEnd());
  EXPECT_TRUE(answered.error);
  EXPECT_EQ(answered.tokens, StubModel::Answer(MakeRequest(2, 5)));
  EXPECT_EQ(async.stats().kv_cache_usage, 0);
}

TEST(AsyncEngineTest, ManyThreadsGetWhatTheyGetAlone) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 50;
  std::atomic<int64_t> computed = 0;
  AsyncEngine engine(MakeEngine(), 1024, [&](int64_t tokens) { computed += tokens; });
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kRequests; ++i) {
        const Request request = MakeRequest(thread * kRequests + i, 5 + i % 7);
        Collector collector;
        ASSERT_TRUE(engine.Submit(request, collector.Sink()).has_value());
        ASSERT_TRUE(collector.WaitForEnd());
        EXPECT_EQ(collector.ends, 1);
        EXPECT_EQ(collector.tokens, StubModel::Answer(request));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(engine.idle());
  EXPECT_EQ(engine.stats().computed_tokens, computed);
  EXPECT_EQ(engine.stats().kv_cache_usage, 0);
}

// A step may take seconds: what a request waits for it counts.
TEST(AsyncEngineTest, ARequestArrivesWhenItIsSubmitted) {
  Collector running;
  std::promise<RequestTimes> times;
  AsyncEngine engine(MakeEngine(std::chrono::milliseconds(50)), 100);
  ASSERT_TRUE(engine.Submit(MakeRequest(1, 20), running.Sink()).has_value());
  ASSERT_TRUE(running.WaitForTokens(1));
  const auto before = std::chrono::steady_clock::now();
  ASSERT_TRUE(engine.Submit(MakeRequest(2, 1), [&times](const RequestOutput& output) { times.set_value(output.times); })
                  .has_value());
  const auto after = std::chrono::steady_clock::now();
  const RequestTimes seen = times.get_future().get();
  EXPECT_GE(seen.arrival, before);
  EXPECT_LE(seen.arrival, after);
  EXPECT_GE(seen.scheduled, seen.arrival);
}

TEST(AsyncEngineTest, AnAbortedRequestIsSilentAndOthersGoOn) {
  Collector endless;
  Collector other;
  AsyncEngine engine(MakeEngine(kSlow), 1024);
  const auto id = engine.Submit(MakeRequest(1, 3000), endless.Sink());
  ASSERT_TRUE(id.has_value());
  ASSERT_TRUE(endless.WaitForTokens(1));
  engine.Abort(*id);
  engine.Abort(12345);
  ASSERT_TRUE(engine.Submit(MakeRequest(2, 10), other.Sink()).has_value());
  ASSERT_TRUE(other.WaitForEnd());
  EXPECT_TRUE(engine.idle());
  EXPECT_EQ(endless.ends, 0);
  EXPECT_LT(endless.tokens.size(), 3000u);
}

TEST(AsyncEngineTest, RefusesWhatIsWrongTooMuchOrTooLate) {
  std::atomic<bool> began = false;
  std::atomic<bool> may_go_on = false;  // the first step lasts until then, so that what comes meanwhile has to wait
  auto model = std::make_unique<StubModel>();
  model->before_run = [&began, &may_go_on](const Step&) {
    began = true;
    while (!may_go_on) std::this_thread::yield();
    return Ok();
  };
  Collector collectors[8];  // outlive the engine, which tells them of its end
  AsyncEngine engine(*Engine::Create(std::move(model), nullptr, {.kv_cache_tokens = 4096}), 2);
  EXPECT_EQ(engine.Submit({}, nullptr).error().code, ErrorCode::kInvalidInput);
  int refused = 0;
  for (Collector& collector : collectors) {
    const auto id = engine.Submit(MakeRequest(1, 2000), collector.Sink());
    while (!began) std::this_thread::yield();  // a second one before the first step would run beside the first
    if (!id) {
      ++refused;
      EXPECT_EQ(id.error().code, ErrorCode::kResourceExhausted);
      EXPECT_THAT(id.error().message, HasSubstr("limit"));
    }
  }
  EXPECT_GE(refused, 5) << "one runs, at most two may wait";
  may_go_on = true;
  engine.Drain();
  EXPECT_TRUE(engine.draining());
  EXPECT_EQ(engine.Submit(MakeRequest(1, 1), nullptr).error().code, ErrorCode::kCancelled);
}

TEST(AsyncEngineTest, TheEndIsToldToWhatStillRuns) {
  Collector endless;
  {
    AsyncEngine engine(MakeEngine(kSlow), 8);
    ASSERT_TRUE(engine.Submit(MakeRequest(1, 4000), endless.Sink()).has_value());
    ASSERT_TRUE(endless.WaitForTokens(1));
  }
  EXPECT_EQ(endless.ends, 1);
  ASSERT_FALSE(endless.error.has_value());
  EXPECT_EQ(endless.error.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace swiftkv
