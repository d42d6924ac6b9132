#include "distill/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/file_calls.h"
#include "distill/test_corpus.h"
#include "model/fake_device.h"
#include "model/swiftkv_transform.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

class Listener : public RunListener {
 public:
  explicit Listener(int64_t stop_after = std::numeric_limits<int64_t>::max()) : stop_after_(stop_after) {}
  void OnStep(const StepMetrics& metrics) override {
    steps.push_back(metrics);
    if (after_step) after_step(metrics.step);
  }
  void OnHeldOut(const HeldOutMetrics& metrics) override { held_out.push_back(metrics); }
  void OnWarning(const std::string& sentence) override { warnings.push_back(sentence); }
  bool StopAsked() override { return static_cast<int64_t>(steps.size()) >= stop_after_; }

  std::vector<StepMetrics> steps;
  std::vector<HeldOutMetrics> held_out;
  std::vector<std::string> warnings;
  std::function<void(int64_t step)> after_step;

 private:
  int64_t stop_after_;
};

// The disk is full from some step on.
class FullDisk : public file_calls::Observer {
 public:
  FullDisk(const Listener& listener, size_t from_step) : listener_(listener), from_step_(from_step) {
    file_calls::SetObserver(this);
  }
  ~FullDisk() override { file_calls::SetObserver(nullptr); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  int Before(file_calls::Call* call) override {
    return call->kind == file_calls::Kind::kWrite && listener_.steps.size() >= from_step_ ? ENOSPC : 0;
  }

 private:
  const Listener& listener_;
  size_t from_step_;
};

// A tiny student, its data and a folder.
class RunTest : public testing::Test {
 protected:
  RunTest() : base_config_(TinyConfig()), base_(DType::kF32) {
    base_config_.vocab_size = 512;
    base_ = TinyTensors(base_config_);
    student_ = *StudentConfig(base_config_, 3, 1);
    std::vector<std::string> texts;
    for (int i = 0; i < 60; ++i) texts.push_back("Text number " + std::to_string(i * i) + " tells of nothing.");
    recipe_ = *PresetRecipe("paper");
    recipe_.model = {.num_key_value_layers = 3, .dtype = DType::kF32};
    recipe_.data.sources = {{.path = corpus_.WriteTexts("texts.jsonl", texts), .held_out = 0.2}};
    recipe_.data.max_length = 24;
    recipe_.micro_batch_size = 2;
    recipe_.gradient_accumulation_steps = 2;
    recipe_.train_iters = 8;
    recipe_.optimizer.learning_rate = 5e-3;
    recipe_.checkpoint.save_every_n_steps = 3;
  }

  // One process: everything is made anew.
  struct Process {
    std::unique_ptr<Trainer> trainer;
    std::unique_ptr<Dataset> data;
    std::unique_ptr<DistillRun> run;
  };
  Process Start(const Recipe& recipe, RunListener* listener, const std::string& folder,
                const kernels::Backend* backend = nullptr) {
    Process process;
    const MemoryTensors start = *InitStudent(student_, base_, Init::kScaled, DType::kF32);
    TrainerOptions trainer_options = TrainerOptionsOf(recipe);
    trainer_options.backend = backend;
    process.trainer = *Trainer::Create(student_, base_, start, trainer_options);
    const DatasetOptions options{
        .seed = recipe.seed, .epochs = recipe.train_iters > 0 ? 0 : recipe.epochs, .unix_time = 1};
    process.data = *Dataset::Open(recipe.data, options, corpus_.text());
    std::vector<HeldOutSet> held_out = {{"texts", Documents(*process.data->HeldOut(0, 200))}};
    process.run = std::make_unique<DistillRun>(recipe, process.trainer.get(), process.data.get(), std::move(held_out),
                                               folder, listener);
    EXPECT_TRUE(process.run->CountSteps());
    return process;
  }

  // Another process goes on in the folder and ends as the run that nothing interrupted; gives the steps that it did.
  std::vector<StepMetrics> ExpectResumesTo(const std::vector<Parameter>& whole, const std::string& folder,
                                           const kernels::Backend* backend);

  TestCorpus corpus_;
  ModelConfig base_config_;
  MemoryTensors base_;
  ModelConfig student_;
  Recipe recipe_;
};

void ExpectSame(const std::vector<Parameter>& a, const std::vector<Parameter>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].value, b[i].value) << a[i].name;
    EXPECT_EQ(a[i].first_moment, b[i].first_moment) << a[i].name;
    EXPECT_EQ(a[i].second_moment, b[i].second_moment) << a[i].name;
  }
}

std::vector<StepMetrics> RunTest::ExpectResumesTo(const std::vector<Parameter>& whole, const std::string& folder,
                                                  const kernels::Backend* backend) {
  Listener listener;
  Process process = Start(recipe_, &listener, folder, backend);
  const Status resumed = process.run->Resume();
  // Without a checkpoint it begins anew.
  EXPECT_TRUE(resumed || resumed.error().code == ErrorCode::kNotFound) << resumed.error().message;
  const Result<RunEnd> end = process.run->Train();
  EXPECT_TRUE(end && end->finished && end->held_out.size() == 1);
  ExpectSame(*process.trainer->student().parameters(), whole);
  return listener.steps;
}

TEST_F(RunTest, LearnsAndMeasures) {
  Listener listener;
  TemporaryFolder folder;
  recipe_.train_iters = 40;
  Process process = Start(recipe_, &listener, folder.path());
  const Result<RunEnd> end = process.run->Train();
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_TRUE(end->finished);
  EXPECT_EQ(end->steps_done, 40);
  EXPECT_EQ(end->tokens, listener.steps.back().tokens);
  ASSERT_EQ(listener.held_out.size(), 2u);  // before and after
  EXPECT_LT(listener.held_out[1].quality.kl, 0.5 * listener.held_out[0].quality.kl);
  EXPECT_LT(listener.steps.back().loss, 0.5 * listener.steps.front().loss);
}

TEST_F(RunTest, StoppedAndResumedIsBitForBitTheUninterruptedRun) {
  TemporaryFolder whole_folder, parts_folder;
  Listener whole_listener;
  Process whole = Start(recipe_, &whole_listener, whole_folder.path());
  ASSERT_TRUE(whole.run->Train());

  Listener first_listener(5);
  Process first = Start(recipe_, &first_listener, parts_folder.path());
  const Result<RunEnd> stopped = first.run->Train();
  ASSERT_TRUE(stopped) << stopped.error().message;
  EXPECT_FALSE(stopped->finished);
  EXPECT_EQ(stopped->steps_done, 5);

  Listener second_listener;
  Process second = Start(recipe_, &second_listener, parts_folder.path());
  const Status resumed = second.run->Resume();
  ASSERT_TRUE(resumed) << resumed.error().message;
  ASSERT_TRUE(second.run->Train());
  EXPECT_EQ(second_listener.steps.front().step, 6);
  ExpectSame(*second.trainer->student().parameters(), *whole.trainer->student().parameters());

  const Metrics metrics = *ReadMetrics(second.run->MetricsPath());
  ASSERT_EQ(metrics.steps.size(), 8u);
  for (size_t i = 0; i < metrics.steps.size(); ++i) {
    EXPECT_EQ(metrics.steps[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(metrics.steps[i].loss, whole_listener.steps[i].loss);
  }
}

// As after a kill -9 between two checkpoints: the steps since the last one are done again, to the same end.
TEST_F(RunTest, AKilledRunGoesOnFromItsLastCheckpoint) {
  TemporaryFolder whole_folder, killed_folder;
  Listener whole_listener;
  Process whole = Start(recipe_, &whole_listener, whole_folder.path());
  ASSERT_TRUE(whole.run->Train());

  Listener killed_listener(5);
  Process killed = Start(recipe_, &killed_listener, killed_folder.path());
  ASSERT_TRUE(killed.run->Train());
  std::filesystem::remove_all(killed_folder.path() + "/checkpoint-5");  // what the orderly stop wrote
  Listener listener;
  Process again = Start(recipe_, &listener, killed_folder.path());
  // keep is 1, so the checkpoint of step 3 went when that of step 5 came: nothing is left to resume.
  EXPECT_EQ(again.run->Resume().error().code, ErrorCode::kNotFound);

  recipe_.checkpoint.keep = 2;
  TemporaryFolder kept_folder;
  Listener kept_listener(5);
  ASSERT_TRUE(Start(recipe_, &kept_listener, kept_folder.path()).run->Train());
  std::filesystem::remove_all(kept_folder.path() + "/checkpoint-5");
  Process resumed = Start(recipe_, &listener, kept_folder.path());
  ASSERT_TRUE(resumed.run->Resume());
  ASSERT_TRUE(resumed.run->Train());
  EXPECT_EQ(listener.steps.front().step, 4);
  ExpectSame(*resumed.trainer->student().parameters(), *whole.trainer->student().parameters());
  EXPECT_EQ(ReadMetrics(resumed.run->MetricsPath())->steps.size(), 8u);
}

TEST_F(RunTest, ACheckpointOfAnotherRecipeIsRefused) {
  TemporaryFolder folder;
  Listener listener(2);
  ASSERT_TRUE(Start(recipe_, &listener, folder.path()).run->Train());
  recipe_.optimizer.learning_rate = 1e-3;
  const Status status = Start(recipe_, &listener, folder.path()).run->Resume();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidInput);
}

TEST_F(RunTest, AFullDiskEndsNoTraining) {
  TemporaryFolder whole_folder, folder;
  Listener whole_listener, listener;
  Process whole = Start(recipe_, &whole_listener, whole_folder.path());
  ASSERT_TRUE(whole.run->Train());
  Process process = Start(recipe_, &listener, folder.path());
  {
    FullDisk full(listener, 4);
    const Result<RunEnd> end = process.run->Train();
    ASSERT_TRUE(end) << end.error().message;
    EXPECT_TRUE(end->finished);
    EXPECT_EQ(end->held_out.size(), 1u);
  }
  ExpectSame(*process.trainer->student().parameters(), *whole.trainer->student().parameters());
  // One of the metrics, one of each checkpoint that was due.
  EXPECT_THAT(
      listener.warnings,
      testing::ElementsAre(testing::HasSubstr("metrics.jsonl: the disk is full; training goes on"),
                           testing::HasSubstr("step 6 is not saved"), testing::HasSubstr("step 8 is not saved")));
  EXPECT_EQ(ReadMetrics(process.run->MetricsPath())->steps.size(), 4u);

  // Nothing but its checkpoint holds what a run that is stopped has learnt.
  TemporaryFolder stopped_folder;
  Listener stopped_listener(5);
  Process stopped = Start(recipe_, &stopped_listener, stopped_folder.path());
  FullDisk full(stopped_listener, 4);
  const Result<RunEnd> end = stopped.run->Train();
  ASSERT_FALSE(end);
  EXPECT_THAT(end.error().message, testing::HasSubstr("step 5 is not saved"));
}

// An update, a measurement on the way and the last one.
TEST_F(RunTest, AnErrorKeepsWhatWasLearnt) {
  recipe_.checkpoint.save_every_n_steps = 0;
  recipe_.eval.every_n_steps = 4;
  FakeDevice device(kernels::DefaultBackend());
  TemporaryFolder whole_folder;
  Listener whole_listener;
  Process whole = Start(recipe_, &whole_listener, whole_folder.path(), &device);
  ASSERT_TRUE(whole.run->Train());
  const std::vector<Parameter> parameters = *whole.trainer->student().parameters();
  for (const int64_t last_step : {4, 5, 8}) {
    const auto fail = [&](int64_t step) {
      if (step == last_step) device.memory().FailAllocation(0);
    };
    const std::string saved = fmt::format("the checkpoint of step {} is saved, and --resume goes on", last_step);
    TemporaryFolder folder;
    Listener listener;
    listener.after_step = fail;
    const Result<RunEnd> end = Start(recipe_, &listener, folder.path(), &device).run->Train();
    ASSERT_FALSE(end);
    EXPECT_EQ(end.error().code, ErrorCode::kResourceExhausted);
    EXPECT_THAT(end.error().message, testing::AllOf(testing::HasSubstr("memory is full"), testing::HasSubstr(saved)));
    EXPECT_THAT(listener.warnings, testing::IsEmpty());
    const std::vector<StepMetrics> steps = ExpectResumesTo(parameters, folder.path(), &device);
    ASSERT_EQ(std::ssize(steps), 8 - last_step);
    for (const StepMetrics& step : steps) {
      EXPECT_EQ(step.loss, whole_listener.steps[static_cast<size_t>(step.step) - 1].loss);
      EXPECT_EQ(step.tokens, whole_listener.steps[static_cast<size_t>(step.step) - 1].tokens);
    }

    // The disk is full as well: the first error is told.
    TemporaryFolder full_folder;
    Listener full_listener;
    full_listener.after_step = fail;
    Process process = Start(recipe_, &full_listener, full_folder.path(), &device);
    FullDisk full(full_listener, static_cast<size_t>(last_step));
    const Result<RunEnd> full_end = process.run->Train();
    ASSERT_FALSE(full_end);
    EXPECT_THAT(full_end.error().message,
                testing::AllOf(testing::HasSubstr("memory is full"), testing::Not(testing::HasSubstr("--resume"))));
    EXPECT_THAT(full_listener.warnings, testing::Contains(testing::HasSubstr("is not saved")));
  }
}

// There is nothing to keep, and another command may follow in the same folder.
TEST_F(RunTest, AnErrorBeforeTheFirstUpdateLeavesNoCheckpoint) {
  FakeDevice device(kernels::DefaultBackend());
  TemporaryFolder folder;
  Listener listener;
  Process process = Start(recipe_, &listener, folder.path(), &device);
  device.memory().FailAllocation(0);
  ASSERT_FALSE(process.run->Train());
  EXPECT_EQ(FindLatestCheckpoint(folder.path()).error().code, ErrorCode::kNotFound);
}

// Reads fail in turn, and allocations: no checkpoint holds what was not there.
TEST_F(RunTest, WhateverFailsOnTheDeviceTheRunCanGoOn) {
  TemporaryFolder whole_folder;
  Listener whole_listener;
  Process whole = Start(recipe_, &whole_listener, whole_folder.path());
  ASSERT_TRUE(whole.run->Train());
  const std::vector<Parameter> parameters = *whole.trainer->student().parameters();
  for (const auto fail : {&FakeDeviceMemory::FailRead, &FakeDeviceMemory::FailAllocation}) {
    for (int64_t call = 0;; call += 37) {
      SCOPED_TRACE(call);
      FakeDevice device(kernels::DefaultBackend());
      TemporaryFolder folder;
      Listener listener;
      Process process = Start(recipe_, &listener, folder.path(), &device);
      (device.memory().*fail)(call);
      const Result<RunEnd> end = process.run->Train();
      const bool failed = device.memory().failed();
      (device.memory().*fail)(-1);
      EXPECT_TRUE(!failed || !end || !listener.warnings.empty());
      const int64_t steps = std::ssize(listener.steps);
      if (!end && steps > 0 && process.trainer->updates() == steps) {
        EXPECT_THAT(end.error().message, testing::HasSubstr("--resume"));
        EXPECT_EQ(std::ssize(ExpectResumesTo(parameters, folder.path(), &device)), 8 - steps);
      } else {
        ExpectResumesTo(parameters, folder.path(), &device);
      }
      if (!failed || testing::Test::HasFailure()) break;
    }
  }
}

TEST_F(RunTest, ResumingTellsOfAnotherDevice) {
  TemporaryFolder folder;
  Listener listener(2), same_listener, other_listener;
  ASSERT_TRUE(Start(recipe_, &listener, folder.path(), &kernels::DefaultBackend()).run->Train());
  ASSERT_TRUE(Start(recipe_, &same_listener, folder.path(), &kernels::DefaultBackend()).run->Resume());
  EXPECT_THAT(same_listener.warnings, testing::IsEmpty());
  if (&kernels::DefaultBackend() == &kernels::RefBackend()) GTEST_SKIP() << "the reference is all there is";
  ASSERT_TRUE(Start(recipe_, &other_listener, folder.path(), &kernels::RefBackend()).run->Resume());
  EXPECT_THAT(other_listener.warnings, testing::ElementsAre(testing::AllOf(testing::HasSubstr("trained on cpu ("),
                                                                           testing::HasSubstr("this is cpu (ref)"))));
}

// A checkpoint's names and shapes are compared without the values that it takes the place of.
TEST_F(RunTest, ResumingReadsNoParametersFromTheDevice) {
  FakeDevice device(kernels::DefaultBackend());
  TemporaryFolder folder;
  Listener listener(2);
  ASSERT_TRUE(Start(recipe_, &listener, folder.path(), &device).run->Train());
  Process process = Start(recipe_, &listener, folder.path(), &device);
  device.memory().FailRead(1);  // norm_swiftkv is read
  ASSERT_TRUE(process.run->Resume());
  EXPECT_FALSE(device.memory().failed());
}

TEST_F(RunTest, SkippedRowsAreToldAndCounted) {
  std::vector<std::string> texts;
  for (int i = 0; i < 30; ++i) texts.push_back("Text number " + std::to_string(i));
  const std::string good = corpus_.WriteTexts("good.jsonl", texts);
  std::ifstream file(good);
  const std::string lines((std::istreambuf_iterator<char>(file)), {});
  recipe_.data.sources = {{.path = corpus_.folder.Write("mixed.jsonl", "no json\n" + lines + "{}\n"), .held_out = 0.2}};
  for (const int64_t train_iters : {0, 40}) {
    TemporaryFolder folder;
    Listener listener;
    recipe_.train_iters = train_iters;
    Process process = Start(recipe_, &listener, folder.path());
    EXPECT_EQ(listener.warnings.size(), train_iters == 0 ? 1u : 0u);  // counting goes through the data
    ASSERT_TRUE(process.run->Train());
    ASSERT_EQ(listener.warnings.size(), 2u);
    EXPECT_THAT(listener.warnings[0], testing::HasSubstr("such rows are skipped"));
    EXPECT_THAT(listener.warnings[1], testing::HasSubstr("were skipped"));
    EXPECT_THAT(listener.warnings[1], testing::HasSubstr(train_iters == 0 ? "2 times" : "times"));
  }
}

TEST_F(RunTest, EpochsEndWithTheData) {
  TemporaryFolder folder;
  Listener listener;
  recipe_.train_iters = 0;
  recipe_.epochs = 1;
  recipe_.checkpoint.save_every_n_steps = 0;
  Process process = Start(recipe_, &listener, folder.path());
  const int64_t steps = process.run->steps();
  EXPECT_GT(steps, 5);
  const Result<RunEnd> end = process.run->Train();
  ASSERT_TRUE(end);
  EXPECT_TRUE(end->finished);
  EXPECT_EQ(end->steps_done, steps);
}

TEST_F(RunTest, ALossThatIsNotFiniteLeavesTheParameters) {
  const MemoryTensors start = *InitStudent(student_, base_, Init::kScaled, DType::kF32);
  const auto trainer = *Trainer::Create(student_, base_, start, TrainerOptionsOf(recipe_));
  std::vector<Parameter> parameters = *trainer->student().parameters();
  parameters[0].value[0] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(trainer->Restore(parameters, 7));
  const PackedSequence row{{1, 2, 3}, {1, 1, 1}, {0}};
  const std::vector<std::vector<PackedSequence>> batch = {{row}};
  const Result<StepReport> report = trainer->Step(batch, 1e-3);
  ASSERT_FALSE(report);
  EXPECT_NE(report.error().message.find("update 8"), std::string::npos) << report.error().message;
  EXPECT_EQ(trainer->updates(), 7);
  EXPECT_EQ((*trainer->student().parameters())[1].value, parameters[1].value);
}

TEST_F(RunTest, WrongRowsAreSentences) {
  const MemoryTensors start = *InitStudent(student_, base_, Init::kScaled, DType::kF32);
  const auto trainer = *Trainer::Create(student_, base_, start, TrainerOptionsOf(recipe_));
  const auto error = [&](const PackedSequence& row) {
    const std::vector<std::vector<PackedSequence>> batch = {{row}};
    const Result<StepReport> report = trainer->Step(batch, 1e-3);
    return report ? std::string() : report.error().message;
  };
  EXPECT_NE(error({{1, 512}, {1, 1}, {0}}).find("512"), std::string::npos);
  EXPECT_NE(error({{1, -1}, {1, 1}, {0}}).find("-1"), std::string::npos);
  EXPECT_NE(error({{1, 2}, {0, 0}, {0}}).find("loss"), std::string::npos);
  EXPECT_NE(error({std::vector<int32_t>(300, 1), std::vector<uint8_t>(300, 1), {0}}).find("300"), std::string::npos);
}

TEST_F(RunTest, HiddenLossLayersOutOfRangeAreRefused) {
  const MemoryTensors start = *InitStudent(student_, base_, Init::kScaled, DType::kF32);
  recipe_.hidden_loss_mult = 1;
  for (const int64_t layer : {-1, -4, 3, 6, 100}) {
    recipe_.hidden_loss_layer = layer;
    EXPECT_FALSE(Trainer::Create(student_, base_, start, TrainerOptionsOf(recipe_))) << layer;
  }
  recipe_.hidden_loss_layer = -3;
  EXPECT_TRUE(Trainer::Create(student_, base_, start, TrainerOptionsOf(recipe_)));
  const ModelConfig last_only = *StudentConfig(base_config_, base_config_.num_hidden_layers - 1, 1);
  const auto none = Trainer::Create(last_only, base_, *InitStudent(last_only, base_, Init::kScaled, DType::kF32),
                                    TrainerOptionsOf(recipe_));
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, testing::HasSubstr("hidden_loss_mult must be 0"));
}

}  // namespace
}  // namespace swiftkv
