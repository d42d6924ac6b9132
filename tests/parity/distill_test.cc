// The trainer against PyTorch: losses, gradients and twenty AdamW steps of tests/golden/distill (made by
// tools/make_distill_goldens.py), in float32, on every backend.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "distill/trainer.h"
#include "model/fake_device.h"
#include "model_cases.h"

namespace swiftkv {
namespace {

const std::string kFolder = SWIFTKV_SOURCE_DIR "/tests/golden/distill/";

template <class T>
T Value(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message;
    std::abort();  // a test without its model can't go on
  }
  return std::move(*result);
}

// Tensors called prefix + name, without the prefix.
class Prefixed : public TensorSource {
 public:
  Prefixed(const TensorSource& source, std::string prefix) : source_(source), prefix_(std::move(prefix)) {
    for (const std::string& name : source.names()) {
      if (name.starts_with(prefix_)) names_.push_back(name.substr(prefix_.size()));
    }
  }
  const std::vector<std::string>& names() const override { return names_; }
  const StoredTensor* Find(std::string_view name) const override { return source_.Find(prefix_ + std::string(name)); }

 private:
  const TensorSource& source_;
  std::string prefix_;
  std::vector<std::string> names_;
};

struct DistillCase {
  nlohmann::json json;
  ModelConfig config;
  std::shared_ptr<TensorSource> base;
  std::shared_ptr<TensorSource> golden;
};

std::vector<DistillCase> ReadCases() {
  std::ifstream file(kFolder + "cases.json");
  std::vector<DistillCase> cases;
  for (const auto& json : nlohmann::json::parse(file)) {
    for (const ModelCase& model : ModelCases()) {
      if (model.name != json.at("base")) continue;
      DistillCase c{json, model.config, model.base, nullptr};
      c.config.num_key_value_layers = json.at("num_key_value_layers");
      c.config.key_value_group_size = json.at("key_value_group_size");
      c.golden = Value(OpenSafetensors(kFolder + json.at("name").get<std::string>() + ".safetensors"));
      cases.push_back(std::move(c));
    }
  }
  return cases;
}

const std::vector<DistillCase>& Cases() {
  static const std::vector<DistillCase> cases = ReadCases();
  return cases;
}

std::vector<PackedSequence> Rows(const nlohmann::json& json) {
  std::vector<PackedSequence> rows;
  for (const auto& row : json) {
    rows.push_back({row.at("token_ids").get<std::vector<int32_t>>(), row.at("in_loss").get<std::vector<uint8_t>>(),
                    row.at("document_begins").get<std::vector<int64_t>>()});
  }
  return rows;
}

TrainerOptions Options(const nlohmann::json& json, DType dtype) {
  TrainerOptions options;
  options.dtype = dtype;
  options.logits_loss_temp = json.at("temperature");
  options.hidden_loss_mult = json.at("hidden_loss_mult");
  options.hidden_loss_kind = json.at("hidden_loss") == "relative" ? HiddenLossKind::kRelative : HiddenLossKind::kMse;
  options.adamw.weight_decay = json.at("optimizer").at("weight_decay");
  options.max_grad_norm = json.at("optimizer").at("max_grad_norm");
  return options;
}

std::unique_ptr<Trainer> MakeTrainer(const DistillCase& c, TrainerOptions options) {
  return Value(Trainer::Create(c.config, *c.base, Prefixed(*c.golden, "initial."), options));
}

std::vector<float> Read(const TensorSource& source, const std::string& name) {
  const StoredTensor* tensor = source.Find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << "no golden " << name;
    return {};
  }
  std::vector<float> values(static_cast<size_t>(tensor->rows() * tensor->columns()));
  EXPECT_TRUE(DecodeRows(*tensor, 0, tensor->rows(), values.data()));
  return values;
}

// |actual - expected| / |expected|, in 2-norms.
double Distance(const std::vector<float>& actual, const std::vector<float>& expected) {
  EXPECT_EQ(actual.size(), expected.size());
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
    const double d = static_cast<double>(actual[i]) - static_cast<double>(expected[i]);
    difference += d * d;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return std::sqrt(difference / norm);
}

class DistillTest : public testing::TestWithParam<size_t> {
 protected:
  const DistillCase& golden() const { return Cases()[GetParam()]; }

  void CheckGradients(const Trainer& trainer, double tolerance) const {
    const std::span<const ResidentParameter> parameters = trainer.student().resident();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const std::vector<float> expected = Read(*golden().golden, "gradient." + parameters[i].name);
      EXPECT_LE(Distance(trainer.gradients()[i], expected), tolerance) << parameters[i].name;
    }
  }

  // In float32, each number within `tolerance` of its size.
  void CheckLossAndGradients(const kernels::Backend& backend, double tolerance) const {
    const nlohmann::json& expected = golden().json.at("expected");
    TrainerOptions options = Options(golden().json, DType::kF32);
    options.backend = &backend;
    const auto trainer = MakeTrainer(golden(), options);
    const std::vector<std::vector<PackedSequence>> batch = {Rows(golden().json.at("rows"))};
    const StepReport report = Value(trainer->ComputeGradients(batch));
    EXPECT_NEAR(report.kl_loss, expected.at("kl"), tolerance * expected.at("kl").get<double>());
    EXPECT_NEAR(report.hidden_loss, expected.at("hidden"), tolerance * expected.at("hidden").get<double>());
    EXPECT_NEAR(report.loss, expected.at("loss"), tolerance * expected.at("loss").get<double>());
    EXPECT_NEAR(report.agreement, expected.at("agreement"), 1e-9);
    EXPECT_NEAR(report.gradient_norm, expected.at("grad_norm"), tolerance * expected.at("grad_norm").get<double>());
    CheckGradients(*trainer, tolerance);
  }

  std::vector<StepReport> TrainTwentySteps(Trainer* trainer) const {
    const nlohmann::json& steps = golden().json.at("steps");
    const nlohmann::json& optimizer = golden().json.at("optimizer");
    const std::vector<PackedSequence> rows = Rows(golden().json.at("rows"));
    const ScheduleOptions schedule{
        .kind = optimizer.at("schedule") == "cosine" ? ScheduleKind::kCosine : ScheduleKind::kLinear,
        .learning_rate = optimizer.at("learning_rate"),
        .steps = optimizer.at("steps"),
        .warmup_steps = optimizer.at("warmup_steps")};
    std::vector<StepReport> reports;
    for (size_t step = 0; step < steps.at("rows").size(); ++step) {
      std::vector<std::vector<PackedSequence>> batch(1);
      for (const size_t row : steps.at("rows")[step].get<std::vector<size_t>>()) batch[0].push_back(rows[row]);
      const double rate = LearningRate(schedule, static_cast<int64_t>(step));
      EXPECT_NEAR(rate, steps.at("learning_rate")[step], 1e-9);
      reports.push_back(Value(trainer->Step(batch, rate)));
    }
    return reports;
  }
};

TEST_P(DistillTest, LossAndGradientsAreTorchs) {
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    SCOPED_TRACE(backend->name());
    CheckLossAndGradients(*backend, 1e-4);
  }
}

TEST_P(DistillTest, LossAndGradientsAreTorchsOnAGpu) {
  const Result<const kernels::Backend*> cuda = kernels::CudaBackend();
  if (!cuda) GTEST_SKIP() << cuda.error().message;
  CheckLossAndGradients(**cuda, 1e-3);
  TrainerOptions options = Options(golden().json, DType::kBF16);
  options.backend = *cuda;
  const auto trainer = MakeTrainer(golden(), options);
  const std::vector<std::vector<PackedSequence>> batch = {Rows(golden().json.at("rows"))};
  const double expected = golden().json.at("expected").at("loss");
  EXPECT_NEAR(Value(trainer->ComputeGradients(batch)).loss, expected, 0.03 * expected);
  CheckGradients(*trainer, 0.12);
}

TEST_P(DistillTest, RecomputationGivesTheSameBytes) {
  TrainerOptions options = Options(golden().json, DType::kF32);
  const std::vector<std::vector<PackedSequence>> batch = {Rows(golden().json.at("rows"))};
  const auto kept = MakeTrainer(golden(), options);
  options.activation_checkpointing = true;
  const auto recomputed = MakeTrainer(golden(), options);
  Value(kept->ComputeGradients(batch));
  Value(recomputed->ComputeGradients(batch));
  EXPECT_EQ(kept->gradients(), recomputed->gradients());
}

TEST_P(DistillTest, MicroBatchesAddUpToTheWholeBatch) {
  const auto trainer = MakeTrainer(golden(), Options(golden().json, DType::kF32));
  std::vector<std::vector<PackedSequence>> batches;
  for (const PackedSequence& row : Rows(golden().json.at("rows"))) batches.push_back({row});
  Value(trainer->ComputeGradients(batches));
  CheckGradients(*trainer, 1e-4);
}

TEST_P(DistillTest, Bf16GradientsAreNear) {
  const auto trainer = MakeTrainer(golden(), Options(golden().json, DType::kBF16));
  const std::vector<std::vector<PackedSequence>> batch = {Rows(golden().json.at("rows"))};
  const StepReport report = Value(trainer->ComputeGradients(batch));
  const double expected = golden().json.at("expected").at("loss");
  EXPECT_NEAR(report.loss, expected, 0.03 * expected);
  // These weights are large and random: a gradient passes a dozen roundings of 2^-9 each.
  CheckGradients(*trainer, 0.12);
}

TEST_P(DistillTest, TwentyStepsFollowTorch) {
  const nlohmann::json& steps = golden().json.at("steps");
  const auto trainer = MakeTrainer(golden(), Options(golden().json, DType::kF32));
  const std::vector<StepReport> reports = TrainTwentySteps(trainer.get());
  for (size_t step = 0; step < reports.size(); ++step) {
    const double loss = steps.at("loss")[step];
    const double norm = steps.at("grad_norm")[step];
    EXPECT_NEAR(reports[step].loss, loss, 1e-4 * loss) << "step " << step;
    EXPECT_NEAR(reports[step].gradient_norm, norm, 1e-3 * norm) << "step " << step;
  }
  for (const Parameter& parameter : Value(trainer->student().parameters())) {
    EXPECT_LE(Distance(parameter.value, Read(*golden().golden, "final." + parameter.name)), 2e-4) << parameter.name;
  }
}

TEST_P(DistillTest, TwentyStepsOnADeviceGiveTheHostsBytes) {
  const FakeDevice device(kernels::DefaultBackend());
  TrainerOptions options = Options(golden().json, DType::kF32);
  const auto on_host = MakeTrainer(golden(), options);
  options.backend = &device;
  const auto on_device = MakeTrainer(golden(), options);
  const std::vector<StepReport> expected = TrainTwentySteps(on_host.get());
  const std::vector<StepReport> reports = TrainTwentySteps(on_device.get());
  for (size_t step = 0; step < reports.size(); ++step) {
    EXPECT_EQ(reports[step].loss, expected[step].loss) << "step " << step;
    EXPECT_EQ(reports[step].gradient_norm, expected[step].gradient_norm) << "step " << step;
  }
  EXPECT_EQ(on_device->gradients(), on_host->gradients());
  const std::vector<Parameter> parameters = Value(on_device->student().parameters());
  const std::vector<Parameter> on_hosts = Value(on_host->student().parameters());
  for (size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_EQ(parameters[i].value, on_hosts[i].value) << parameters[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, DistillTest, testing::Range<size_t>(0, Cases().size()), [](const auto& info) {
  return Cases()[info.param].json.at("name").template get<std::string>();
});

}  // namespace
}  // namespace swiftkv
