// Products of the CUDA twin, as the model calls them: against sums in double of what the inputs were rounded to.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

constexpr float kCanary = 12345;

// E4M3 has a scale for each row: its largest magnitude over 448.
std::vector<float> RoundToE4M3(const std::vector<float>& values, int64_t size) {
  std::vector<float> rounded(values.size());
  for (size_t row = 0; row < values.size(); row += static_cast<size_t>(size)) {
    float largest = 0;
    for (int64_t i = 0; i < size; ++i) largest = std::max(largest, std::fabs(values[row + static_cast<size_t>(i)]));
    const float scale = largest > 0 ? largest / 448 : 1;
    for (int64_t i = 0; i < size; ++i) {
      const float value = values[row + static_cast<size_t>(i)] / scale;
      // Three bits behind the first, down to 2^-9.
      const float exponent = std::max(std::floor(std::log2(std::max(std::fabs(value), 1e-30f))), -6.0f);
      const float step = std::exp2(exponent - 3);
      rounded[row + static_cast<size_t>(i)] = std::nearbyint(value / step) * step * scale;
    }
  }
  return rounded;
}

std::vector<float> RoundToBf16(std::vector<float> values) {
  for (float& value : values) value = ToFloat(swiftkv::ToBFloat16(value));
  return values;
}

class CudaGemmTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto cuda = CudaBackend();
    if (!cuda) GTEST_SKIP() << cuda.error().message;
    ops_ = *cuda;
  }

  template <class T>
  AlignedBuffer Upload(const std::vector<T>& values) {
    AlignedBuffer buffer = AlignedBuffer::Allocate(std::ssize(values) * sizeof(T), "test", ops_->memory()).value();
    ops_->memory().Write(buffer.data(), values.data(), buffer.bytes());
    return buffer;
  }

  // y [m, n + 8] of Gemm, from kCanary everywhere.
  void Check(int64_t m, int64_t k, int64_t n, DType dtype, bool accumulate, DType y_dtype) {
    SCOPED_TRACE(testing::Message() << m << " x " << k << " x " << n << " " << Name(dtype) << " to " << Name(y_dtype));
    // Unlike other tests' data without outliers, for which E4M3 would need a wide tolerance.
    std::vector<float> x = RandomFloats(m * k, 1);
    std::vector<float> weights = RandomFloats(n * k, 2);
    for (std::vector<float>* values : {&x, &weights}) {
      for (float& value : *values) value = std::remainder(value, 3.0f);
    }
    const std::vector<float> bias = RandomFloats(n, 3);
    PackedMatrix w = ops_->AllocatePacked(n, k, dtype).value();
    ops_->PackRows(weights.data(), 0, n, &w);
    const AlignedBuffer device_bias = Upload(bias);
    const bool is_f32 = dtype == DType::kF32;
    const AlignedBuffer device_x = is_f32 ? Upload(x) : Upload(kernels::ToBFloat16(x));
    const int64_t stride = n + 8;
    std::vector<float> y(static_cast<size_t>(m * stride), kCanary);
    AlignedBuffer device_y = y_dtype == DType::kF32 ? Upload(y) : Upload(kernels::ToBFloat16(y));
    ops_->Gemm({.x = device_x.data(),
                .x_stride = k,
                .m = m,
                .w = &w,
                .bias = device_bias.as<float>(),
                .y = device_y.data(),
                .y_stride = stride,
                .y_dtype = y_dtype,
                .accumulate = accumulate});
    if (y_dtype == DType::kF32) {
      ops_->memory().Read(y.data(), device_y.data(), device_y.bytes());
    } else {
      std::vector<BFloat16> rounded(y.size());
      ops_->memory().Read(rounded.data(), device_y.data(), device_y.bytes());
      for (size_t i = 0; i < y.size(); ++i) y[i] = ToFloat(rounded[i]);
    }
    ASSERT_TRUE(ops_->TakeError());

    if (!is_f32) x = RoundToBf16(x);
    if (!is_f32) weights = RoundToBf16(weights);
    if (dtype == DType::kF8E4M3) weights = RoundToE4M3(weights, k);
    if (ops_->InputType(w, m) == DType::kF8E4M3) x = RoundToE4M3(x, k);
    const double tolerance = dtype == DType::kF8E4M3 ? 2e-3 : 3e-6;  // E4M3's sums are not kept in all of float32
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t column = 0; column < n; ++column) {
        double sum = accumulate ? kCanary : 0;
        double magnitude = std::fabs(sum);
        for (int64_t i = 0; i < k; ++i) {
          const double product = static_cast<double>(x[row * k + i]) * weights[column * k + i];
          sum += product;
          magnitude += std::fabs(product);
        }
        sum += bias[column];
        const double rounding =
            y_dtype == DType::kBF16 ? std::fabs(sum) * 0x1p-7 + 0x1p-7 * std::fabs(bias[column]) : 0;
        ASSERT_NEAR(y[row * stride + column], sum, magnitude * tolerance + rounding)
            << "row " << row << " column " << column;
      }
      for (int64_t column = n; column < stride; ++column) {
        ASSERT_NEAR(y[row * stride + column], kCanary, 64) << "behind row " << row;
      }
    }
  }

  const Backend* ops_ = nullptr;
};

TEST_F(CudaGemmTest, Bf16) {
  for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 33, 200}) {
    Check(m, 576, 200, DType::kBF16, false, DType::kF32);
    Check(m, 4096, 65, DType::kBF16, true, DType::kF32);
    Check(m, 1024, 96, DType::kBF16, false, DType::kBF16);
  }
  Check(3, 36, 17, DType::kBF16, false, DType::kF32);  // rows that no vector fits
  Check(40, 36, 24, DType::kBF16, true, DType::kF32);
}

TEST_F(CudaGemmTest, F32) {
  for (const int64_t m : {1, 5, 9, 100}) {
    Check(m, 576, 200, DType::kF32, false, DType::kF32);
    Check(m, 48, 33, DType::kF32, true, DType::kF32);
  }
}

TEST_F(CudaGemmTest, Fp8) {
  if (const auto w = ops_->AllocatePacked(64, 64, DType::kF8E4M3); !w) GTEST_SKIP() << w.error().message;
  for (const int64_t m : {1, 4, 8, 9, 33, 200}) {
    Check(m, 576, 208, DType::kF8E4M3, false, DType::kF32);
    Check(m, 4096, 64, DType::kF8E4M3, true, DType::kF32);
    Check(m, 1024, 96, DType::kF8E4M3, false, DType::kBF16);
  }
}

}  // namespace
}  // namespace swiftkv::kernels
