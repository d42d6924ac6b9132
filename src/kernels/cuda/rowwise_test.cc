// The row-wise kernels against the reference, at sizes with every kind of tail, aligned for vectors and not. Outputs
// are poisoned first, so that what lies behind a row is seen to stay.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/test_buffer.h"
#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kPoison = 0x5a;

// E4M3's value of each code.
float DecodeE4M3(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  if ((code & 0x7f) == 0x7f) return kNan;
  const float magnitude =
      exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9) : std::ldexp(1.0f + mantissa / 8.0f, exponent - 7);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

// The nearest code, the even one of two; values beyond the largest saturate.
uint8_t EncodeE4M3(float value) {
  if (std::isnan(value)) return 0x7f;
  static const std::vector<float> kMagnitudes = [] {
    std::vector<float> magnitudes;
    for (uint8_t code = 0; code < 0x7f; ++code) magnitudes.push_back(DecodeE4M3(code));
    return magnitudes;
  }();
  const double magnitude = std::abs(value);
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const auto above = std::lower_bound(kMagnitudes.begin(), kMagnitudes.end(), magnitude);
  if (above == kMagnitudes.end()) return sign | 0x7e;
  auto code = static_cast<uint8_t>(above - kMagnitudes.begin());
  if (code > 0) {
    const double up = *above - magnitude;
    const double down = magnitude - kMagnitudes[code - 1];
    if (down < up || (down == up && code % 2 == 1)) --code;
  }
  return sign | code;
}

float Value(float value) { return value; }
float Value(BFloat16 value) { return ToFloat(value); }
float Value(uint8_t value) { return DecodeE4M3(value); }

template <typename T>
DType DTypeOf() {
  return sizeof(T) == 4 ? DType::kF32 : sizeof(T) == 2 ? DType::kBF16 : DType::kF8E4M3;
}

template <typename T>
std::vector<T> Poisoned(int64_t size) {
  std::array<unsigned char, sizeof(T)> bytes;
  bytes.fill(kPoison);
  return std::vector<T>(static_cast<size_t>(size), std::bit_cast<T>(bytes));
}

template <typename T>
bool IsPoison(const T& value) {
  const auto bytes = std::bit_cast<std::array<unsigned char, sizeof(T)>>(value);
  return std::all_of(bytes.begin(), bytes.end(), [](unsigned char byte) { return byte == kPoison; });
}

template <typename T>
std::vector<T> As(const std::vector<float>& values) {
  if constexpr (sizeof(T) == 4) {
    return values;
  } else {
    return ToBFloat16(values);
  }
}

template <typename T>
std::vector<float> AsFloats(const std::vector<T>& values) {
  std::vector<float> floats(values.size());
  for (size_t i = 0; i < values.size(); ++i) floats[i] = Value(values[i]);
  return floats;
}

// Rows in memory: the first begins `offset` elements behind the array's begin.
struct Layout {
  int64_t offset = 0;
  int64_t stride = 0;
  int64_t Elements(int64_t rows) const { return offset + rows * stride; }
};

// For vectors where the size allows it; strides and pointers that never do.
std::vector<Layout> LayoutsFor(int64_t size) {
  return {{.offset = 0, .stride = (size + 31) / 16 * 16},
          {.offset = 16, .stride = size + 5},
          {.offset = 1, .stride = size + 16}};
}

template <typename T>
void ExpectPoisonBesideRows(const std::vector<T>& values, const Layout& layout, int64_t size) {
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    const bool in_row = i >= layout.offset && (i - layout.offset) % layout.stride < size;
    if (!in_row) {
      ASSERT_TRUE(IsPoison(values[i])) << "element " << i << " behind rows of " << size;
    }
  }
}

// One row of `size` against float32 values that are exact to float32's last digits.
template <typename T>
void ExpectRow(const T* actual, const float* expected, int64_t size, float scale) {
  if constexpr (sizeof(T) == 1) {
    float largest = 0;
    for (int64_t i = 0; i < size; ++i) largest = std::max(largest, std::abs(expected[i]));
    const float expected_scale = largest == 0 ? 1 : largest / 448;
    ASSERT_NEAR(scale, expected_scale, 3e-6f * expected_scale);
  }
  for (int64_t i = 0; i < size; ++i) {
    const float magnitude = std::abs(expected[i]);
    const float tolerance = sizeof(T) == 4   ? 3e-6f * magnitude + 1e-30f
                            : sizeof(T) == 2 ? magnitude / 250 + 1e-30f
                                             : magnitude / 15.9f + 1.01f * std::ldexp(scale, -10);
    ASSERT_NEAR(Value(actual[i]) * (sizeof(T) == 1 ? scale : 1), expected[i], tolerance) << i << " of " << size;
  }
}

class CudaRowwiseTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasDevice()) GTEST_SKIP() << "no CUDA device";
  }
};

constexpr std::array<int64_t, 11> kSizes = {1, 7, 33, 63, 576, 1000, 4096, 4099, 14336, 16388, 40004};

template <typename Out>
void TestRmsNorm(int64_t size, const Layout& layout) {
  constexpr int64_t kRows = 3;
  const std::vector<float> x = RandomFloats(layout.Elements(kRows), 1, 10);
  const std::vector<float> weight = RandomFloats(size, 2);
  std::vector<float> expected(kRows * size);
  RefBackend().RmsNorm({.x = x.data() + layout.offset,
                        .x_stride = layout.stride,
                        .weight = weight.data(),
                        .eps = 1e-5f,
                        .rows = kRows,
                        .size = size,
                        .out = expected.data(),
                        .out_stride = size});
  const DeviceArray<float> device_x(x), device_weight(weight), scales(Poisoned<float>(kRows + 1));
  const DeviceArray<Out> out(Poisoned<Out>(layout.Elements(kRows)));
  RmsNorm({.x = device_x.get() + layout.offset,
           .x_stride = layout.stride,
           .weight = device_weight.get(),
           .eps = 1e-5f,
           .rows = kRows,
           .size = size,
           .out = out.get() + layout.offset,
           .out_stride = layout.stride,
           .out_dtype = DTypeOf<Out>(),
           .scales = scales.get()},
          nullptr);
  const std::vector<Out> actual = out.ToHost();
  const std::vector<float> actual_scales = scales.ToHost();
  for (int64_t r = 0; r < kRows; ++r) {
    ExpectRow(&actual[layout.offset + r * layout.stride], &expected[r * size], size, actual_scales[r]);
  }
  ExpectPoisonBesideRows(actual, layout, size);
  EXPECT_TRUE(IsPoison(actual_scales[sizeof(Out) == 1 ? kRows : 0]));
}

TEST_F(CudaRowwiseTest, RmsNorm) {
  for (const int64_t size : kSizes) {
    for (const Layout& layout : LayoutsFor(size)) {
      ASSERT_NO_FATAL_FAILURE(TestRmsNorm<float>(size, layout));
      ASSERT_NO_FATAL_FAILURE(TestRmsNorm<BFloat16>(size, layout));
      ASSERT_NO_FATAL_FAILURE(TestRmsNorm<uint8_t>(size, layout));
    }
  }
}

// Quantizes rows of `size` and compares scales and codes exactly, but for the sign of zeros.
template <typename T>
void TestQuantizeRows(const std::vector<float>& floats, int64_t rows, int64_t size, const Layout& layout) {
  const std::vector<T> x = As<T>(floats);
  const DeviceArray<T> device_x(x);
  const DeviceArray<uint8_t> out(Poisoned<uint8_t>(rows * size + 1));
  const DeviceArray<float> scales(Poisoned<float>(rows + 1));
  QuantizeRows({.x = device_x.get() + layout.offset,
                .x_stride = layout.stride,
                .x_dtype = DTypeOf<T>(),
                .rows = rows,
                .size = size,
                .out = out.get(),
                .scales = scales.get()},
               nullptr);
  const std::vector<uint8_t> actual = out.ToHost();
  const std::vector<float> actual_scales = scales.ToHost();
  EXPECT_TRUE(IsPoison(actual.back()) && IsPoison(actual_scales.back()));
  for (int64_t r = 0; r < rows; ++r) {
    float largest = 0;
    const auto value = [&](int64_t i) { return Value(x[layout.offset + r * layout.stride + i]); };
    for (int64_t i = 0; i < size; ++i) largest = std::max(largest, std::abs(value(i)));
    const float scale = largest / 448 == 0 ? 1 : largest / 448;
    ASSERT_EQ(actual_scales[r], scale) << "row " << r << " of " << size;
    for (int64_t i = 0; i < size; ++i) {
      const float quotient = value(i) / scale;
      ASSERT_EQ(Value(actual[r * size + i]), Value(EncodeE4M3(quotient))) << quotient << " at " << i << " of " << size;
    }
  }
}

TEST_F(CudaRowwiseTest, QuantizeRows) {
  for (const int64_t size : kSizes) {
    for (const Layout& layout : LayoutsFor(size)) {
      std::vector<float> x = RandomFloats(layout.Elements(3), 3);
      std::fill_n(x.begin() + layout.offset + layout.stride, size, 0.0f);  // a row of zeros
      ASSERT_NO_FATAL_FAILURE(TestQuantizeRows<float>(x, 3, size, layout));
      ASSERT_NO_FATAL_FAILURE(TestQuantizeRows<BFloat16>(x, 3, size, layout));
    }
  }
}

// Halfway between codes, with scales that are a power of two and not, of normal size and as small as float32 goes.
TEST_F(CudaRowwiseTest, QuantizeRowsRoundsTiesToEven) {
  constexpr int64_t kSize = 256;
  std::vector<float> x;
  for (const float scale : {1.0f, 3.0f / 64, 0x1p-90f, 0x1p-130f, 0x1p-149f, 0x1p118f}) {
    x.push_back(448 * scale);
    for (int64_t i = 1; i < kSize; ++i) {
      const auto code = static_cast<uint8_t>(i % 126);
      x.push_back((DecodeE4M3(code) + DecodeE4M3(code + 1)) / (i % 2 == 0 ? 2 : -2) * scale);
    }
  }
  TestQuantizeRows<float>(x, static_cast<int64_t>(x.size()) / kSize, kSize, {.stride = kSize});
}

// A row whose largest magnitude over 448 is no number above zero.
TEST_F(CudaRowwiseTest, QuantizeRowsOfAlmostNothing) {
  TestQuantizeRows<float>({0x1p-149f, 0, -0x1p-149f, 0, 0, 0, 0, -0.0f}, 2, 4, {.stride = 4});
}

TEST_F(CudaRowwiseTest, QuantizedRowsKeepNan) {
  constexpr int64_t kSize = 1200;
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    std::vector<float> x(3 * kSize, 1.0f);
    x[kSize + 777] = bad;
    const DeviceArray<float> device_x(x);
    const DeviceArray<uint8_t> out(Poisoned<uint8_t>(3 * kSize));
    const DeviceArray<float> scales(Poisoned<float>(3));
    const auto expect_nan_in_the_middle = [&] {
      const std::vector<float> values = AsFloats(out.ToHost());
      const std::vector<float> actual_scales = scales.ToHost();
      for (int64_t r = 0; r < 3; ++r) EXPECT_EQ(std::isnan(actual_scales[r]), r == 1) << bad;
      for (int64_t i = 0; i < 3 * kSize; ++i) ASSERT_EQ(std::isnan(values[i]), i / kSize == 1) << bad << " at " << i;
    };
    QuantizeRows({.x = device_x.get(),
                  .x_stride = kSize,
                  .x_dtype = DType::kF32,
                  .rows = 3,
                  .size = kSize,
                  .out = out.get(),
                  .scales = scales.get()},
                 nullptr);
    expect_nan_in_the_middle();
    const DeviceArray<float> weight(std::vector<float>(kSize, 1.0f));
    RmsNorm({.x = device_x.get(),
             .x_stride = kSize,
             .weight = weight.get(),
             .rows = 3,
             .size = kSize,
             .out = out.get(),
             .out_stride = kSize,
             .out_dtype = DType::kF8E4M3,
             .scales = scales.get()},
            nullptr);
    expect_nan_in_the_middle();
  }
}

template <typename T, typename Out>
void TestSiluMul(int64_t size, const Layout& gate_up_layout, const Layout& out_layout) {
  constexpr int64_t kRows = 3;
  std::vector<float> floats = RandomFloats(gate_up_layout.Elements(kRows), 7, 20);
  floats[gate_up_layout.offset] = -200;  // e^200 overflows
  const std::vector<T> gate_up = As<T>(floats);
  const std::vector<float> exact = AsFloats(gate_up);
  std::vector<float> expected(kRows * size);
  RefBackend().SiluMul({.gate_up = exact.data() + gate_up_layout.offset,
                        .gate_up_stride = gate_up_layout.stride,
                        .rows = kRows,
                        .size = size,
                        .out = expected.data(),
                        .out_stride = size,
                        .dtype = DType::kF32});
  const DeviceArray<T> device_gate_up(gate_up);
  const DeviceArray<Out> out(Poisoned<Out>(out_layout.Elements(kRows)));
  const DeviceArray<float> scales(Poisoned<float>(kRows + 1));
  SiluMul({.gate_up = device_gate_up.get() + gate_up_layout.offset,
           .gate_up_stride = gate_up_layout.stride,
           .dtype = DTypeOf<T>(),
           .rows = kRows,
           .size = size,
           .out = out.get() + out_layout.offset,
           .out_stride = out_layout.stride,
           .out_dtype = DTypeOf<Out>(),
           .scales = scales.get()},
          nullptr);
  const std::vector<Out> actual = out.ToHost();
  const std::vector<float> actual_scales = scales.ToHost();
  for (int64_t r = 0; r < kRows; ++r) {
    ExpectRow(&actual[out_layout.offset + r * out_layout.stride], &expected[r * size], size, actual_scales[r]);
  }
  ExpectPoisonBesideRows(actual, out_layout, size);
}

TEST_F(CudaRowwiseTest, SiluMul) {
  for (const int64_t size : kSizes) {
    const std::vector<Layout> of_gate_up = LayoutsFor(2 * size);
    const std::vector<Layout> of_out = LayoutsFor(size);
    for (size_t i = 0; i < of_out.size(); ++i) {
      const auto test = [&](auto run) { ASSERT_NO_FATAL_FAILURE(run(size, of_gate_up[i], of_out[i])); };
      test(TestSiluMul<float, float>);
      test(TestSiluMul<BFloat16, BFloat16>);
      test(TestSiluMul<float, uint8_t>);
      test(TestSiluMul<BFloat16, uint8_t>);
    }
  }
}

template <typename T>
void TestUnpackRows(const std::vector<T>& matrix, int64_t n, int64_t k, int64_t offset) {
  const std::vector<int32_t> ids = {static_cast<int32_t>(n - 1), 0, 2, 2};
  const std::vector<float> scales = RandomFloats(n, 11);
  const DeviceArray<T> device_matrix(matrix);
  const DeviceArray<float> device_scales(scales);
  const DeviceArray<int32_t> device_ids(ids);
  const DeviceArray<float> out(Poisoned<float>(offset + 4 * k + 1));
  const float* const given_scales = sizeof(T) == 1 ? device_scales.get() : nullptr;
  UnpackRows(device_matrix.get(), DTypeOf<T>(), given_scales, k, device_ids.get(), 4, out.get() + offset, nullptr);
  const std::vector<float> actual = out.ToHost();
  ExpectPoisonBesideRows(actual, {.offset = offset, .stride = 4 * k + 1}, 4 * k);
  for (int64_t i = 0; i < 4 * k; ++i) {
    const int32_t id = ids[i / k];
    ASSERT_EQ(actual[offset + i], Value(matrix[id * k + i % k]) * (sizeof(T) == 1 ? scales[id] : 1)) << i;
  }
}

TEST_F(CudaRowwiseTest, UnpackAndGatherRows) {
  for (const int64_t k : {1, 33, 63, 576, 4096, 4100}) {
    const std::vector<float> floats = RandomFloats(5 * k, 10);
    std::vector<uint8_t> codes(5 * k);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i % 127 + i % 2 * 128);  // all but NaN
    for (const int64_t offset : {0, 1}) {
      ASSERT_NO_FATAL_FAILURE(TestUnpackRows(floats, 5, k, offset));
      ASSERT_NO_FATAL_FAILURE(TestUnpackRows(ToBFloat16(floats), 5, k, offset));
      ASSERT_NO_FATAL_FAILURE(TestUnpackRows(codes, 5, k, offset));
    }
    const DeviceArray<float> x(floats), out(Poisoned<float>(2 * k + 1));
    const DeviceArray<int32_t> ids(std::vector<int32_t>{4, 1});
    GatherRows(x.get(), k, ids.get(), 2, out.get(), nullptr);
    const std::vector<float> actual = out.ToHost();
    EXPECT_TRUE(std::equal(floats.begin() + 4 * k, floats.end(), actual.begin()));
    EXPECT_TRUE(std::equal(floats.begin() + k, floats.begin() + 2 * k, actual.begin() + k));
    EXPECT_TRUE(IsPoison(actual.back()));
  }
}

template <typename T>
void TestAddBias(int64_t size, const Layout& layout) {
  std::vector<T> y = Poisoned<T>(layout.Elements(3));
  const std::vector<T> rows = As<T>(RandomFloats(3 * size, 12));
  for (int64_t r = 0; r < 3; ++r) std::copy_n(&rows[r * size], size, &y[layout.offset + r * layout.stride]);
  const std::vector<float> bias = RandomFloats(size, 13);
  const DeviceArray<T> device_y(y);
  const DeviceArray<float> device_bias(bias);
  AddBias(device_y.get() + layout.offset, DTypeOf<T>(), layout.stride, device_bias.get(), 3, size, nullptr);
  const std::vector<T> actual = device_y.ToHost();
  ExpectPoisonBesideRows(actual, layout, size);
  for (int64_t i = 0; i < 3 * size; ++i) {
    const T expected = As<T>({Value(rows[i]) + bias[i % size]})[0];
    ASSERT_EQ(Value(actual[layout.offset + i / size * layout.stride + i % size]), Value(expected)) << i;
  }
}

TEST_F(CudaRowwiseTest, AddBias) {
  for (const int64_t size : kSizes) {
    for (const Layout& layout : LayoutsFor(size)) {
      ASSERT_NO_FATAL_FAILURE(TestAddBias<float>(size, layout));
      ASSERT_NO_FATAL_FAILURE(TestAddBias<BFloat16>(size, layout));
    }
  }
}

TEST_F(CudaRowwiseTest, LogitStats) {
  constexpr int64_t kRows = 6;
  for (const int64_t vocab : {1, 5, 16, 49, 4096, 16384, 16385, 50001, 128256}) {
    std::vector<float> logits = RandomFloats(kRows * vocab, 8, 3);
    logits[vocab / 2] = logits[vocab - 1] = 1000;  // the first of equal maxima
    std::fill_n(logits.begin() + vocab, vocab, 2.5f);
    if (vocab > 1) logits[2 * vocab] = -kInfinity;  // a forbidden token
    std::fill_n(logits.begin() + 3 * vocab, vocab - 1, -kInfinity);
    const DeviceArray<float> device_logits(logits);
    const DeviceArray<LogitStats> stats(Poisoned<LogitStats>(kRows + 1));
    ComputeLogitStats(device_logits.get(), kRows, vocab, stats.get(), nullptr);
    const std::vector<LogitStats> actual = stats.ToHost();
    std::vector<LogitStats> expected(kRows);
    RefBackend().ComputeLogitStats(logits.data(), kRows, vocab, expected.data());
    for (int64_t r = 0; r < kRows; ++r) {
      EXPECT_EQ(actual[r].argmax, expected[r].argmax) << vocab << " row " << r;
      EXPECT_EQ(actual[r].max, expected[r].max) << vocab << " row " << r;
      EXPECT_NEAR(actual[r].log_sum_exp, expected[r].log_sum_exp, 1e-6f * std::abs(expected[r].log_sum_exp) + 1e-6f);
    }
    EXPECT_TRUE(IsPoison(actual.back()));
  }
}

TEST_F(CudaRowwiseTest, LogitStatsWithoutMaximumStayInRange) {
  for (const int64_t vocab : {1, 37, 4096}) {
    std::vector<float> logits(3 * vocab, kNan);
    std::fill_n(logits.begin() + vocab, vocab, -kInfinity);
    std::fill_n(logits.begin() + 2 * vocab, vocab, kInfinity);
    const DeviceArray<float> device_logits(logits);
    const DeviceArray<LogitStats> stats(Poisoned<LogitStats>(3));
    ComputeLogitStats(device_logits.get(), 3, vocab, stats.get(), nullptr);
    for (const LogitStats& row : stats.ToHost()) EXPECT_EQ(row.argmax, 0);
    EXPECT_TRUE(std::isnan(stats.ToHost()[0].log_sum_exp));
    EXPECT_EQ(stats.ToHost()[1].max, -kInfinity);
    EXPECT_EQ(stats.ToHost()[2].max, kInfinity);
  }
}

TEST_F(CudaRowwiseTest, KlDivergence) {
  for (const int64_t vocab : {1, 17, 1000, 49152, 128256}) {
    const std::vector<float> p = RandomFloats(2 * vocab, 9, 0.05f);
    for (const float distance : {0.0f, 0.001f, 1.0f}) {
      std::vector<float> q = RandomFloats(2 * vocab, 10, 0.05f);
      for (size_t i = 0; i < q.size(); ++i) q[i] = p[i] + distance * (q[i] - p[i]) + 10 * distance;
      const DeviceArray<float> device_p(p), device_q(q), kl(Poisoned<float>(3));
      KlDivergence(device_p.get(), device_q.get(), 2, vocab, kl.get(), nullptr);
      const std::vector<float> actual = kl.ToHost();
      std::vector<float> expected(2);
      RefBackend().KlDivergence(p.data(), q.data(), 2, vocab, expected.data());
      for (int r = 0; r < 2; ++r) EXPECT_NEAR(actual[r], expected[r], 1e-5f * expected[r] + 3e-6f) << vocab;
      if (distance == 0) {
        EXPECT_EQ(actual[0], 0);
      }
      EXPECT_TRUE(IsPoison(actual[2]));
    }
  }
}

TEST_F(CudaRowwiseTest, KlDivergenceLeavesOutWhatPForbids) {
  const DeviceArray<float> p(std::vector<float>{1, -kInfinity, 2, -kInfinity});
  const DeviceArray<float> q(std::vector<float>{2, 3, 1, -kInfinity});
  const DeviceArray<float> kl(Poisoned<float>(1));
  KlDivergence(p.get(), q.get(), 1, 4, kl.get(), nullptr);
  const double p_sum = std::exp(1.0) + std::exp(2.0);
  const double q_sum = std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
  const double expected = (std::exp(2.0) - std::exp(1.0)) / p_sum + std::log(q_sum) - std::log(p_sum);
  EXPECT_NEAR(kl.ToHost()[0], expected, 1e-6);
}

// The bytes of a row don't depend on the rows beside it, nor on whether its memory is aligned for vectors.
TEST_F(CudaRowwiseTest, RowsStandAlone) {
  constexpr int64_t kRows = 5;
  for (const int64_t size : {576, 4096, 20000}) {
    const std::vector<float> x = RandomFloats(kRows * size, 14);
    std::vector<float> shifted = {0};
    shifted.insert(shifted.end(), x.begin(), x.end());
    const DeviceArray<float> device_x(x), device_shifted(shifted), weight(RandomFloats(size, 15));
    const auto run = [&](const float* rows, int64_t count) {
      const DeviceArray<float> out(Poisoned<float>(count * size));
      RmsNorm({.x = rows,
               .x_stride = size,
               .weight = weight.get(),
               .eps = 1e-6f,
               .rows = count,
               .size = size,
               .out = out.get(),
               .out_stride = size},
              nullptr);
      const DeviceArray<LogitStats> stats(Poisoned<LogitStats>(count));
      ComputeLogitStats(rows, count, size, stats.get(), nullptr);
      std::vector<float> results = out.ToHost();
      for (const LogitStats& row : stats.ToHost()) results.push_back(row.log_sum_exp);
      return results;
    };
    const std::vector<float> together = run(device_x.get(), kRows);
    EXPECT_EQ(together, run(device_shifted.get() + 1, kRows));
    for (int64_t r = 0; r < kRows; ++r) {
      const std::vector<float> alone = run(device_x.get() + r * size, 1);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end() - 1, together.begin() + r * size)) << size;
      EXPECT_EQ(alone.back(), together[kRows * size + r]) << size;
    }
  }
}

// Rows beyond what 16 bits of a grid hold, and none at all.
TEST_F(CudaRowwiseTest, ManyRowsAndNone) {
  constexpr int64_t kRows = 70000;
  constexpr int64_t kSize = 33;
  const std::vector<float> x = RandomFloats(kRows * kSize, 16);
  const std::vector<float> bias(kSize, 1.0f);
  const DeviceArray<float> device_x(x), device_bias(bias);
  AddBias(device_x.get(), DType::kF32, kSize, device_bias.get(), kRows, kSize, nullptr);
  AddBias(device_x.get(), DType::kF32, kSize, device_bias.get(), 0, kSize, nullptr);
  const std::vector<float> actual = device_x.ToHost();
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(actual[i], x[i] + 1) << i;

  RmsNorm({.size = kSize}, nullptr);
  QuantizeRows({.size = kSize}, nullptr);
  SiluMul({.size = kSize}, nullptr);
  UnpackRows(nullptr, DType::kF32, nullptr, kSize, nullptr, 0, nullptr, nullptr);
  RotateAndStore({.heads = 1, .kv_heads = 1, .head_dim = 64}, nullptr);
  ComputeLogitStats(nullptr, 0, kSize, nullptr, nullptr);
  KlDivergence(nullptr, nullptr, 0, kSize, nullptr, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(CudaRowwiseTest, Rope) {
  for (const int64_t head_dim : {2, 6, 16, 64, 80, 128, 250, 256}) {
    const int64_t stride = 3 * head_dim + 8;
    const std::vector<float> cos = RandomFloats(40 * head_dim / 2, 3);
    const std::vector<float> sin = RandomFloats(40 * head_dim / 2, 4);
    const std::vector<float> weight = RandomFloats(head_dim, 5);
    const std::vector<int32_t> positions = {39, 0, 7, 7};
    const DeviceArray<float> device_cos(cos), device_sin(sin), device_weight(weight);
    const DeviceArray<int32_t> device_positions(positions);
    for (const bool norm : {false, true}) {
      std::vector<float> expected = RandomFloats(4 * stride, 6);
      const DeviceArray<float> x(expected);
      RopeArgs args = {.x = expected.data(),
                       .x_stride = stride,
                       .rows = 4,
                       .heads = 3,
                       .head_dim = head_dim,
                       .positions = positions.data(),
                       .cos = cos.data(),
                       .sin = sin.data(),
                       .norm_weight = norm ? weight.data() : nullptr,
                       .norm_eps = 1e-6f};
      RefBackend().Rope(args);
      args.x = x.get();
      args.positions = device_positions.get();
      args.cos = device_cos.get();
      args.sin = device_sin.get();
      args.norm_weight = norm ? device_weight.get() : nullptr;
      Rope(args, nullptr);
      const std::vector<float> actual = x.ToHost();
      // Each output is a sum of two products: relative to the largest of them.
      const float largest = 1e-6f * std::abs(*std::max_element(expected.begin(), expected.end()));
      for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], largest) << head_dim << " " << i;
    }
  }
}

// Keys, values and queries of some rows for several KV groups, on the host.
struct Rotation {
  int64_t head_dim;
  bool norm;
  int64_t heads = 5;
  int64_t groups = 3;
  int64_t kv_heads = 2;
  int64_t pad = 0;  // elements behind each row
  std::vector<int32_t> positions = {39, 0, 7, 7, 3};
  std::vector<int64_t> slots = {4 * kBlockTokens + 15, 0, -1, 17, 2 * kBlockTokens + 3};
  int64_t rows = 5;
  int64_t q_stride = heads * head_dim + pad;
  int64_t kv_stride = groups * kv_heads * head_dim + pad;
  int64_t group_elements = 5 * 2 * kv_heads * kBlockTokens * head_dim + 64;  // five blocks and a gap
  std::vector<float> q = RandomFloats(rows * q_stride, 20, 3);
  std::vector<float> k = RandomFloats(rows * kv_stride, 21, 3);
  std::vector<float> v = RandomFloats(rows * kv_stride, 22, 3);
  std::vector<float> cos = AngleTable([](double angle) { return std::cos(angle); });
  std::vector<float> sin = AngleTable([](double angle) { return std::sin(angle); });
  std::vector<float> q_norm = RandomFloats(head_dim, 25);
  std::vector<float> k_norm = RandomFloats(head_dim, 26);

  std::vector<float> AngleTable(double (*function)(double)) const {
    std::vector<float> table(40 * head_dim / 2);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(function(0.37 * static_cast<double>(i)));
    return table;
  }

  std::vector<float> Rotated(std::vector<float> x, int64_t stride, int64_t count,
                             const std::vector<float>& weight) const {
    RefBackend().Rope({.x = x.data(),
                       .x_stride = stride,
                       .rows = rows,
                       .heads = count,
                       .head_dim = head_dim,
                       .positions = positions.data(),
                       .cos = cos.data(),
                       .sin = sin.data(),
                       .norm_weight = norm ? weight.data() : nullptr,
                       .norm_eps = 1e-6f});
    return x;
  }

  // What each element of the groups' caches must be; NaN: untouched.
  std::vector<float> ExpectedCache() const {
    const std::vector<float> rotated = Rotated(k, kv_stride, groups * kv_heads, k_norm);
    std::vector<float> cache(groups * group_elements, kNan);
    for (int64_t r = 0; r < rows; ++r) {
      if (slots[r] < 0) continue;
      for (int64_t head = 0; head < groups * kv_heads; ++head) {
        const int64_t block = slots[r] / kBlockTokens;
        const int64_t token = slots[r] % kBlockTokens;
        for (const int64_t is_value : {0, 1}) {
          const int64_t plane = (block * 2 + is_value) * kv_heads + head % kv_heads;
          const auto& from = is_value == 1 ? v : rotated;
          std::copy_n(from.begin() + r * kv_stride + head * head_dim, head_dim,
                      cache.begin() + head / kv_heads * group_elements + (plane * kBlockTokens + token) * head_dim);
        }
      }
    }
    return cache;
  }
};

template <typename Cache>
void ExpectCache(const std::vector<Cache>& actual, const std::vector<float>& expected) {
  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(value));  // NaN left out
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(IsPoison(actual[i])) << i;
      continue;
    }
    const float value = sizeof(Cache) == 1 ? std::clamp(expected[i], -448.0f, 448.0f) : expected[i];
    const float magnitude = std::abs(value);
    const float rounding = sizeof(Cache) == 4   ? 0
                           : sizeof(Cache) == 2 ? magnitude / 250
                                                : magnitude / 15.9f + 1.01f * std::ldexp(1.0f, -10);
    // Sums of two products: relative to the largest of them.
    ASSERT_NEAR(Value(actual[i]), value, rounding + 1e-6f * largest) << i;
  }
}

template <typename Cache>
void TestRotateAndStore(const Rotation& host) {
  const DeviceArray<float> q(host.q), k(host.k), v(host.v), cos(host.cos), sin(host.sin);
  const DeviceArray<float> q_norm(host.q_norm), k_norm(host.k_norm);
  const DeviceArray<int32_t> positions(host.positions);
  const DeviceArray<int64_t> slots(host.slots);
  const DeviceArray<Cache> cache(Poisoned<Cache>(host.groups * host.group_elements));
  RotateAndStore({.q = q.get(),
                  .q_stride = host.q_stride,
                  .heads = host.heads,
                  .q_norm = host.norm ? q_norm.get() : nullptr,
                  .k = k.get(),
                  .v = v.get(),
                  .kv_stride = host.kv_stride,
                  .groups = host.groups,
                  .kv_heads = host.kv_heads,
                  .k_norm = host.norm ? k_norm.get() : nullptr,
                  .head_dim = host.head_dim,
                  .rows = host.rows,
                  .positions = positions.get(),
                  .cos = cos.get(),
                  .sin = sin.get(),
                  .norm_eps = 1e-6f,
                  .slots = slots.get(),
                  .cache = reinterpret_cast<std::byte*>(cache.get()),
                  .group_bytes = host.group_elements * static_cast<int64_t>(sizeof(Cache)),
                  .cache_dtype = DTypeOf<Cache>()},
                 nullptr);
  const std::vector<float> expected = host.Rotated(host.q, host.q_stride, host.heads, host.q_norm);
  const std::vector<float> actual = q.ToHost();
  const float largest = 1e-6f * std::abs(*std::max_element(expected.begin(), expected.end()));
  for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], largest) << i;
  EXPECT_EQ(k.ToHost(), host.k);
  EXPECT_EQ(v.ToHost(), host.v);
  ExpectCache(cache.ToHost(), host.ExpectedCache());
}

TEST_F(CudaRowwiseTest, RotateAndStore) {
  for (const int64_t head_dim : {2, 6, 64, 80, 128, 250, 256}) {
    for (const bool norm : {false, true}) {
      for (const int64_t pad : {0, 8, 3}) {
        const Rotation host = {.head_dim = head_dim, .norm = norm, .pad = pad};
        SCOPED_TRACE(std::to_string(head_dim) + " norm " + std::to_string(norm) + " pad " + std::to_string(pad));
        ASSERT_NO_FATAL_FAILURE(TestRotateAndStore<float>(host));
        ASSERT_NO_FATAL_FAILURE(TestRotateAndStore<BFloat16>(host));
        ASSERT_NO_FATAL_FAILURE(TestRotateAndStore<uint8_t>(host));
      }
    }
  }
}

// Keys and values without queries, and only keys.
TEST_F(CudaRowwiseTest, RotateAndStoreWithoutQueries) {
  const Rotation host = {.head_dim = 64, .norm = false};
  const DeviceArray<float> k(host.k), v(host.v), cos(host.cos), sin(host.sin);
  const DeviceArray<int32_t> positions(host.positions);
  const DeviceArray<int64_t> slots(host.slots);
  for (const bool values : {true, false}) {
    const DeviceArray<float> cache(Poisoned<float>(host.groups * host.group_elements));
    RotateAndStore({.k = k.get(),
                    .v = values ? v.get() : nullptr,
                    .kv_stride = host.kv_stride,
                    .groups = host.groups,
                    .kv_heads = host.kv_heads,
                    .head_dim = host.head_dim,
                    .rows = host.rows,
                    .positions = positions.get(),
                    .cos = cos.get(),
                    .sin = sin.get(),
                    .slots = slots.get(),
                    .cache = reinterpret_cast<std::byte*>(cache.get()),
                    .group_bytes = host.group_elements * 4},
                   nullptr);
    std::vector<float> expected = host.ExpectedCache();
    const int64_t plane = host.kv_heads * kBlockTokens * host.head_dim;
    for (int64_t i = 0; !values && i < static_cast<int64_t>(expected.size()); ++i) {
      if (i % host.group_elements / plane % 2 == 1) expected[i] = kNan;
    }
    ExpectCache(cache.ToHost(), expected);
  }
}

// What a recorded graph does when it runs is what the calls would have done.
TEST_F(CudaRowwiseTest, CanBeRecorded) {
  constexpr int64_t kSize = 576;
  const DeviceArray<float> x(RandomFloats(2 * kSize, 30)), weight(RandomFloats(kSize, 31)), scales(Poisoned<float>(2));
  const DeviceArray<uint8_t> out(Poisoned<uint8_t>(2 * kSize));
  const DeviceArray<LogitStats> stats(Poisoned<LogitStats>(2));
  const auto launch = [&](cudaStream_t stream) {
    AddBias(x.get(), DType::kF32, kSize, weight.get(), 2, kSize, stream);
    RmsNorm({.x = x.get(),
             .x_stride = kSize,
             .weight = weight.get(),
             .rows = 2,
             .size = kSize,
             .out = out.get(),
             .out_stride = kSize,
             .out_dtype = DType::kF8E4M3,
             .scales = scales.get()},
            stream);
    ComputeLogitStats(x.get(), 2, kSize, stats.get(), stream);
  };
  cudaStream_t stream;
  CheckCuda(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CheckCuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  launch(stream);
  CheckCuda(cudaStreamEndCapture(stream, &graph));
  CheckCuda(cudaGraphInstantiate(&executable, graph, 0));
  const std::vector<float> before = x.ToHost();
  CheckCuda(cudaGraphLaunch(executable, stream));
  const std::vector<uint8_t> recorded = out.ToHost();
  const float recorded_log_sum_exp = stats.ToHost()[1].log_sum_exp;
  CheckCuda(cudaMemcpy(x.get(), before.data(), before.size() * sizeof(float), cudaMemcpyHostToDevice));
  launch(nullptr);
  EXPECT_EQ(recorded, out.ToHost());
  EXPECT_EQ(recorded_log_sum_exp, stats.ToHost()[1].log_sum_exp);
  CheckCuda(cudaGraphExecDestroy(executable));
  CheckCuda(cudaGraphDestroy(graph));
  CheckCuda(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace swiftkv::kernels::cuda
