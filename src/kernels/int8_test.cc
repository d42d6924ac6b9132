// Products with int8 weights of every backend: the reference's to the last bit where all features are quantized, and
// within rounding where some are exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

struct Int8Problem {
  int64_t m, n, k;
  std::vector<int32_t> exact_features;
  std::vector<float> weights, bias;
  std::vector<BFloat16> x;

  Int8Problem(int64_t rows, int64_t columns, int64_t depth, std::vector<int32_t> exact)
      : m(rows),
        n(columns),
        k(depth),
        exact_features(std::move(exact)),
        weights(RandomFloats(n * k, 2)),
        bias(RandomFloats(n, 3)),
        x(ToBFloat16(RandomFloats(m * k, 1))) {
    for (const int32_t feature : exact_features) {  // what exact features are for
      for (int64_t r = 0; r < m; ++r)
        x[static_cast<size_t>(r * k + feature)] = swiftkv::ToBFloat16(50.0f + static_cast<float>(r % 3));
    }
  }

  PackedMatrix Pack(const Backend& ops) const {
    PackedMatrix w = std::move(*ops.AllocateInt8(n, k, exact_features));
    for (int64_t row = (n - 1) / 64 * 64; row >= 0; row -= 64) {
      ops.PackRows(weights.data() + row * k, row, std::min<int64_t>(64, n - row), &w);
    }
    return w;
  }
};

// y [rows, n + 1], which begins as ones where it is accumulated into.
std::vector<float> Multiply(const Backend& ops, const Int8Problem& problem, const PackedMatrix& w, int64_t row,
                            int64_t rows) {
  std::vector<float> y(static_cast<size_t>(rows * (problem.n + 1)), 1.0f);
  ops.Gemm({.x = problem.x.data() + row * problem.k,
            .x_stride = problem.k,
            .m = rows,
            .w = &w,
            .bias = problem.n % 2 == 0 ? problem.bias.data() : nullptr,
            .y = y.data(),
            .y_stride = problem.n + 1,
            .accumulate = problem.n % 3 == 0});
  return y;
}

class Int8Test : public testing::TestWithParam<const Backend*> {
 protected:
  void TearDown() override { SetThreads(threads_); }

 private:
  int threads_ = Threads();
};

TEST_P(Int8Test, ProductsAreTheReferences) {
  const Backend& ops = *GetParam();
  for (const int64_t m : {1, 2, 5, 16, 17, 33, 70}) {
    for (const auto& shape :
         {std::pair<int64_t, int64_t>{64, 64}, {96, 576}, {131, 1536}, {70, 2083}, {1, 1}, {65, 37}}) {
      const Int8Problem problem(m, shape.first, shape.second, {});
      const std::vector<float> actual = Multiply(ops, problem, problem.Pack(ops), 0, m);
      const std::vector<float> expected = Multiply(RefBackend(), problem, problem.Pack(RefBackend()), 0, m);
      ASSERT_EQ(actual, expected) << "m " << m << " n " << shape.first << " k " << shape.second;
    }
  }
}

TEST_P(Int8Test, ExactFeaturesKeepTheirDigits) {
  const Backend& ops = *GetParam();
  std::vector<int32_t> all;
  for (int32_t i = 0; i < 32; ++i) all.push_back(7 * i);
  for (const std::vector<int32_t>& exact : {std::vector<int32_t>{3}, std::vector<int32_t>{0, 100, 299}, all}) {
    for (const int64_t m : {1, 6, 40}) {
      const Int8Problem problem(m, 200, 300, exact);
      const std::vector<float> actual = Multiply(ops, problem, problem.Pack(ops), 0, m);
      const std::vector<float> expected = Multiply(RefBackend(), problem, problem.Pack(RefBackend()), 0, m);
      for (size_t i = 0; i < actual.size(); ++i) {
        ASSERT_NEAR(actual[i], expected[i], 1e-4f * static_cast<float>(exact.size() + 1)) << "m " << m << " at " << i;
      }
    }
  }
}

// Without the exact feature the inputs' digits would be lost: it is 50 times as large as they are.
TEST_P(Int8Test, IsNearTheProductInFloats) {
  const Backend& ops = *GetParam();
  Int8Problem problem(9, 70, 576, {5, 500});
  for (float& weight : problem.weights) weight = std::clamp(weight, -1.0f, 1.0f);
  for (size_t i = 0; i < problem.x.size(); ++i) {
    const bool is_exact = i % 576 == 5 || i % 576 == 500;
    if (!is_exact) problem.x[i] = swiftkv::ToBFloat16(std::clamp(ToFloat(problem.x[i]), -1.0f, 1.0f));
  }
  const std::vector<float> y = Multiply(ops, problem, problem.Pack(ops), 0, 9);
  double error = 0;
  double size = 0;
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t j = 0; j < 70; ++j) {
      double sum = problem.bias[static_cast<size_t>(j)];
      double exact = 0;
      for (int64_t k = 0; k < 576; ++k) {
        const double product = static_cast<double>(ToFloat(problem.x[static_cast<size_t>(r * 576 + k)])) *
                               problem.weights[static_cast<size_t>(j * 576 + k)];
        (k == 5 || k == 500 ? exact : sum) += product;
      }
      error += std::pow(y[static_cast<size_t>(r * 71 + j)] - sum - exact, 2);
      size += sum * sum;
    }
  }
  EXPECT_LT(std::sqrt(error / size), 0.02);
}

TEST_P(Int8Test, BytesOfARowDependOnThatRowAlone) {
  const Backend& ops = *GetParam();
  const Int8Problem problem(200, 136, 1536, {1, 2, 800});
  const PackedMatrix w = problem.Pack(ops);
  SetThreads(1);
  const std::vector<float> all = Multiply(ops, problem, w, 0, 200);
  for (const int64_t m : {1, 3, 16, 17, 64, 75}) {
    SetThreads(static_cast<int>(m % 3) + 1);
    const std::vector<float> some = Multiply(ops, problem, w, 100, m);
    for (size_t i = 0; i < some.size(); ++i) ASSERT_EQ(some[i], all[100 * 137 + i]) << "m " << m << " at " << i;
  }
}

TEST_P(Int8Test, StoredCodesStayAsTheyAre) {
  const Backend& ops = *GetParam();
  constexpr int64_t kRows = 130;
  constexpr int64_t kColumns = 608;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  for (int64_t i = 0; i < kRows * kColumns; ++i) codes.push_back(static_cast<int8_t>(i * i % 251));
  for (int64_t i = 0; i < kRows * kColumns; i += 32) scales.push_back(0.001f * static_cast<float>(i / kColumns + 1));
  const auto pack = [&](const Backend& backend, const std::vector<int32_t>& exact) {
    PackedMatrix stored = std::move(*backend.AllocatePacked(kRows, kColumns, DType::kQ8_K));
    backend.PackQuantizedRows({.codes = codes.data(), .scales = scales.data()}, 0, kRows, &stored);
    PackedMatrix w = std::move(*backend.AllocateInt8(kRows, kColumns, exact));
    backend.RepackInt8Rows(stored, 64, kRows - 64, &w);
    backend.RepackInt8Rows(stored, 0, 64, &w);
    return w;
  };
  const Int8Problem problem(5, kRows, kColumns, {});
  EXPECT_EQ(Multiply(ops, problem, pack(ops, {}), 0, 5), Multiply(RefBackend(), problem, pack(RefBackend(), {}), 0, 5));
  const std::vector<int32_t> exact = {3, 40, 607};
  const PackedMatrix with_exact = pack(ops, exact);
  const std::vector<int32_t> ids = {0, 63, 64, 129};
  std::vector<float> out(ids.size() * kColumns);
  ops.UnpackRows(with_exact, ids.data(), 4, out.data());
  for (size_t i = 0; i < out.size(); ++i) {
    const auto column = static_cast<int32_t>(i % kColumns);
    const auto at = static_cast<size_t>(ids[i / kColumns] * kColumns + column);
    const float value = static_cast<float>(codes[at]) * scales[at / 32];
    const bool is_exact = std::find(exact.begin(), exact.end(), column) != exact.end();
    ASSERT_EQ(out[i], is_exact ? ToFloat(swiftkv::ToBFloat16(value)) : value) << i;
  }
}

TEST_P(Int8Test, UnpackedRowsAreNearTheOriginals) {
  const Backend& ops = *GetParam();
  const Int8Problem problem(1, 130, 300, {17});
  const PackedMatrix w = problem.Pack(ops);
  const std::vector<int32_t> ids = {129, 0, 64};
  std::vector<float> out(3 * 300);
  std::vector<float> expected(out.size());
  ops.UnpackRows(w, ids.data(), 3, out.data());
  RefBackend().UnpackRows(problem.Pack(RefBackend()), ids.data(), 3, expected.data());
  EXPECT_EQ(out, expected);
  for (size_t i = 0; i < out.size(); ++i) {
    const float* row = problem.weights.data() + ids[i / 300] * 300;
    float largest = 0;
    for (int64_t k = 0; k < 300; ++k) largest = std::max(largest, k == 17 ? 0 : std::abs(row[k]));
    EXPECT_NEAR(out[i], row[i % 300], i % 300 == 17 ? std::abs(row[17]) / 256 : largest * 0.504f / 127);
  }
}

TEST_P(Int8Test, ARowThatIsNotFiniteIsNaNAndAloneSo) {
  const Backend& ops = *GetParam();
  Int8Problem problem(3, 66, 64, {});
  problem.x[64 + 5] = swiftkv::ToBFloat16(std::numeric_limits<float>::infinity());
  std::fill_n(problem.x.begin() + 128, 64, BFloat16{});
  const std::vector<float> y = Multiply(ops, problem, problem.Pack(ops), 0, 3);
  for (int64_t j = 0; j < 66; ++j) {
    EXPECT_TRUE(std::isfinite(y[static_cast<size_t>(j)]));
    EXPECT_TRUE(std::isnan(y[static_cast<size_t>(67 + j)]));
    EXPECT_EQ(y[static_cast<size_t>(134 + j)], problem.bias[static_cast<size_t>(j)] + 1);
  }
}

INSTANTIATE_TEST_SUITE_P(AllBackends, Int8Test, testing::ValuesIn(AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

}  // namespace
}  // namespace swiftkv::kernels
