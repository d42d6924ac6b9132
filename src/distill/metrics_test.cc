#include "distill/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/fault_injector.h"
#include "checkpoint/test_files.h"
#include "distill/training_checkpoint.h"

namespace swiftkv {
namespace {

using testing::HasSubstr;

StepMetrics StepOf(int64_t step) {
  return {.step = step, .tokens = 4096 * step, .loss = 1.0 / static_cast<double>(step), .kl = 0.1, .agreement = 0.75};
}

std::vector<int64_t> Steps(const Metrics& metrics) {
  std::vector<int64_t> steps;
  for (const StepMetrics& step : metrics.steps) steps.push_back(step.step);
  return steps;
}

std::vector<int64_t> UpTo(int64_t last) {
  std::vector<int64_t> steps;
  for (int64_t step = 1; step <= last; ++step) steps.push_back(step);
  return steps;
}

class MetricsTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  Metrics Read() const {
    const Result<Metrics> metrics = ReadMetrics(Path("metrics.jsonl"));
    EXPECT_TRUE(metrics) << metrics.error().message;
    return metrics ? *metrics : Metrics();
  }
  // Steps `from` .. `to`, held-out lines after every second.
  void Log(int64_t checkpoint, int64_t from, int64_t to) const {
    Result<MetricsLog> log = MetricsLog::Open(Path("metrics.jsonl"), checkpoint);
    ASSERT_TRUE(log) << log.error().message;
    for (int64_t step = from; step <= to; ++step) {
      ASSERT_TRUE(log->Append(StepOf(step)));
      if (step % 2 != 0) continue;
      ASSERT_TRUE(log->Append(HeldOutMetrics{.step = step, .source = "novels", .quality = {}}));
    }
  }

 private:
  TemporaryFolder temporary_{MemoryTempDir()};

 protected:
  std::string folder_ = std::filesystem::canonical(temporary_.path()).string();
};

TEST_F(MetricsTest, EveryNumberComesBack) {
  StepMetrics step{.step = 7,
                   .tokens = 28672,
                   .loss = 1.0 / 3,
                   .kl = 0.3,
                   .hidden_loss = 1e-30,
                   .agreement = 0.5,
                   .grad_norm = std::numeric_limits<double>::infinity(),
                   .learning_rate = 2e-4,
                   .tokens_per_second = 1510.2,
                   .seconds = 32.5};
  const HeldOutMetrics held_out{
      .step = 7,
      .source = "a \"quoted\" \xc3\xa9 name\n",
      .quality = {.tokens = 99, .kl = 0.2, .agreement = 0.8, .teacher_nll = 2.5, .student_nll = 3}};
  {
    Result<MetricsLog> log = MetricsLog::Open(Path("metrics.jsonl"), 0);
    ASSERT_TRUE(log && log->Append(step) && log->Append(held_out) && log->Sync());
    EXPECT_TRUE(log->warnings().empty());
  }
  const Metrics metrics = Read();
  ASSERT_EQ(metrics.steps.size(), 1u);
  const StepMetrics& read = metrics.steps[0];
  EXPECT_EQ(std::tie(read.step, read.tokens, read.loss, read.kl, read.hidden_loss, read.agreement),
            std::tie(step.step, step.tokens, step.loss, step.kl, step.hidden_loss, step.agreement));
  EXPECT_EQ(std::tie(read.learning_rate, read.tokens_per_second, read.seconds),
            std::tie(step.learning_rate, step.tokens_per_second, step.seconds));
  EXPECT_TRUE(std::isnan(read.grad_norm));
  ASSERT_EQ(metrics.held_out.size(), 1u);
  EXPECT_EQ(metrics.held_out[0].source, held_out.source);
  EXPECT_EQ(metrics.held_out[0].quality.tokens, 99);
  EXPECT_EQ(metrics.held_out[0].quality.kl, 0.2);
  EXPECT_EQ(metrics.held_out[0].quality.agreement, 0.8);
  EXPECT_EQ(metrics.held_out[0].quality.teacher_nll, 2.5);
  EXPECT_EQ(metrics.held_out[0].quality.student_nll, 3);
}

TEST_F(MetricsTest, AResumedRunHasEveryStepOnce) {
  Log(0, 1, 7);
  Log(4, 5, 9);
  EXPECT_EQ(Steps(Read()), UpTo(9));
  const Metrics metrics = Read();
  ASSERT_EQ(metrics.held_out.size(), 4u);
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(metrics.held_out[i].step, 2 * i + 2);
  Log(0, 1, 2);  // a new run begins with an empty file
  EXPECT_EQ(Steps(Read()), UpTo(2));
}

TEST_F(MetricsTest, TheLaterMeasurementOfAStepCounts) {
  Result<MetricsLog> log = MetricsLog::Open(Path("metrics.jsonl"), 0);
  ASSERT_TRUE(log);
  for (const double kl : {0.5, 0.25}) {
    ASSERT_TRUE(log->Append(HeldOutMetrics{.step = 2, .source = "novels", .quality = {.kl = kl}}));
    ASSERT_TRUE(log->Append(HeldOutMetrics{.step = 2, .source = "plays", .quality = {.kl = 2 * kl}}));
  }
  const Metrics metrics = Read();
  ASSERT_EQ(metrics.held_out.size(), 2u);
  EXPECT_EQ(metrics.held_out[0].quality.kl, 0.25);
  EXPECT_EQ(metrics.held_out[1].quality.kl, 0.5);
}

TEST_F(MetricsTest, ATornLastLineGoesAndDamageIsNamed) {
  Log(0, 1, 4);
  std::ofstream(Path("metrics.jsonl"), std::ios::app) << R"({"step":5,"tokens":123)";
  EXPECT_EQ(Read().unreadable_lines, 1);
  Log(4, 5, 6);
  EXPECT_EQ(Steps(Read()), UpTo(6));
  EXPECT_EQ(Read().unreadable_lines, 0);
  // A line that is whole but for its newline may be 1 of 12.
  std::ofstream(Path("metrics.jsonl"), std::ios::app) << R"({"step":7,"tokens":1})";
  EXPECT_EQ(Steps(Read()), UpTo(6));

  for (const char* line : {"\n", "x\n", "[1]\n", "{}\n", "{\"step\":\"3\"}\n", "{\"step\":3,\"held_out\":4}\n"}) {
    std::ofstream(Path("metrics.jsonl")) << R"({"step":1})"
                                         << "\n"
                                         << line << R"({"step":2})"
                                         << "\n";
    EXPECT_EQ(Read().unreadable_lines, 1) << line;
    Result<MetricsLog> log = MetricsLog::Open(Path("metrics.jsonl"), 3);
    ASSERT_TRUE(log);
    ASSERT_EQ(log->warnings().size(), 2u);
    EXPECT_THAT(log->warnings()[0], HasSubstr("1 unreadable lines are removed"));
    EXPECT_THAT(log->warnings()[1], HasSubstr("ends at step 2, the checkpoint is of step 3"));
    EXPECT_EQ(Steps(Read()), UpTo(2));
  }
}

TEST_F(MetricsTest, WhatIsNoFileIsAnError) {
  std::filesystem::create_directory(Path("folder"));
  EXPECT_FALSE(MetricsLog::Open(Path("folder"), 0));
  EXPECT_FALSE(MetricsLog::Open(Path("missing/metrics.jsonl"), 0));
  EXPECT_EQ(ReadMetrics(Path("missing")).error().code, ErrorCode::kNotFound);
}

// A run of six steps as the trainer does it, a checkpoint every second step; the first error ends it.
Status Train(const std::string& folder) {
  TrainingState state;
  state.dataset = nlohmann::ordered_json::object();
  Result<LoadedCheckpoint> loaded = LoadTrainingCheckpoint(folder, state);
  if (loaded) state = std::move(loaded->state);
  SWIFTKV_ASSIGN_OR_RETURN(MetricsLog log, MetricsLog::Open(folder + "/metrics.jsonl", state.step));
  while (state.step < 6) {
    ++state.step;
    SWIFTKV_RETURN_IF_ERROR(log.Append(StepOf(state.step)));
    if (state.step % 2 != 0) continue;
    SWIFTKV_RETURN_IF_ERROR(log.Append(HeldOutMetrics{.step = state.step, .source = "novels", .quality = {}}));
    SWIFTKV_RETURN_IF_ERROR(log.Sync());
    SWIFTKV_RETURN_IF_ERROR(SaveTrainingCheckpoint(folder, state));
  }
  return Ok();
}

TEST_F(MetricsTest, NoStepIsLostOrTwiceWhereverTheRunDies) {
  for (const Faults::Then then : {Faults::kGoOn, Faults::kKilled, Faults::kPowerLost}) {
    for (int64_t call = 0;; ++call) {
      SCOPED_TRACE(fmt::format("call {} fails, then {}", call, static_cast<int>(then)));
      const std::string folder = Path(fmt::format("run-{}-{}", static_cast<int>(then), call));
      std::filesystem::create_directory(folder);
      FaultInjector faults({.failing_call = call, .error = ENOSPC, .then = then});
      static_cast<void>(Train(folder));
      file_calls::SetObserver(nullptr);
      const Status resumed = Train(folder);
      ASSERT_TRUE(resumed) << resumed.error().message;
      const Result<Metrics> metrics = ReadMetrics(folder + "/metrics.jsonl");
      ASSERT_TRUE(metrics);
      EXPECT_EQ(Steps(*metrics), UpTo(6));
      EXPECT_EQ(metrics->held_out.size(), 3u);
      EXPECT_EQ(metrics->unreadable_lines, 0);
      if (!faults.failed() || testing::Test::HasFailure()) break;
    }
  }
}

}  // namespace
}  // namespace swiftkv
