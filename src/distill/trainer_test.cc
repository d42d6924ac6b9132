// The trainer on a device, without one: the bytes are those of the same backend on the host, and the host touches none
// of the device's memory.
#include "distill/trainer.h"

#include <gtest/gtest.h>

#include <ostream>

#include "model/fake_device.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

// Rows of three documents, one of them of a single token, where every fifth position doesn't count in the loss.
std::vector<std::vector<PackedSequence>> Batches(const ModelConfig& config, uint32_t seed) {
  std::vector<std::vector<PackedSequence>> batches(2);
  for (std::vector<PackedSequence>& batch : batches) {
    for (TokenSequence& tokens : TinySequences(config, 2, 50, seed++)) {
      PackedSequence& row = batch.emplace_back();
      row.token_ids = std::move(tokens);
      row.document_begins = {0, 17, 18};
      for (int t = 0; t < 50; ++t) row.in_loss.push_back(t % 5 == 0 ? 0 : 1);
    }
  }
  return batches;
}

void ExpectSame(const std::vector<Parameter>& a, const std::vector<Parameter>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].value, b[i].value) << a[i].name;
    EXPECT_EQ(a[i].first_moment, b[i].first_moment) << a[i].name;
    EXPECT_EQ(a[i].second_moment, b[i].second_moment) << a[i].name;
  }
}

struct TrainerCase {
  Family family;
  DType dtype;
  bool recomputes;
  int64_t group_size;
  HiddenLossKind hidden_loss;
};
// Names of tests must not hold the bytes between the fields.
void PrintTo(const TrainerCase& of, std::ostream* out) {
  *out << Name(of.family) << " " << Name(of.dtype) << " g" << of.group_size << (of.recomputes ? " recomputed" : "");
}

class TrainerDeviceTest : public testing::TestWithParam<TrainerCase> {
 protected:
  TrainerDeviceTest() : base_config_(TinyConfig(GetParam().family)), base_(TinyTensors(base_config_)) {
    student_ = *StudentConfig(base_config_, 3, GetParam().group_size);
    options_.dtype = GetParam().dtype;
    options_.activation_checkpointing = GetParam().recomputes;
    options_.hidden_loss_kind = GetParam().hidden_loss;
    options_.hidden_loss_mult = 0.2;
    options_.adamw.weight_decay = 0.01;
    options_.max_grad_norm = 0.5;
  }

  std::unique_ptr<Trainer> MakeTrainer(const kernels::Backend& backend) {
    options_.backend = &backend;
    return *Trainer::Create(student_, base_, *InitStudent(student_, base_, Init::kScaled, DType::kF32), options_);
  }

  ModelConfig base_config_;
  MemoryTensors base_;
  ModelConfig student_;
  TrainerOptions options_;
};

TEST_P(TrainerDeviceTest, StepsGiveTheHostsBytes) {
  for (const kernels::Backend* backend : {&kernels::RefBackend(), &kernels::DefaultBackend()}) {
    const FakeDevice device(*backend);
    const auto on_host = MakeTrainer(*backend);
    const auto on_device = MakeTrainer(device);
    for (uint32_t step = 0; step < 3; ++step) {
      const StepReport expected = *on_host->Step(Batches(base_config_, step), 1e-3);
      const StepReport report = *on_device->Step(Batches(base_config_, step), 1e-3);
      EXPECT_EQ(report.loss, expected.loss);
      EXPECT_EQ(report.hidden_loss, expected.hidden_loss);
      EXPECT_EQ(report.agreement, expected.agreement);
      EXPECT_EQ(report.gradient_norm, expected.gradient_norm);
    }
    EXPECT_EQ(on_device->gradients(), on_host->gradients());
    ExpectSame(*on_device->student().parameters(), *on_host->student().parameters());
  }
}

// What is measured has the updated norms and biases, too.
TEST_P(TrainerDeviceTest, QualityIsTheHosts) {
  const FakeDevice device(kernels::DefaultBackend());
  const std::vector<TokenSequence> sequences = TinySequences(base_config_, 3, 40, 99);
  std::vector<double> measured;
  for (const kernels::Backend* backend : {&kernels::DefaultBackend(), static_cast<const kernels::Backend*>(&device)}) {
    const auto trainer = MakeTrainer(*backend);
    ASSERT_TRUE(trainer->Step(Batches(base_config_, 1), 1e-2));
    measured.push_back(trainer->Measure(sequences)->kl);
  }
  EXPECT_EQ(measured[1], measured[0]);
}

TEST_P(TrainerDeviceTest, GoesOnFromWhatItSaved) {
  const FakeDevice device(kernels::DefaultBackend());
  const auto whole = MakeTrainer(device);
  ASSERT_TRUE(whole->Step(Batches(base_config_, 1), 1e-2));
  const auto resumed = MakeTrainer(device);
  ASSERT_TRUE(resumed->Restore(*whole->student().parameters(), whole->updates()));
  ASSERT_TRUE(whole->Step(Batches(base_config_, 2), 1e-2));
  ASSERT_TRUE(resumed->Step(Batches(base_config_, 2), 1e-2));
  ExpectSame(*resumed->student().parameters(), *whole->student().parameters());
}

// What could not be read is not taken for what is there, and no call is blamed for an earlier one.
TEST_P(TrainerDeviceTest, AFailedReadIsAnError) {
  FakeDevice device(kernels::DefaultBackend());
  const auto trainer = MakeTrainer(device);
  ASSERT_TRUE(trainer->Step(Batches(base_config_, 1), 1e-2));
  const std::vector<Parameter> parameters = *trainer->student().parameters();
  device.memory().FailRead(3);
  EXPECT_FALSE(trainer->student().parameters());
  device.memory().FailRead(1);
  EXPECT_FALSE(trainer->student().Tensors(DType::kF32));
  device.memory().FailRead(0);
  EXPECT_FALSE(trainer->Step(Batches(base_config_, 2), 1e-2));
  device.memory().FailAllocation(0);
  EXPECT_FALSE(trainer->Step(Batches(base_config_, 2), 1e-2));
  device.memory().FailAllocation(0);
  EXPECT_FALSE(trainer->Measure(TinySequences(base_config_, 1, 40, 99)));
  EXPECT_EQ(trainer->updates(), 1);
  const Result<std::vector<Parameter>> after = trainer->student().parameters();
  ASSERT_TRUE(after) << after.error().message;
  ExpectSame(*after, parameters);
}

// Masters made from packed weights are those that a student of the same values has.
TEST_P(TrainerDeviceTest, ARandomModelsMastersAreItsWeights) {
  const FakeDevice device(kernels::DefaultBackend());
  options_.backend = &device;
  const auto random = *Trainer::CreateRandom(student_, 1, options_);
  const auto again = *Trainer::CreateRandom(student_, 1, options_);
  ASSERT_TRUE(again->Restore(*random->student().parameters(), 0));
  EXPECT_EQ(random->ComputeGradients(Batches(base_config_, 1))->loss,
            again->ComputeGradients(Batches(base_config_, 1))->loss);
  EXPECT_EQ(random->gradients(), again->gradients());
  const std::vector<Parameter> masters = *random->student().parameters();
  for (const Parameter& parameter : masters) {
    EXPECT_NE(parameter.value, std::vector<float>(parameter.value.size())) << parameter.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TrainerDeviceTest,
                         testing::Values(TrainerCase{Family::kLlama, DType::kF32, false, 1, HiddenLossKind::kMse},
                                         TrainerCase{Family::kLlama, DType::kBF16, true, 3, HiddenLossKind::kRelative},
                                         TrainerCase{Family::kQwen2, DType::kF32, true, 1, HiddenLossKind::kRelative},
                                         TrainerCase{Family::kQwen2, DType::kBF16, false, 3, HiddenLossKind::kMse},
                                         TrainerCase{Family::kQwen3, DType::kF32, false, 3, HiddenLossKind::kRelative},
                                         TrainerCase{Family::kQwen3, DType::kBF16, true, 1, HiddenLossKind::kMse}));

}  // namespace
}  // namespace swiftkv
