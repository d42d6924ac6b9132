// Norms, RoPE, SiLU and logit statistics of every backend against the reference, on sizes with every kind of tail.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "base/parallel.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class RowwiseTest : public testing::TestWithParam<const Backend*> {
 protected:
  const Backend& ops() const { return *GetParam(); }
};

void ExpectClose(const std::vector<float>& actual, const std::vector<float>& expected, float tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * std::abs(expected[i]) + 1e-30f) << "element " << i;
  }
}

// At most one step of bf16 apart.
void ExpectClose(const std::vector<BFloat16>& actual, const std::vector<BFloat16>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(ToFloat(actual[i]), ToFloat(expected[i]), std::abs(ToFloat(expected[i])) / 128 + 1e-30f) << i;
  }
}

TEST_P(RowwiseTest, RmsNorm) {
  for (const int64_t size : {1, 7, 16, 33, 576, 4099}) {
    const std::vector<float> x = RandomFloats(3 * (size + 5), 1, 10);
    const std::vector<float> weight = RandomFloats(size, 2);
    const auto run = [&](const Backend& ops, auto out) {
      const DType dtype = sizeof(out[0]) == 2 ? DType::kBF16 : DType::kF32;
      ops.RmsNorm({.x = x.data(),
                   .x_stride = size + 5,
                   .weight = weight.data(),
                   .eps = 1e-5f,
                   .rows = 3,
                   .size = size,
                   .out = out.data(),
                   .out_stride = size + 2,
                   .out_dtype = dtype});
      return out;
    };
    const std::vector<float> floats(3 * (size + 2), 9);
    ExpectClose(run(ops(), floats), run(RefBackend(), floats), 2e-6f);
    const std::vector<BFloat16> halves(3 * (size + 2));
    ExpectClose(run(ops(), halves), run(RefBackend(), halves));
  }
}

TEST_P(RowwiseTest, Rope) {
  for (const int64_t head_dim : {2, 16, 64, 80, 128, 6}) {
    const std::vector<float> cos = RandomFloats(40 * head_dim / 2, 3);
    const std::vector<float> sin = RandomFloats(40 * head_dim / 2, 4);
    const std::vector<float> weight = RandomFloats(head_dim, 5);
    const int32_t positions[] = {39, 0, 7, 7};
    for (const bool norm : {false, true}) {
      const auto run = [&](const Backend& ops) {
        std::vector<float> x = RandomFloats(4 * (3 * head_dim + 1), 6);
        ops.Rope({.x = x.data(),
                  .x_stride = 3 * head_dim + 1,
                  .rows = 4,
                  .heads = 3,
                  .head_dim = head_dim,
                  .positions = positions,
                  .cos = cos.data(),
                  .sin = sin.data(),
                  .norm_weight = norm ? weight.data() : nullptr,
                  .norm_eps = 1e-6f});
        return x;
      };
      const std::vector<float> actual = run(ops());
      const std::vector<float> expected = run(RefBackend());
      // Each output is a sum of two products: relative to the largest of them.
      const float largest = 1e-6f * std::abs(*std::max_element(expected.begin(), expected.end()));
      for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], largest) << i;
    }
  }
}

TEST_P(RowwiseTest, SiluMul) {
  for (const int64_t size : {1, 15, 16, 64, 1537}) {
    std::vector<float> gate_up = RandomFloats(3 * 2 * size, 7, 20);
    gate_up[0] = -200;  // e^200 overflows
    const std::vector<BFloat16> gate_up_bf16 = ToBFloat16(gate_up);
    const auto run = [&](const Backend& ops, const auto& in, auto out) {
      ops.SiluMul({.gate_up = in.data(),
                   .gate_up_stride = 2 * size,
                   .rows = 3,
                   .size = size,
                   .out = out.data(),
                   .out_stride = size,
                   .dtype = sizeof(in[0]) == 2 ? DType::kBF16 : DType::kF32});
      return out;
    };
    const std::vector<float> floats(3 * size);
    ExpectClose(run(ops(), gate_up, floats), run(RefBackend(), gate_up, floats), 2e-6f);
    const std::vector<BFloat16> halves(3 * size);
    ExpectClose(run(ops(), gate_up_bf16, halves), run(RefBackend(), gate_up_bf16, halves));
  }
}

TEST_P(RowwiseTest, LogitStats) {
  for (const int64_t vocab : {1, 5, 16, 49, 49152, 50001}) {
    std::vector<float> logits = RandomFloats(4 * vocab, 8, 3);
    logits[vocab / 2] = logits[vocab - 1] = 1000;   // the first of equal maxima
    if (vocab > 1) logits[2 * vocab] = -kInfinity;  // a forbidden token
    const auto run = [&](const Backend& ops) {
      std::vector<LogitStats> stats(4);
      ops.ComputeLogitStats(logits.data(), 4, vocab, stats.data());
      return stats;
    };
    const std::vector<LogitStats> actual = run(ops());
    const std::vector<LogitStats> expected = run(RefBackend());
    for (int r = 0; r < 4; ++r) {
      EXPECT_EQ(actual[r].argmax, expected[r].argmax) << vocab << " row " << r;
      EXPECT_EQ(actual[r].max, expected[r].max);
      EXPECT_NEAR(actual[r].log_sum_exp, expected[r].log_sum_exp, 1e-6f * std::abs(expected[r].log_sum_exp));
    }
  }
}

TEST_P(RowwiseTest, LogitStatsOfNanStayInRange) {
  const std::vector<float> logits(37, std::numeric_limits<float>::quiet_NaN());
  LogitStats stats;
  ops().ComputeLogitStats(logits.data(), 1, 37, &stats);
  EXPECT_GE(stats.argmax, 0);
  EXPECT_LT(stats.argmax, 37);
}

TEST_P(RowwiseTest, KlDivergence) {
  for (const int64_t vocab : {1, 17, 49152}) {
    const std::vector<float> p = RandomFloats(2 * vocab, 9, 0.05f);
    for (const float distance : {0.0f, 0.001f, 1.0f}) {
      std::vector<float> q = RandomFloats(2 * vocab, 10, 0.05f);
      for (size_t i = 0; i < q.size(); ++i) q[i] = p[i] + distance * (q[i] - p[i]);
      std::vector<float> actual(2), expected(2);
      ops().KlDivergence(p.data(), q.data(), 2, vocab, actual.data());
      RefBackend().KlDivergence(p.data(), q.data(), 2, vocab, expected.data());
      for (int r = 0; r < 2; ++r) EXPECT_NEAR(actual[r], expected[r], 1e-5f * expected[r] + 1e-6f) << vocab;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllBackends, RowwiseTest, testing::ValuesIn(AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

}  // namespace
}  // namespace swiftkv::kernels
