// Every backend against PyTorch: tests/golden/kernels/ops.txt, made by tools/make_kernel_goldens.py.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "base/bfloat16.h"
#include "kernels/ops.h"

namespace swiftkv::kernels {
namespace {

using Floats = std::vector<float>;

const Floats& Golden(const std::string& name) {
  static const auto* tensors = [] {
    auto* all = new std::map<std::string, Floats>;
    std::ifstream file(SWIFTKV_SOURCE_DIR "/tests/golden/kernels/ops.txt");
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string key;
      words >> key;
      Floats& values = (*all)[key];
      for (float value; words >> value;) values.push_back(value);
    }
    return all;
  }();
  static const Floats empty;
  const auto found = tensors->find(name);
  return found == tensors->end() ? empty : found->second;
}

void ExpectNear(const Floats& actual, const Floats& expected, float tolerance) {
  ASSERT_FALSE(expected.empty());
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << "element " << i;
  }
}

class GoldenTest : public testing::TestWithParam<const Backend*> {
 protected:
  const Backend& ops() const { return *GetParam(); }
};

TEST_P(GoldenTest, Gemm) {
  const Floats& x = Golden("gemm.x");
  std::vector<BFloat16> x_bf16(x.size());
  for (size_t i = 0; i < x.size(); ++i) x_bf16[i] = ToBFloat16(x[i]);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Result<PackedMatrix> w = ops().AllocatePacked(19, 37, dtype);
    ASSERT_TRUE(w.has_value());
    ops().PackRows(Golden("gemm.w").data(), 0, 19, &*w);
    Floats y(3 * 19);
    const void* input = dtype == DType::kF32 ? static_cast<const void*>(x.data()) : x_bf16.data();
    ops().Gemm({.x = input,
                .x_stride = 37,
                .m = 3,
                .w = &*w,
                .bias = Golden("gemm.bias").data(),
                .y = y.data(),
                .y_stride = 19});
    ExpectNear(y, Golden("gemm.y"), 2e-6f);
  }
}

TEST_P(GoldenTest, RmsNorm) {
  Floats y(3 * 21);
  ops().RmsNorm({.x = Golden("rms.x").data(),
                 .x_stride = 21,
                 .weight = Golden("rms.weight").data(),
                 .eps = 1e-5f,
                 .rows = 3,
                 .size = 21,
                 .out = y.data(),
                 .out_stride = 21});
  ExpectNear(y, Golden("rms.y"), 1e-6f);
}

TEST_P(GoldenTest, SiluMul) {
  Floats y(2 * 13);
  ops().SiluMul({.gate_up = Golden("silu.gate_up").data(),
                 .gate_up_stride = 26,
                 .rows = 2,
                 .size = 13,
                 .out = y.data(),
                 .out_stride = 13});
  ExpectNear(y, Golden("silu.y"), 1e-6f);
}

TEST_P(GoldenTest, Rope) {
  const int32_t positions[] = {0, 3, 7};
  Floats x = Golden("rope.x");
  RopeArgs args{.x = x.data(),
                .x_stride = 32,
                .rows = 3,
                .heads = 2,
                .head_dim = 16,
                .positions = positions,
                .cos = Golden("rope.cos").data(),
                .sin = Golden("rope.sin").data()};
  ops().Rope(args);
  ExpectNear(x, Golden("rope.y"), 1e-6f);
  x = Golden("rope.x");
  args.norm_weight = Golden("rope.norm_weight").data();
  args.norm_eps = 1e-6f;
  ops().Rope(args);
  ExpectNear(x, Golden("rope.y_norm"), 2e-6f);
}

TEST_P(GoldenTest, Attention) {
  constexpr int64_t kTokens = 24;
  std::vector<int32_t> positions(kTokens);
  std::iota(positions.begin(), positions.end(), 0);
  const int32_t block_table[] = {3, 1};
  std::vector<int64_t> slots(kTokens);
  for (int64_t t = 0; t < kTokens; ++t) slots[t] = block_table[t / kBlockTokens] * kBlockTokens + t % kBlockTokens;
  const AttentionSequence sequence{
      .row_begin = 0, .rows = kTokens, .positions = positions.data(), .block_table = block_table};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Result<AlignedBuffer> cache = AlignedBuffer::Allocate(4 * ops().KvBlockBytes(2, 16, dtype), "test cache");
    ASSERT_TRUE(cache.has_value());
    ops().WriteKv({.k = Golden("attention.k").data(),
                   .v = Golden("attention.v").data(),
                   .k_stride = 32,
                   .v_stride = 32,
                   .rows = kTokens,
                   .kv_heads = 2,
                   .head_dim = 16,
                   .slots = slots.data(),
                   .cache = cache->data(),
                   .cache_dtype = dtype});
    Floats y(kTokens * 64);
    AttentionArgs args{.q = Golden("attention.q").data(),
                       .q_stride = 64,
                       .heads = 4,
                       .kv_heads = 2,
                       .head_dim = 16,
                       .scale = 0.25f,
                       .window = 0,
                       .cache = cache->data(),
                       .cache_dtype = dtype,
                       .sequences = {&sequence, 1},
                       .out = y.data(),
                       .out_stride = 64};
    const float tolerance = dtype == DType::kF32 ? 2e-6f : 4e-3f;  // bf16: softmax weights may be rounded to bf16
    ops().Attention(args);
    ExpectNear(y, Golden("attention.y"), tolerance);
    args.window = 5;
    ops().Attention(args);
    ExpectNear(y, Golden("attention.y_window"), tolerance);
  }
}

TEST_P(GoldenTest, LogitStatsAndKlDivergence) {
  LogitStats stats[2];
  ops().ComputeLogitStats(Golden("logits.p").data(), 2, 33, stats);
  for (int r = 0; r < 2; ++r) {
    EXPECT_EQ(stats[r].argmax, static_cast<int32_t>(Golden("logits.argmax")[r]));
    EXPECT_EQ(stats[r].max, Golden("logits.p")[r * 33 + stats[r].argmax]);
    EXPECT_NEAR(stats[r].log_sum_exp, Golden("logits.log_sum_exp")[r], 2e-6);
  }
  Floats kl(2);
  ops().KlDivergence(Golden("logits.p").data(), Golden("logits.q").data(), 2, 33, kl.data());
  ExpectNear(kl, Golden("logits.kl"), 2e-6f);
}

INSTANTIATE_TEST_SUITE_P(AllBackends, GoldenTest, testing::ValuesIn(AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

}  // namespace
}  // namespace swiftkv::kernels
