// Block-quantized weights: with inputs in bf16 to the last bit the products of the same values packed as bf16; with
// quantized inputs to the last bit the reference's.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/float16.h"
#include "base/parallel.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

constexpr DType kTypes[] = {DType::kQ4_1, DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kQ8_K};
constexpr DType kInt8InputTypes[] = {DType::kQ4_1, DType::kQ8_0};

struct QuantizedProblem {
  int64_t n, k;
  DType dtype;
  std::vector<int8_t> codes;
  std::vector<float> scales, minima;
  std::vector<float> values;  // [n, k]

  QuantizedProblem(int64_t rows, int64_t columns, DType type) : n(rows), k(columns), dtype(type) {
    std::mt19937 random(5);
    const int64_t block_scales = ScalesOfBlock(dtype);
    // Of float32: numbers of 17 bits, as products of a float16 and six bits have.
    const unsigned range = dtype == DType::kQ4_1 || dtype == DType::kQ8_0 ? 1000 : 1 << 17;
    for (int64_t i = 0; i < n * k / kQuantizedBlock * block_scales; ++i) {
      scales.push_back(std::ldexp(static_cast<float>(random() % range), range == 1000 ? -12 : -19));
      minima.push_back(-std::ldexp(static_cast<float>(random() % range), range == 1000 ? -10 : -17));
    }
    for (int64_t i = 0; i < n * k; ++i) {
      const bool has_4_bits = dtype == DType::kQ4_1 || dtype == DType::kQ4_K;
      codes.push_back(static_cast<int8_t>(has_4_bits ? random() % 16 : random() % 256));
      const float scale = scales[static_cast<size_t>(i * block_scales / kQuantizedBlock)];
      const float minimum = HasMinima(dtype) ? minima[static_cast<size_t>(i / kQuantizedBlock)] : 0;
      values.push_back(std::fma(static_cast<float>(codes.back()), scale, minimum));
    }
  }

  PackedMatrix Pack(const Backend& ops, DType type) const {
    PackedMatrix w = std::move(*ops.AllocatePacked(n, k, type));
    for (int64_t row = (n - 1) / 64 * 64; row >= 0; row -= 64) {
      const int64_t count = std::min<int64_t>(64, n - row);
      if (type == DType::kBF16) {
        ops.PackRows(values.data() + row * k, row, count, &w);
      } else {
        const int64_t block = row * k / kQuantizedBlock;
        ops.PackQuantizedRows({.codes = codes.data() + row * k,
                               .scales = scales.data() + block * ScalesOfBlock(dtype),
                               .minima = HasMinima(dtype) ? minima.data() + block : nullptr},
                              row, count, &w);
      }
    }
    return w;
  }
};

class QuantizedTest : public testing::TestWithParam<const Backend*> {};

TEST_P(QuantizedTest, ProductsAreThoseOfTheSameValuesInBf16) {
  const Backend& ops = *GetParam();
  for (const DType dtype : kTypes) {
    for (const auto& shape : {std::pair<int64_t, int64_t>{64, 32}, {200, 576}, {130, 1536}, {70, 2080}}) {
      const int64_t n = shape.first;
      const int64_t k = shape.second;
      const QuantizedProblem problem(n, k, dtype);
      const PackedMatrix exact = problem.Pack(ops, DType::kBF16);
      const PackedMatrix quantized = problem.Pack(ops, dtype);
      if (&ops != &RefBackend()) {
        EXPECT_EQ(quantized.data.bytes() / QuantizedBlockBytes(dtype), exact.data.bytes() / (2 * kQuantizedBlock));
      }
      for (const int64_t m : {1, 3, 17, 33, 70, 200}) {
        const std::vector<BFloat16> x = ToBFloat16(RandomFloats(m * k, 9));
        std::vector<float> expected(static_cast<size_t>(m * n));
        std::vector<float> actual(expected.size());
        const auto run = [&](const PackedMatrix& w, std::vector<float>* y) {
          ops.Gemm({.x = x.data(), .x_stride = k, .m = m, .w = &w, .y = y->data(), .y_stride = n});
        };
        run(exact, &expected);
        run(quantized, &actual);
        ASSERT_EQ(actual, expected) << Name(dtype) << " m " << m << " n " << n << " k " << k;
      }
      const std::vector<int32_t> ids = {0, 63, static_cast<int32_t>(n - 1)};
      std::vector<float> expected(ids.size() * static_cast<size_t>(k));
      std::vector<float> actual(expected.size());
      ops.UnpackRows(exact, ids.data(), 3, expected.data());
      ops.UnpackRows(quantized, ids.data(), 3, actual.data());
      EXPECT_EQ(actual, expected);
    }
  }
}

// y [rows, n + 1] of rows of x from `row`; it begins as ones and is accumulated into.
std::vector<float> MultiplyInt8(const Backend& ops, const PackedMatrix& w, const std::vector<BFloat16>& x, int64_t row,
                                int64_t rows) {
  const std::vector<float> bias = RandomFloats(w.n, 3);
  std::vector<float> y(static_cast<size_t>(rows * (w.n + 1)), 1.0f);
  ops.Gemm({.x = x.data() + row * w.k,
            .x_stride = w.k,
            .m = rows,
            .w = &w,
            .bias = bias.data(),
            .y = y.data(),
            .y_stride = w.n + 1,
            .accumulate = true});
  return y;
}

PackedMatrix WithInt8Inputs(PackedMatrix w) {
  w.int8_inputs = true;
  return w;
}

TEST_P(QuantizedTest, ProductsOfInt8InputsAreTheReferences) {
  const Backend& ops = *GetParam();
  for (const DType dtype : kInt8InputTypes) {
    for (const auto& shape : {std::pair<int64_t, int64_t>{64, 32}, {200, 576}, {131, 1536}, {1, 64}, {70, 2080}}) {
      const QuantizedProblem problem(shape.first, shape.second, dtype);
      const PackedMatrix w = WithInt8Inputs(problem.Pack(ops, dtype));
      const PackedMatrix reference = WithInt8Inputs(problem.Pack(RefBackend(), dtype));
      for (const int64_t m : {1, 2, 3, 4, 5, 7, 16, 17, 33, 70}) {
        const std::vector<BFloat16> x = ToBFloat16(RandomFloats(m * problem.k, 9));
        ASSERT_EQ(MultiplyInt8(ops, w, x, 0, m), MultiplyInt8(RefBackend(), reference, x, 0, m))
            << Name(dtype) << " m " << m << " n " << problem.n << " k " << problem.k;
      }
    }
  }
}

// The largest codes of all there are: nothing overflows on the way.
TEST_P(QuantizedTest, ExtremeCodesDoNotOverflow) {
  const Backend& ops = *GetParam();
  for (const DType dtype : kInt8InputTypes) {
    QuantizedProblem problem(64, 64, dtype);
    std::fill(problem.codes.begin(), problem.codes.end(), static_cast<int8_t>(dtype == DType::kQ4_1 ? 15 : -128));
    const PackedMatrix w = WithInt8Inputs(problem.Pack(ops, dtype));
    const PackedMatrix reference = WithInt8Inputs(problem.Pack(RefBackend(), dtype));
    for (const float value : {-3.0f, 3.0f}) {
      const std::vector<BFloat16> x(static_cast<size_t>(17 * problem.k), swiftkv::ToBFloat16(value));
      EXPECT_EQ(MultiplyInt8(ops, w, x, 0, 17), MultiplyInt8(RefBackend(), reference, x, 0, 17));
    }
  }
}

TEST_P(QuantizedTest, ProductsOfInt8InputsAreNearThoseOfBf16) {
  const Backend& ops = *GetParam();
  for (const DType dtype : kInt8InputTypes) {
    const QuantizedProblem problem(70, 576, dtype);
    PackedMatrix w = problem.Pack(ops, dtype);
    std::vector<float> values = RandomFloats(9 * 576, 4);
    for (float& value : values) value = std::clamp(value, -3.0f, 3.0f);
    const std::vector<BFloat16> x = ToBFloat16(values);
    const std::vector<float> expected = MultiplyInt8(ops, w, x, 0, 9);
    w.int8_inputs = true;
    const std::vector<float> actual = MultiplyInt8(ops, w, x, 0, 9);
    double error = 0;
    double size = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      error += std::pow(actual[i] - expected[i], 2);
      size += std::pow(expected[i], 2);
    }
    EXPECT_LT(std::sqrt(error / size), 0.01) << Name(dtype);
  }
}

TEST_P(QuantizedTest, BytesOfARowOfInt8InputsDependOnThatRowAlone) {
  const Backend& ops = *GetParam();
  const int threads = Threads();
  for (const DType dtype : kInt8InputTypes) {
    const QuantizedProblem problem(136, 1536, dtype);
    const PackedMatrix w = WithInt8Inputs(problem.Pack(ops, dtype));
    const std::vector<BFloat16> x = ToBFloat16(RandomFloats(200 * problem.k, 9));
    SetThreads(1);
    const std::vector<float> all = MultiplyInt8(ops, w, x, 0, 200);
    for (const int64_t m : {1, 3, 16, 17, 64, 75}) {
      SetThreads(static_cast<int>(m % 3) + 1);
      const std::vector<float> some = MultiplyInt8(ops, w, x, 100, m);
      for (size_t i = 0; i < some.size(); ++i) ASSERT_EQ(some[i], all[100 * 137 + i]) << "m " << m << " at " << i;
    }
  }
  SetThreads(threads);
}

TEST_P(QuantizedTest, AnInputThatIsNotFiniteMakesItsRowNaNAndNoOther) {
  const Backend& ops = *GetParam();
  const QuantizedProblem problem(66, 64, DType::kQ4_1);
  const PackedMatrix w = WithInt8Inputs(problem.Pack(ops, DType::kQ4_1));
  for (const int64_t m : {3, 19}) {
    std::vector<BFloat16> x(static_cast<size_t>(m * 64));
    x[64 + 5] = swiftkv::ToBFloat16(std::numeric_limits<float>::infinity());
    x[128] = swiftkv::ToBFloat16(0x1p-126f);  // 127 over it would be infinite
    const std::vector<float> y = MultiplyInt8(ops, w, x, 0, m);
    const std::vector<float> bias = RandomFloats(66, 3);
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t j = 0; j < 66; ++j) {
        const float value = y[static_cast<size_t>(row * 67 + j)];
        if (row == 1) {
          EXPECT_TRUE(std::isnan(value));
        } else {
          EXPECT_EQ(value, bias[static_cast<size_t>(j)] + 1);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllBackends, QuantizedTest, testing::ValuesIn(AvailableBackends()),
                         [](const auto& info) { return std::string(info.param->name()); });

TEST(Float16Test, RoundsToTheNearestAndBack) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = HalfToFloat(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
    } else {
      ASSERT_EQ(FloatToHalf(value), half);
    }
  }
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), FloatToHalf(1.0f)) << "a tie goes to the even one";
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 3 * 0x1p-11f)), 1.0f + 0x1p-9f);
  EXPECT_EQ(HalfToFloat(FloatToHalf(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(HalfToFloat(FloatToHalf(65520.0f))));
  EXPECT_EQ(HalfToFloat(FloatToHalf(0x1.8p-24f)), 0x1p-23f);
}

}  // namespace
}  // namespace swiftkv::kernels
