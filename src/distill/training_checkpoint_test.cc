#include "distill/training_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>
#include <set>

#include "base/fault_injector.h"
#include "base/file.h"
#include "checkpoint/test_files.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Everything in it follows from the step, so that a mixture of two states shows.
TrainingState StateOf(int64_t step) {
  TrainingState state;
  state.step = step;
  state.tokens = 4096 * step;
  state.seconds = 0.1 * static_cast<double>(step);
  state.recipe_fingerprint = "recipe";
  state.device = "cpu (ref)";
  state.dataset = {{"epoch", step / 7}, {"sources", {{{"name", "novels"}, {"next", 3 * step}, {"weight", 0.1}}}}};
  const auto base = static_cast<float>(step);
  state.parameters = {{"model.norm_swiftkv.weight", {3}, {base, 1, 2}, {3, base, 4}, {5, 6, base}},
                      {"q_proj_swiftkv.weight", {2, 2}, {base, 0.5f, -1, 7}, {1, 2, base, 0}, {base, base, 1, 9}}};
  return state;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void ExpectEqual(const TrainingState& actual, const TrainingState& expected) {
  EXPECT_EQ(actual.step, expected.step);
  EXPECT_EQ(actual.tokens, expected.tokens);
  EXPECT_EQ(actual.seconds, expected.seconds);
  EXPECT_EQ(actual.recipe_fingerprint, expected.recipe_fingerprint);
  EXPECT_EQ(actual.device, expected.device);
  EXPECT_EQ(actual.dataset.dump(), expected.dataset.dump());
  ASSERT_EQ(actual.parameters.size(), expected.parameters.size());
  for (size_t i = 0; i < actual.parameters.size(); ++i) {
    EXPECT_EQ(actual.parameters[i].name, expected.parameters[i].name);
    EXPECT_EQ(actual.parameters[i].shape, expected.parameters[i].shape);
    EXPECT_TRUE(SameBits(actual.parameters[i].value, expected.parameters[i].value));
    EXPECT_TRUE(SameBits(actual.parameters[i].first_moment, expected.parameters[i].first_moment));
    EXPECT_TRUE(SameBits(actual.parameters[i].second_moment, expected.parameters[i].second_moment));
  }
}

class TrainingCheckpointTest : public testing::Test {
 protected:
  const std::string& folder() const { return folder_; }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  void Save(int64_t step, int64_t keep = 2) const {
    const Status status = SaveTrainingCheckpoint(folder(), StateOf(step), keep);
    ASSERT_TRUE(status) << status.error().message;
  }
  // -1: an error.
  int64_t LoadedStep() const {
    const Result<LoadedCheckpoint> loaded = LoadTrainingCheckpoint(folder(), StateOf(0));
    if (!loaded) return -1;
    ExpectEqual(loaded->state, StateOf(loaded->state.step));
    return loaded->state.step;
  }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder())) names.insert(entry.path().filename());
    return names;
  }
  void Damage(const std::string& name, int64_t place) const {
    std::fstream file(Path(name), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(place);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(place);
    file.put(byte);
    ASSERT_TRUE(file.good());
  }

 private:
  TemporaryFolder temporary_{MemoryTempDir()};
  std::string folder_ = fs::canonical(temporary_.path()).string() + "/run";
};

TEST_F(TrainingCheckpointTest, EveryBitComesBack) {
  TrainingState state = StateOf(3);
  state.parameters[0].value = {std::bit_cast<float>(0x7fc12345u), std::bit_cast<float>(0xff800001u), -0.0f};
  state.parameters[0].first_moment = {std::numeric_limits<float>::infinity(), std::bit_cast<float>(1u), 1e-40f};
  state.dataset = {{"text", "a \"quoted\" line\n\xc3\xa9"}, {"big", INT64_MAX}, {"third", 1.0 / 3}, {"none", nullptr}};
  ASSERT_TRUE(SaveTrainingCheckpoint(folder(), state));
  const Result<LoadedCheckpoint> loaded = LoadTrainingCheckpoint(folder(), StateOf(0));
  ASSERT_TRUE(loaded) << loaded.error().message;
  ExpectEqual(loaded->state, state);
  EXPECT_EQ(loaded->path, Path("checkpoint-3"));
  EXPECT_TRUE(loaded->warnings.empty());
}

TEST_F(TrainingCheckpointTest, NoCheckpointIsNotFound) {
  EXPECT_EQ(LoadTrainingCheckpoint(folder(), StateOf(0)).error().code, ErrorCode::kNotFound);
  fs::create_directories(Path("something-else"));
  EXPECT_EQ(LoadTrainingCheckpoint(folder(), StateOf(0)).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(FindLatestCheckpoint(folder()).error().code, ErrorCode::kNotFound);
}

TEST_F(TrainingCheckpointTest, TheNewestStayAndAllElseIsLeftAlone) {
  fs::create_directories(Path("checkpoint-best"));
  std::ofstream(Path("metrics.jsonl")) << "{}\n";
  for (const int64_t step : {9, 10, 100, 101}) Save(step);
  EXPECT_EQ(Names(), (std::set<std::string>{"checkpoint-100", "checkpoint-101", "checkpoint-best", "metrics.jsonl"}));
  EXPECT_EQ(*FindLatestCheckpoint(folder()), Path("checkpoint-101"));
  Save(102, /*keep=*/1);
  EXPECT_EQ(LoadedStep(), 102);
  EXPECT_EQ(Names(), (std::set<std::string>{"checkpoint-102", "checkpoint-best", "metrics.jsonl"}));
}

TEST_F(TrainingCheckpointTest, LaterStepsOfAnAbandonedRunGo) {
  for (const int64_t step : {10, 20, 30}) Save(step, 5);
  Save(15, 5);
  EXPECT_EQ(Names(), (std::set<std::string>{"checkpoint-10", "checkpoint-15"}));
}

TEST_F(TrainingCheckpointTest, DamageOfAnyKindFallsBackToTheOneBefore) {
  Save(1);
  const std::vector<std::pair<std::string, std::function<void()>>> damages = {
      {"values",
       [&] { Damage("checkpoint-2/model.safetensors", fs::file_size(Path("checkpoint-2/model.safetensors")) - 1); }},
      {"header", [&] { Damage("checkpoint-2/model.safetensors", 0); }},
      {"cut", [&] { fs::resize_file(Path("checkpoint-2/model.safetensors"), 100); }},
      {"no tensors", [&] { fs::remove(Path("checkpoint-2/model.safetensors")); }},
      {"no state", [&] { fs::remove(Path("checkpoint-2/training_state.json")); }},
      {"empty state", [&] { fs::resize_file(Path("checkpoint-2/training_state.json"), 0); }},
      {"a digit of the state",
       [&] {
         Damage("checkpoint-2/training_state.json", std::string(R"({"format_version":1,"step":2,"tokens":8)").size());
       }},
      {"another step's",
       [&] {
         fs::remove_all(Path("checkpoint-2"));
         fs::copy(Path("checkpoint-1"), Path("checkpoint-2"));
       }},
      {"a file",
       [&] {
         fs::remove_all(Path("checkpoint-2"));
         std::ofstream(Path("checkpoint-2")) << "x";
       }},
      {"state is a folder",
       [&] {
         fs::remove(Path("checkpoint-2/training_state.json"));
         fs::create_directory(Path("checkpoint-2/training_state.json"));
       }},
  };
  for (const auto& [what, damage] : damages) {
    SCOPED_TRACE(what);
    fs::remove_all(Path("checkpoint-2"));
    Save(2);
    EXPECT_EQ(LoadedStep(), 2);
    damage();
    const Result<LoadedCheckpoint> loaded = LoadTrainingCheckpoint(folder(), StateOf(0));
    ASSERT_TRUE(loaded) << loaded.error().message;
    ExpectEqual(loaded->state, StateOf(1));
    ASSERT_EQ(loaded->warnings.size(), 1u);
    EXPECT_THAT(loaded->warnings[0], HasSubstr("checkpoint-2 is damaged and not used ("));
  }
  // All damaged: an error, never a silent new start.
  fs::remove(Path("checkpoint-1/model.safetensors"));
  EXPECT_THAT(MessageOf(LoadTrainingCheckpoint(folder(), StateOf(0))), HasSubstr("none of 2 checkpoints is complete"));
}

TEST_F(TrainingCheckpointTest, EveryFlippedBitIsFound) {
  Save(1);
  for (const char* file : {"checkpoint-1/training_state.json", "checkpoint-1/model.safetensors"}) {
    const auto size = static_cast<int64_t>(fs::file_size(Path(file)));
    for (int64_t place = 0; place < size; ++place) {
      Damage(file, place);
      // The last byte of the state is its newline: white space is not the state.
      const bool newline = place == size - 1 && file == std::string("checkpoint-1/training_state.json");
      EXPECT_TRUE(newline || !FindLatestCheckpoint(folder())) << file << " " << place;
      Damage(file, place);
    }
  }
  EXPECT_EQ(LoadedStep(), 1);
}

TEST_F(TrainingCheckpointTest, AnotherRunsCheckpointIsRefusedWithTheDifference) {
  Save(1);
  const auto message = [&](const std::function<void(TrainingState&)>& change) {
    TrainingState expected = StateOf(0);
    change(expected);
    return MessageOf(LoadTrainingCheckpoint(folder(), expected));
  };
  EXPECT_THAT(message([](TrainingState& s) { s.recipe_fingerprint = "other"; }), HasSubstr("is of another recipe"));
  EXPECT_THAT(message([](TrainingState& s) { s.parameters[0].name = "other"; }), HasSubstr("has no value.other"));
  EXPECT_THAT(message([](TrainingState& s) { s.parameters[1].shape = {4}; }),
              HasSubstr("value.q_proj_swiftkv.weight is F32 [2,2], this run's is F32 [4]"));
  EXPECT_THAT(message([](TrainingState& s) { s.parameters.pop_back(); }), HasSubstr("holds 6 tensors, this run has 3"));
}

TEST_F(TrainingCheckpointTest, SizesThatDisagreeAreRefusedAndNothingIsLeft) {
  Save(1);
  TrainingState state = StateOf(2);
  state.parameters[1].first_moment.pop_back();
  EXPECT_THAT(MessageOf(SaveTrainingCheckpoint(folder(), state)),
              HasSubstr("first_moment.q_proj_swiftkv.weight has 3 values, its shape asks for 4"));
  EXPECT_EQ(Names(), std::set<std::string>{"checkpoint-1"});
}

TEST_F(TrainingCheckpointTest, AFullDiskIsASentence) {
  Save(1);
  FaultInjector faults({.failing_call = 2, .error = ENOSPC});
  EXPECT_THAT(MessageOf(SaveTrainingCheckpoint(folder(), StateOf(2))),
              testing::AllOf(HasSubstr("the checkpoint of step 2 is not saved"), HasSubstr("the disk is full")));
}

// Each system call of a save fails, with and without the program's death: a load then finds the state before or the new
// one, and no stale file outlives the next save.
TEST_F(TrainingCheckpointTest, WhateverFailsTheOldStateOrTheNewIsThere) {
  struct Scene {
    std::vector<int64_t> saved;  // before
    int64_t step;
    int64_t keep;
  };
  for (const Scene& scene : {Scene{{}, 1, 2}, Scene{{1}, 2, 1}, Scene{{1, 2}, 3, 2}, Scene{{1, 2}, 2, 2}}) {
    for (const Faults::Then then : {Faults::kGoOn, Faults::kKilled, Faults::kPowerLost}) {
      for (int64_t call = 0;; ++call) {
        SCOPED_TRACE(fmt::format("step {} on {}, call {} fails, then {}", scene.step, scene.saved.size(), call,
                                 static_cast<int>(then)));
        fs::remove_all(folder());
        for (const int64_t step : scene.saved) Save(step);
        FaultInjector faults({.failing_call = call, .error = call % 2 == 0 ? ENOSPC : EIO, .then = then});
        const Status status = SaveTrainingCheckpoint(folder(), StateOf(scene.step), scene.keep);
        file_calls::Unlink(Path("nothing").c_str());  // so that the last death comes when all is done
        file_calls::SetObserver(nullptr);
        const int64_t before = scene.saved.empty() ? -1 : scene.saved.back();
        const int64_t found = LoadedStep();
        EXPECT_TRUE(found == scene.step || (!status && found == before)) << found;
        Save(scene.step + 1, 1);
        EXPECT_EQ(LoadedStep(), scene.step + 1);
        EXPECT_EQ(Names().size(), 1u);
        if (testing::Test::HasFailure() || !faults.failed()) break;
      }
    }
  }
}

// A child saves again and again; its step goes up the pipe when its save has returned.
[[noreturn]] void SaveForever(const std::string& folder, int pipe) {
  const Result<LoadedCheckpoint> loaded = LoadTrainingCheckpoint(folder, StateOf(0));
  int64_t step = loaded ? loaded->state.step : 0;
  while (SaveTrainingCheckpoint(folder, StateOf(++step))) {
    if (write(pipe, &step, sizeof step) != sizeof step) break;
  }
  _exit(1);
}

TEST_F(TrainingCheckpointTest, SurvivesAKillAtAnyMoment) {
  std::mt19937 random(7);
  int64_t last = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(4);
  for (int kill_number = 0; kill_number < 60 && std::chrono::steady_clock::now() < end; ++kill_number) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) SaveForever(folder(), pipe_ends[1]);
    close(pipe_ends[1]);
    usleep(random() % 60000);
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "a save failed";
    for (int64_t step = 0; read(pipe_ends[0], &step, sizeof step) == sizeof step;) last = step;
    close(pipe_ends[0]);
    const int64_t found = LoadedStep();
    ASSERT_TRUE(found >= last || (found == -1 && last == 0)) << found << " after " << last;
    last = std::max<int64_t>(found, 0);
  }
  EXPECT_GT(last, 5);
  Save(last + 1);
  EXPECT_LE(Names().size(), 2u);
}

}  // namespace
}  // namespace swiftkv
