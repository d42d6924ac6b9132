// Everything that the model puts on a device, without one: the bytes are the host's, and the host touches none of it.
#include <gtest/gtest.h>

#include <numeric>
#include <optional>
#include <random>

#include "model/fake_device.h"
#include "model/forward.h"
#include "model/quality.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

using Logits = std::vector<float>;

TEST(FakeDeviceTest, CrashesWhenTheHostTouchesItsMemory) {
  FakeDevice device(kernels::RefBackend());
  AlignedBuffer buffer = *AlignedBuffer::Allocate(8, "test", device.memory());
  const int64_t written = 7;
  device.memory().Write(buffer.data(), &written, sizeof written);
  int64_t read = 0;
  device.memory().Read(&read, buffer.data(), sizeof read);
  EXPECT_EQ(read, 7);
  EXPECT_DEATH(*buffer.as<volatile int64_t>() = 8, "");
}

TEST(FakeDeviceTest, FailsWhenAsked) {
  FakeDevice device(kernels::RefBackend());
  AlignedBuffer buffer = *AlignedBuffer::Allocate(8, "test", device.memory());
  int64_t read = 7;
  device.memory().FailRead(1);
  device.memory().Read(&read, buffer.data(), sizeof read);
  EXPECT_EQ(read, 0);
  EXPECT_TRUE(device.TakeError());
  read = 7;
  device.memory().Read(&read, buffer.data(), sizeof read);
  EXPECT_EQ(read, 7);
  EXPECT_TRUE(device.memory().failed());
  EXPECT_FALSE(device.TakeError());
  EXPECT_TRUE(device.TakeError());
  device.memory().FailAllocation(0);
  EXPECT_FALSE(AlignedBuffer::Allocate(8, "test", device.memory()));
  EXPECT_FALSE(device.TakeError());
  EXPECT_TRUE(AlignedBuffer::Allocate(8, "test", device.memory()));
}

// Attention there is made for so many dimensions, and would leave the others out.
TEST(DeviceLimitsTest, LargerHeadsAreRefused) {
  const FakeDevice device(kernels::RefBackend());
  ModelConfig config = TinyConfig();
  config.head_dim = 256;
  EXPECT_TRUE(RandomWeights(config, 1, {.backend = &device}));
  config.head_dim = 258;
  EXPECT_TRUE(RandomWeights(config, 1, {.backend = &kernels::RefBackend()}));
  const Result<Weights> refused = RandomWeights(config, 1, {.backend = &device});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidInput);
  EXPECT_NE(refused.error().message.find("head_dim 258"), std::string::npos);
}

// Two prompts in chunks, some of whose logits are wanted, and then answers.
std::vector<Logits> RunSteps(const Weights& weights, Mode mode) {
  Forward forward(weights, mode);
  KvCache cache = *KvCache::Create(forward.cache_layout(), 8);
  const std::vector<int32_t> tables[] = {{0, 2, 4}, {5, 3, 1}};
  std::vector<Logits> all;
  const auto run = [&](std::vector<SequenceChunk> chunks, std::vector<int32_t> logit_rows) {
    Step step{.token_ids = {}, .chunks = std::move(chunks), .logit_rows = std::move(logit_rows)};
    for (const SequenceChunk& chunk : step.chunks) {
      for (int64_t t = 0; t < chunk.tokens; ++t) {
        step.token_ids.push_back(static_cast<int32_t>((chunk.position + t) * 17 + chunk.token_begin) % 96);
      }
    }
    ASSERT_TRUE(forward.Run(step, &cache).has_value());
    const auto rows = std::ssize(step.logit_rows);
    Logits& logits = all.emplace_back(static_cast<size_t>(rows * weights.config.vocab_size));
    ASSERT_TRUE(forward.Logits(0, rows, logits.data()).has_value());
  };
  run({{0, 20, 0, tables[0]}, {20, 9, 0, tables[1]}}, {28});
  run({{0, 11, 20, tables[0]}, {11, 1, 9, tables[1]}}, {10, 11});
  run({{0, 1, 31, tables[0]}, {1, 1, 10, tables[1]}}, {0, 1});
  return all;
}

class DeviceTest : public testing::TestWithParam<const kernels::Backend*> {};

TEST_P(DeviceTest, ForwardGivesTheHostsBytes) {
  const FakeDevice device(*GetParam());
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ModelConfig config = TinyConfig(family);
      config.num_key_value_layers = 3;
      LoadOptions options{.dtype = dtype, .teacher = true, .backend = GetParam()};
      const Weights on_host = *RandomWeights(config, 1, options);
      options.backend = &device;
      const Weights on_device = *RandomWeights(config, 1, options);
      for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
        EXPECT_EQ(RunSteps(on_device, mode), RunSteps(on_host, mode));
      }
    }
  }
}

// Answers beside prompts, in chunks, with few blocks each: what a scheduler may ask for.
class RandomSteps {
 public:
  static constexpr int32_t kSequences = 20;
  static constexpr int32_t kBlocks = 4;  // of a sequence

  explicit RandomSteps(uint32_t seed) : random_(seed), lengths_(kSequences), tables_(kSequences) {
    for (size_t i = 0; i < kSequences; ++i) {
      tables_[i].resize(kBlocks);
      std::iota(tables_[i].begin(), tables_[i].end(), static_cast<int32_t>(i) * kBlocks);
    }
  }
  Step Next() {
    Step step;
    const auto sequences = static_cast<size_t>(Draw(1, kSequences));
    const bool answers = Draw(0, 3) == 0;
    for (size_t i = 0; i < sequences; ++i) {
      const int32_t tokens = answers || Draw(0, 1) == 0 ? 1 : Draw(1, 8);
      if (lengths_[i] + tokens > kBlocks * kKvBlockTokens) lengths_[i] = 0;
      const auto begin = std::ssize(step.token_ids);
      step.chunks.push_back(
          {.token_begin = begin, .tokens = tokens, .position = lengths_[i], .block_table = tables_[i]});
      lengths_[i] += tokens;
      const bool scores = !answers && Draw(0, 9) == 0;
      const bool is_answered = answers || Draw(0, 3) > 0;
      for (int32_t t = 0; t < tokens; ++t) {
        if (scores || (is_answered && t == tokens - 1)) step.logit_rows.push_back(static_cast<int32_t>(begin + t));
        step.token_ids.push_back(Draw(0, 95));
      }
    }
    return step;
  }

 private:
  int32_t Draw(int32_t from, int32_t to) { return std::uniform_int_distribution<int32_t>(from, to)(random_); }

  std::mt19937 random_;
  std::vector<int32_t> lengths_;
  std::vector<std::vector<int32_t>> tables_;
};

std::vector<Logits> RunRandomSteps(const Weights& weights, Mode mode, uint32_t seed) {
  RandomSteps steps(seed);
  KvCache cache = *KvCache::Create(CacheLayout(weights, mode), RandomSteps::kSequences * RandomSteps::kBlocks);
  std::vector<Logits> all;
  std::optional<Forward> forward;
  for (int i = 0; i < 60; ++i) {
    if (i % 2 == 0) forward.emplace(weights, mode);  // without work memory that an earlier step has left
    const Step step = steps.Next();
    EXPECT_TRUE(forward->Run(step, &cache).has_value());
    const auto rows = std::ssize(step.logit_rows);
    if (rows == 0) continue;
    all.emplace_back(static_cast<size_t>(rows * weights.config.vocab_size));
    EXPECT_TRUE(forward->Logits(0, rows, all.back().data()).has_value());
  }
  return all;
}

TEST_P(DeviceTest, StepsOfAllShapesStayWithinTheirMemory) {
  const FakeDevice device(*GetParam());
  ModelConfig config = TinyConfig();
  config.num_key_value_layers = 3;
  LoadOptions options{.dtype = DType::kBF16, .teacher = true, .backend = GetParam()};
  const Weights on_host = *RandomWeights(config, 1, options);
  options.backend = &device;
  const Weights on_device = *RandomWeights(config, 1, options);
  for (const Mode mode : {Mode::kTeacher, Mode::kStudent}) {
    for (uint32_t seed = 1; seed <= 2; ++seed) {
      EXPECT_EQ(RunRandomSteps(on_device, mode, seed), RunRandomSteps(on_host, mode, seed));
      ASSERT_TRUE(device.memory().intact()) << "seed " << seed;
    }
  }
}

// Two steps, the second of which needs more of everything, longer tables of rotary embedding too. The allocation
// `failing` finds no memory (below 0: none); the step that it belongs to runs again. True in `failed`: there was such
// an allocation.
Logits RunWithFailure(const FakeDevice& device, const Weights& weights, int64_t failing, bool* failed) {
  FakeDeviceMemory& memory = device.memory();
  std::vector<int32_t> table(1100);
  KvCache cache = *KvCache::Create(CacheLayout(weights, Mode::kStudent), std::ssize(table));
  Forward forward(weights, Mode::kStudent);
  std::iota(table.begin(), table.end(), 0);
  Logits logits(static_cast<size_t>(weights.config.vocab_size));
  memory.FailAllocation(failing);
  int failures = 0;
  for (const SequenceChunk& chunk : {SequenceChunk{0, 8, 0, table}, SequenceChunk{0, 40, 16380, table}}) {
    Step step{.token_ids = {}, .chunks = {chunk}, .logit_rows = {static_cast<int32_t>(chunk.tokens - 1)}};
    for (int64_t t = 0; t < chunk.tokens; ++t) step.token_ids.push_back(static_cast<int32_t>(t * 7 % 96));
    const auto run = [&]() -> Status {
      SWIFTKV_RETURN_IF_ERROR(forward.Run(step, &cache));
      return forward.Logits(0, 1, logits.data());
    };
    Status status = run();
    if (!status) {
      ++failures;
      EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
      EXPECT_FALSE(device.TakeError());
      status = run();
    }
    EXPECT_TRUE(status.has_value());
  }
  *failed = failing >= 0 && memory.failed();
  EXPECT_EQ(failures, *failed ? 1 : 0);
  memory.FailAllocation(-1);
  return logits;
}

TEST(DeviceMemoryTest, AStepGoesThroughOnceThereIsMemoryForIt) {
  const FakeDevice device(kernels::DefaultBackend());
  ModelConfig config = TinyConfig();
  config.num_key_value_layers = 3;
  config.max_position_embeddings = 40000;
  const Weights weights = *RandomWeights(config, 1, {.dtype = DType::kF32, .backend = &device});
  bool failed = false;
  const Logits expected = RunWithFailure(device, weights, -1, &failed);
  int64_t failing = 0;
  do {
    EXPECT_EQ(RunWithFailure(device, weights, failing, &failed), expected) << "allocation " << failing;
    ++failing;
  } while (failed);
  EXPECT_GT(failing, 30);
}

TEST(DeviceErrorTest, LoadingTellsWhatTheDeviceSaid) {
  const FakeDevice device(kernels::DefaultBackend());
  device.memory().Fail({ErrorCode::kInternal, "a kernel failed"});
  const Result<Weights> weights = RandomWeights(TinyConfig(), 1, {.backend = &device});
  ASSERT_FALSE(weights.has_value());
  EXPECT_EQ(weights.error().message, "a kernel failed");
}

TEST(DeviceQualityTest, IsTheHosts) {
  const FakeDevice device(kernels::DefaultBackend());
  ModelConfig config = TinyConfig();
  config.num_key_value_layers = 3;
  const std::vector<TokenSequence> sequences = TinySequences(config, 3, 30, 1);
  LoadOptions options{.dtype = DType::kF32, .teacher = true};
  const Quality expected = *MeasureQuality(*RandomWeights(config, 1, options), sequences);
  options.backend = &device;
  const Quality quality = *MeasureQuality(*RandomWeights(config, 1, options), sequences);
  EXPECT_EQ(quality.kl, expected.kl);
  EXPECT_EQ(quality.agreement, expected.agreement);
  EXPECT_EQ(quality.student_nll, expected.student_nll);
}

// Keeps the input of one layer in the backend's memory.
class KeptInput : public ForwardObserver {
 public:
  KeptInput(int64_t layer, MemorySpace& memory) : layer_(layer), memory_(memory) {}
  bool StaysInMemory() const override { return true; }
  void LayerInput(int64_t layer, std::span<const float> hidden) override {
    if (layer != layer_) return;
    kept_ = *AlignedBuffer::Allocate(static_cast<int64_t>(hidden.size_bytes()), "layer input", memory_);
    memory_.Copy(kept_.data(), reinterpret_cast<const std::byte*>(hidden.data()), kept_.bytes());
  }
  std::vector<float> Values() const {
    std::vector<float> values(static_cast<size_t>(kept_.bytes()) / sizeof(float));
    memory_.Read(values.data(), kept_.data(), kept_.bytes());
    return values;
  }

 private:
  int64_t layer_;
  MemorySpace& memory_;
  AlignedBuffer kept_;
};

TEST_P(DeviceTest, ShowsTheResidualStreamWhereItIs) {
  const FakeDevice device(*GetParam());
  ModelConfig config = TinyConfig();
  config.num_key_value_layers = 3;
  const std::vector<TokenSequence> sequences = TinySequences(config, 2, 20, 1);
  std::vector<std::vector<float>> inputs;
  for (const kernels::Backend* backend : {GetParam(), static_cast<const kernels::Backend*>(&device)}) {
    const Weights weights = *RandomWeights(config, 1, {.dtype = DType::kF32, .teacher = true, .backend = backend});
    SequenceRunner teacher(weights, Mode::kTeacher);
    KeptInput observer(3, backend->memory());
    ASSERT_TRUE(teacher.Run(sequences, &observer, std::vector<int32_t>{7}).has_value());
    inputs.push_back(observer.Values());
  }
  EXPECT_EQ(inputs[0].size(), 2 * 20 * 32U);
  EXPECT_EQ(inputs[1], inputs[0]);
}

TEST(DeviceObserverTest, OneThatReadsTheHostsMemoryIsRefused) {
  const FakeDevice device(kernels::RefBackend());
  const ModelConfig config = TinyConfig();
  const Weights weights = *RandomWeights(config, 1, {.backend = &device});
  SequenceRunner runner(weights, Mode::kTeacher);
  ForwardObserver observer;
  const Status status = runner.Run(TinySequences(config, 1, 4, 1), &observer);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kInternal);
}

TEST_P(DeviceTest, TransposedMatricesAreTheHosts) {
  const FakeDevice device(*GetParam());
  std::vector<float> values(130 * 70);
  std::iota(values.begin(), values.end(), -4000.0f);
  kernels::PackedMatrix w = *device.AllocatePacked(130, 70, DType::kBF16);
  device.PackRows(values.data(), 0, 130, &w);
  kernels::PackedMatrix transposed = *device.AllocatePacked(70, 130, DType::kBF16);
  ASSERT_TRUE(device.TransposePacked(w, &transposed).has_value());
  kernels::PackedMatrix expected = *GetParam()->AllocatePacked(70, 130, DType::kBF16);
  GetParam()->PackTransposed(values.data(), DType::kF32, 130, 70, &expected);
  std::vector<std::byte> bytes(static_cast<size_t>(transposed.data.bytes()));
  device.memory().Read(bytes.data(), transposed.data.data(), transposed.data.bytes());
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.data.data()));
}

INSTANTIATE_TEST_SUITE_P(Backends, DeviceTest, testing::ValuesIn(kernels::AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

}  // namespace
}  // namespace swiftkv
