// The default model against transformers, where it is present (scripts/setup gets it); SWIFTKV_PARITY_MODEL names
// another copy, a folder or a .gguf file. Goldens: tools/make_smollm2_goldens.py.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "model/model_files.h"
#include "model_cases.h"

namespace swiftkv {
namespace {

const std::string kGoldens = SWIFTKV_SOURCE_DIR "/tests/golden/model/smollm2.safetensors";
constexpr int64_t kFixedIds = 4;

template <class T>
std::vector<T> Read(const TensorSource& source, const char* name) {
  const StoredTensor* tensor = source.Find(name);
  std::vector<T> values(tensor->data.size() / sizeof(T));
  std::memcpy(values.data(), tensor->data.data(), tensor->data.size());
  return values;
}

struct Goldens {
  explicit Goldens(const TensorSource& source)
      : token_ids(Read<int32_t>(source, "token_ids")),
        lengths(Read<int32_t>(source, "lengths")),
        top_ids(Read<int32_t>(source, "top_ids")),
        fixed_ids(Read<int32_t>(source, "fixed_ids")),
        top_logits(Read<float>(source, "top_logits")),
        log_sum_exp(Read<float>(source, "log_sum_exp")),
        fixed_logits(Read<float>(source, "fixed_logits")),
        bf16_kl(Read<float>(source, "bf16_kl")[0]),
        bf16_top1(Read<float>(source, "bf16_top1")[0]) {}

  std::vector<int32_t> token_ids;   // [positions]
  std::vector<int32_t> lengths;     // of each sequence
  std::vector<int32_t> top_ids;     // [positions]
  std::vector<int32_t> fixed_ids;   // [kFixedIds]
  std::vector<float> top_logits;    // [positions]
  std::vector<float> log_sum_exp;   // [positions]
  std::vector<float> fixed_logits;  // [positions, kFixedIds]
  float bf16_kl;                    // transformers' BF16 against its FP32
  float bf16_top1;
};

// What one position of ours says about the golden's.
struct Distance {
  double logits = 0;       // largest relative error
  int64_t other_top1 = 0;  // positions with another most likely token
  double kl = 0;           // sum over positions, our FP32 to our BF16
  int64_t bf16_top1 = 0;   // positions where both agree
};

double RelativeError(float actual, float golden) {
  return std::fabs(static_cast<double>(actual) - golden) / std::max(1.0, std::fabs(static_cast<double>(golden)));
}

void Compare(const Goldens& goldens, size_t position, const float* float32, const float* bfloat16, int64_t vocab,
             Distance* distance) {
  const kernels::Backend& ops = kernels::DefaultBackend();
  kernels::LogitStats exact;
  kernels::LogitStats rounded;
  float kl = 0;
  ops.ComputeLogitStats(float32, 1, vocab, &exact);
  ops.ComputeLogitStats(bfloat16, 1, vocab, &rounded);
  ops.KlDivergence(float32, bfloat16, 1, vocab, &kl);
  double error = Worse(RelativeError(float32[goldens.top_ids[position]], goldens.top_logits[position]),
                       RelativeError(exact.log_sum_exp, goldens.log_sum_exp[position]));
  for (size_t i = 0; i < kFixedIds; ++i) {
    error = Worse(error, RelativeError(float32[goldens.fixed_ids[i]], goldens.fixed_logits[position * kFixedIds + i]));
  }
  distance->logits = Worse(distance->logits, error);
  distance->other_top1 += exact.argmax != goldens.top_ids[position] ? 1 : 0;
  distance->kl += kl;
  distance->bf16_top1 += exact.argmax == rounded.argmax ? 1 : 0;
}

TEST(SmolLm2Test, Float32IsTransformersAndBFloat16IsNoFartherThanItsOwn) {
  const char* named = std::getenv("SWIFTKV_PARITY_MODEL");
  const auto files = OpenModelFiles(named != nullptr ? named : std::string(kDefaultModel), "");
  if (named == nullptr && !files) GTEST_SKIP() << files.error().message;
  ASSERT_TRUE(files.has_value()) << files.error().message;
  const auto golden_file = OpenSafetensors(kGoldens);
  ASSERT_TRUE(golden_file.has_value()) << golden_file.error().message;
  const Goldens goldens(**golden_file);
  const auto float32 = LoadWeights(files->config, *files->base, nullptr, {.dtype = DType::kF32});
  const auto bfloat16 = LoadWeights(files->config, *files->base, nullptr, {.dtype = DType::kBF16});
  ASSERT_TRUE(float32.has_value()) << float32.error().message;
  ASSERT_TRUE(bfloat16.has_value()) << bfloat16.error().message;
  const int64_t vocab = files->config.vocab_size;

  Distance distance;
  size_t position = 0;
  for (const int32_t length : goldens.lengths) {
    const auto begin = goldens.token_ids.begin() + static_cast<std::ptrdiff_t>(position);
    Runner exact(*float32, Mode::kTeacher, length);
    Runner rounded(*bfloat16, Mode::kTeacher, length);
    for (int32_t done = 0; done < length; done += 128) {  // a chunk's logits are 25 MB
      Runner::Feed feed = {0, {begin + done, begin + std::min(length, done + 128)}, {}};
      for (size_t row = 0; row < feed.tokens.size(); ++row) feed.logit_rows.push_back(static_cast<int32_t>(row));
      const std::vector<float> exact_logits = exact.Step({feed});
      const std::vector<float> rounded_logits = rounded.Step({feed});
      for (size_t row = 0; row < feed.tokens.size(); ++row) {
        const size_t at = row * static_cast<size_t>(vocab);
        Compare(goldens, position++, &exact_logits[at], &rounded_logits[at], vocab, &distance);
      }
    }
  }
  const auto positions = static_cast<double>(position);
  const double top1 = static_cast<double>(distance.bf16_top1) / positions;
  fmt::print(
      "{} positions: FP32 logits within {:.2e}, {} other top-1; BF16 KL {:.3e} (transformers {:.3e}), top-1 {:.5f} "
      "(transformers {:.5f})\n",
      position, distance.logits, distance.other_top1, distance.kl / positions, goldens.bf16_kl, top1,
      goldens.bf16_top1);
  EXPECT_GE(position, 2000u);
  EXPECT_LT(distance.logits, 2e-3);
  EXPECT_EQ(distance.other_top1, 0);
  EXPECT_LE(distance.kl / positions, goldens.bf16_kl);
  EXPECT_GE(top1, goldens.bf16_top1);
}

TEST(SmolLm2Test, TheFilesOwnBitsGiveTheSameLogits) {
  const auto files = OpenModelFiles(std::string(kDefaultModel), "");
  if (!files) GTEST_SKIP() << files.error().message;
  const auto golden_file = OpenSafetensors(kGoldens);
  ASSERT_TRUE(golden_file.has_value()) << golden_file.error().message;
  const Goldens goldens(**golden_file);
  const auto bfloat16 = LoadWeights(files->config, *files->base, nullptr, {});
  const auto stored = LoadWeights(files->config, *files->base, nullptr, {.quantization = Quantization::kStored});
  ASSERT_TRUE(bfloat16.has_value() && stored.has_value());
  EXPECT_EQ(stored->layers[0].gate_up_proj.dtype, DType::kQ4_1);
  EXPECT_EQ(stored->lm_head.dtype, DType::kQ8_0);
  Runner first(*bfloat16, Mode::kTeacher, 256);
  Runner second(*stored, Mode::kTeacher, 256);
  int32_t done = 0;
  for (const int32_t tokens : {100, 1, 7, 40, 1}) {
    const auto begin = goldens.token_ids.begin() + done;
    const Runner::Feed feed = {0, {begin, begin + tokens}, {tokens - 1}};
    ASSERT_EQ(first.Step({feed}), second.Step({feed})) << "at token " << done;
    done += tokens;
  }
}

struct IntegerProducts {
  const char* name;
  Quantization quantization;
  double bytes_per_weight;  // at most
  double kl;                // below
};

class SmolLm2IntegerTest : public testing::TestWithParam<IntegerProducts> {};

// Near FP32, and the same bytes however a prompt is cut.
TEST_P(SmolLm2IntegerTest, IsNearFloat32) {
  const auto files = OpenModelFiles(std::string(kDefaultModel), "");
  if (!files) GTEST_SKIP() << files.error().message;
  const auto golden_file = OpenSafetensors(kGoldens);
  ASSERT_TRUE(golden_file.has_value()) << golden_file.error().message;
  const Goldens goldens(**golden_file);
  const auto float32 = LoadWeights(files->config, *files->base, nullptr, {.dtype = DType::kF32});
  const auto integers = LoadWeights(files->config, *files->base, nullptr, {.quantization = GetParam().quantization});
  ASSERT_TRUE(float32.has_value() && integers.has_value());
  EXPECT_LT(BytesPerWeight(*integers), GetParam().bytes_per_weight);
  const auto vocab = static_cast<size_t>(files->config.vocab_size);
  constexpr int32_t kTokens = 256;
  Runner exact(*float32, Mode::kTeacher, kTokens);
  Runner rounded(*integers, Mode::kTeacher, kTokens);
  Runner chunked(*integers, Mode::kTeacher, kTokens);
  const auto feed = [&](int32_t begin, int32_t end) {
    Runner::Feed rows = {0, {goldens.token_ids.begin() + begin, goldens.token_ids.begin() + end}, {}};
    for (int32_t row = 0; row < end - begin; ++row) rows.logit_rows.push_back(row);
    return rows;
  };
  const std::vector<float> expected = exact.Step({feed(0, kTokens)});
  const std::vector<float> actual = rounded.Step({feed(0, kTokens)});
  std::vector<float> in_chunks;
  for (int32_t begin = 0; begin < kTokens;) {
    const int32_t end = std::min(kTokens, begin + 1 + begin % 50);
    const std::vector<float> some = chunked.Step({feed(begin, end)});
    in_chunks.insert(in_chunks.end(), some.begin(), some.end());
    begin = end;
  }
  EXPECT_EQ(in_chunks, actual);
  std::vector<float> kl(kTokens);
  kernels::DefaultBackend().KlDivergence(expected.data(), actual.data(), kTokens, static_cast<int64_t>(vocab),
                                         kl.data());
  double sum = 0;
  int agreeing = 0;
  for (size_t row = 0; row < kTokens; ++row) {
    sum += kl[row];
    const auto best = [&](const std::vector<float>& logits) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * vocab);
      return std::max_element(begin, begin + static_cast<std::ptrdiff_t>(vocab)) - begin;
    };
    agreeing += best(expected) == best(actual) ? 1 : 0;
  }
  fmt::print("{}: mean KL {:.3e}, top-1 {:.3f} over {} positions\n", GetParam().name, sum / kTokens,
             agreeing / double{kTokens}, kTokens);
  EXPECT_LT(sum / kTokens, GetParam().kl);
  EXPECT_GT(agreeing, kTokens * 90 / 100);
}

INSTANTIATE_TEST_SUITE_P(Weights, SmolLm2IntegerTest,
                         testing::Values(IntegerProducts{"int8", Quantization::kInt8, 1.15, 1e-2},
                                         IntegerProducts{"int4", Quantization::kInt4, 0.73, 1e-2}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace swiftkv
