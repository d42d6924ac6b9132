// The closed-form calibration on tiny random models.
#include "model/calibration.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/attention_received.h"
#include "model/quality.h"
#include "model/tiny_model.h"

namespace swiftkv {
namespace {

double Kl(const ModelConfig& student, const MemoryTensors& base, const MemoryTensors& tensors) {
  const auto weights = LoadWeights(student, base, &tensors, {.dtype = DType::kF32, .teacher = true});
  EXPECT_TRUE(weights) << weights.error().message;
  const auto quality = MeasureQuality(*weights, TinySequences(student, 4, 40, 99));
  EXPECT_TRUE(quality);
  return quality->kl;
}

struct Case {
  Family family;
  int64_t n;
  int64_t g;
  TokenWeights weights;
};

class CalibrationCase : public testing::TestWithParam<Case> {};

TEST_P(CalibrationCase, StrictlyCloserThanCopies) {
  const Case& c = GetParam();
  const ModelConfig base = TinyConfig(c.family);
  const MemoryTensors tensors = TinyTensors(base);
  const ModelConfig student = *StudentConfig(base, c.n, c.g);
  const auto teacher = LoadWeights(base, tensors, nullptr, {.dtype = DType::kF32});
  ASSERT_TRUE(teacher);
  const auto fit = Calibrate(*teacher, student, tensors, TinySequences(base, 30, 40, 3), DType::kF32,
                             {.lambda = 1e-4, .token_weights = c.weights, .progress = nullptr});
  ASSERT_TRUE(fit) << fit.error().message;
  EXPECT_EQ(fit->tokens, 1200);
  EXPECT_EQ(fit->fits.size(), static_cast<size_t>(6 - c.n));
  for (const LayerFit& layer : fit->fits) {
    EXPECT_LT(layer.k_unexplained, 1);
    EXPECT_GE(layer.k_unexplained, -1e-6);
  }
  // Layer n reads the state that its keys and values are made from.
  EXPECT_LT(fit->fits.front().k_unexplained, 1e-3);

  const auto copies = InitStudent(student, tensors, Init::kReference, DType::kF32);
  ASSERT_TRUE(copies);
  // Random layers have no keys and values in common, so a shared fit can gain little here.
  EXPECT_LT(Kl(student, tensors, fit->tensors), (c.g == 1 ? 0.8 : 1.0) * Kl(student, tensors, *copies));
}

INSTANTIATE_TEST_SUITE_P(
    Families, CalibrationCase,
    testing::Values(Case{Family::kLlama, 3, 1, TokenWeights::kHead}, Case{Family::kLlama, 3, 1, TokenWeights::kLayer},
                    Case{Family::kLlama, 3, 1, TokenWeights::kUniform}, Case{Family::kLlama, 2, 2, TokenWeights::kHead},
                    Case{Family::kLlama, 3, 3, TokenWeights::kUniform}, Case{Family::kQwen2, 3, 1, TokenWeights::kHead},
                    Case{Family::kQwen2, 2, 2, TokenWeights::kLayer}, Case{Family::kQwen3, 3, 1, TokenWeights::kHead},
                    Case{Family::kQwen3, 2, 2, TokenWeights::kHead}));

// Two layers whose keys differ by a turn of each pair: sharing loses nothing, because queries turn along.
TEST(Calibration, SharedKeysFollowATurn) {
  const ModelConfig base = TinyConfig();
  MemoryTensors tensors = TinyTensors(base);
  const auto set = [&](int64_t layer, const std::string& part, std::vector<float> values) {
    tensors.Set(AttentionTensorName(layer, part), {static_cast<int64_t>(values.size()) / 32, 32}, values);
  };
  // Layer 4 hands its input on unchanged, so that layer 5 sees the same state.
  set(4, "o_proj.weight", std::vector<float>(32 * 32, 0.0f));
  tensors.Set("model.layers.4.mlp.down_proj.weight", {32, 48}, std::vector<float>(32 * 48, 0.0f));
  const auto norm = *ReadTensor(tensors, "model.layers.4.input_layernorm.weight", {32});
  tensors.Set("model.layers.5.input_layernorm.weight", {32}, norm);
  const auto k = *ReadTensor(tensors, AttentionTensorName(4, "k_proj.weight"), {16, 32});
  std::vector<float> turned(k.size());
  for (size_t head = 0; head < 2; ++head) {
    for (size_t pair = 0; pair < 4; ++pair) {
      const float cosine = std::cos(0.9f + static_cast<float>(pair)), sine = std::sin(0.9f + static_cast<float>(pair));
      for (size_t i = 0; i < 32; ++i) {
        const size_t real = (head * 8 + pair) * 32 + i;
        const size_t imaginary = real + 4 * 32;
        turned[real] = 1.5f * (cosine * k[real] - sine * k[imaginary]);
        turned[imaginary] = 1.5f * (sine * k[real] + cosine * k[imaginary]);
      }
    }
  }
  set(5, "k_proj.weight", turned);
  set(5, "v_proj.weight", *ReadTensor(tensors, AttentionTensorName(4, "v_proj.weight"), {16, 32}));

  const ModelConfig student = *StudentConfig(base, 4, 2);
  const auto teacher = LoadWeights(base, tensors, nullptr, {.dtype = DType::kF32});
  ASSERT_TRUE(teacher);
  const auto fit = Calibrate(*teacher, student, tensors, TinySequences(base, 30, 40, 3), DType::kF32,
                             {.lambda = 1e-9, .token_weights = TokenWeights::kUniform, .progress = nullptr});
  ASSERT_TRUE(fit);
  EXPECT_LT(Kl(student, tensors, fit->tensors), 1e-6);
}

TEST(Calibration, NeedsTokens) {
  const ModelConfig base = TinyConfig();
  const MemoryTensors tensors = TinyTensors(base);
  const auto teacher = LoadWeights(base, tensors, nullptr, {.dtype = DType::kF32});
  ASSERT_TRUE(teacher);
  EXPECT_FALSE(Calibrate(*teacher, *StudentConfig(base, 3, 1), tensors, {}, DType::kF32, {}));
}

// Against attention as it is written in the papers, in double.
TEST(AttentionReceived, EqualsPlainAttention) {
  ModelConfig config = TinyConfig();
  config.sliding_window[2] = 5;
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  const std::vector<int64_t> lengths = {9, 4};
  std::vector<float> q(13 * 32), k(13 * 16);
  for (float& value : q) value = 2 * normal(random);
  for (float& value : k) value = 2 * normal(random);
  for (const int64_t layer : {0, 2}) {
    std::vector<float> received(2 * 13);
    AttentionReceived attention(config, kernels::RefBackend());
    ASSERT_TRUE(attention.Compute(layer, lengths, q, k, nullptr, nullptr, received.data()));
    std::vector<double> expected(2 * 13);
    const auto rotated = [&](const std::vector<float>& x, int64_t stride, int64_t row, int64_t head, int64_t position) {
      std::vector<double> out(8);
      for (int i = 0; i < 4; ++i) {
        const double angle = static_cast<double>(position) * std::pow(config.rope.rope_theta, -2.0 * i / 8);
        const double a = x[static_cast<size_t>(row * stride + head * 8 + i)];
        const double b = x[static_cast<size_t>(row * stride + head * 8 + i + 4)];
        out[static_cast<size_t>(i)] = a * std::cos(angle) - b * std::sin(angle);
        out[static_cast<size_t>(i + 4)] = b * std::cos(angle) + a * std::sin(angle);
      }
      return out;
    };
    int64_t first = 0;
    for (const int64_t length : lengths) {
      for (int64_t head = 0; head < 4; ++head) {
        for (int64_t i = 0; i < length; ++i) {
          const auto query = rotated(q, 32, first + i, head, i);
          std::vector<double> weight;
          const int64_t begin = layer == 2 ? std::max<int64_t>(0, i - 4) : 0;
          double sum = 0;
          for (int64_t t = begin; t <= i; ++t) {
            const auto key = rotated(k, 16, first + t, head / 2, t);
            double dot = 0;
            for (size_t d = 0; d < 8; ++d) dot += query[d] * key[d];
            weight.push_back(std::exp(dot / std::sqrt(8.0)));
            sum += weight.back();
          }
          for (int64_t t = begin; t <= i; ++t) {
            expected[static_cast<size_t>((head / 2) * 13 + first + t)] +=
                weight[static_cast<size_t>(t - begin)] / sum / 2;
          }
        }
      }
      first += length;
    }
    for (size_t i = 0; i < received.size(); ++i) EXPECT_NEAR(received[i], expected[i], 1e-4) << i;
  }
}

}  // namespace
}  // namespace swiftkv
