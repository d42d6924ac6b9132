// GatedGemm of every backend: to the last bit Gemm and then SiluMul.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "kernels/test_data.h"

namespace swiftkv::kernels {
namespace {

PackedMatrix RandomMatrix(const Backend& ops, int64_t n, int64_t k, DType dtype, std::vector<int32_t> exact_features) {
  PackedMatrix w = std::move(dtype == DType::kI8 ? *ops.AllocateInt8(n, k, std::move(exact_features))
                                                 : *ops.AllocatePacked(n, k, dtype));
  if (!IsQuantized(dtype)) {
    ops.PackRows(RandomFloats(n * k, 2).data(), 0, n, &w);
    return w;
  }
  std::vector<int8_t> codes;
  for (const float value : RandomFloats(n * k, 2, 8))
    codes.push_back(static_cast<int8_t>(std::min(15.0f, std::abs(value))));
  const std::vector<float> scales = RandomFloats(n * k / kQuantizedBlock * ScalesOfBlock(dtype), 3, 0.1f);
  ops.PackQuantizedRows({.codes = codes.data(), .scales = scales.data(), .minima = scales.data()}, 0, n, &w);
  return w;
}

struct Case {
  DType dtype;
  bool int8_inputs;
  std::vector<int32_t> exact_features;
};

class GatedGemmTest : public testing::TestWithParam<const Backend*> {
 protected:
  const Backend& ops() const { return *GetParam(); }

  // Compares [m, size] of both ways, and what stands behind the rows.
  void Check(const PackedMatrix& w, int64_t m, bool has_bias) const {
    const int64_t size = w.n / 2;
    const int64_t stride = size + 3;
    const DType act = w.activation_dtype();
    const size_t bytes = act == DType::kBF16 ? 2 : 4;
    std::vector<float> x = RandomFloats(m * w.k, 4, 2);
    if (m > 2) x[static_cast<size_t>(w.k)] = std::numeric_limits<float>::quiet_NaN();  // row 1 alone
    const std::vector<BFloat16> x_bf16 = ToBFloat16(x);
    const std::vector<float> bias = RandomFloats(w.n, 5);
    std::vector<std::byte> gate_up(static_cast<size_t>(m * w.n) * bytes);
    std::vector<std::byte> expected(static_cast<size_t>(m * stride) * bytes, std::byte{0x55});
    std::vector<std::byte> actual = expected;
    const GemmArgs gemm = {.x = bytes == 2 ? static_cast<const void*>(x_bf16.data()) : x.data(),
                           .x_stride = w.k,
                           .m = m,
                           .w = &w,
                           .bias = has_bias ? bias.data() : nullptr,
                           .y = gate_up.data(),
                           .y_stride = w.n,
                           .y_dtype = act};
    ops().Gemm(gemm);
    ops().SiluMul({.gate_up = gate_up.data(),
                   .gate_up_stride = w.n,
                   .rows = m,
                   .size = size,
                   .out = expected.data(),
                   .out_stride = stride,
                   .dtype = act});
    ops().GatedGemm({.gemm = gemm, .out = actual.data(), .out_stride = stride});
    ASSERT_TRUE(actual == expected) << m << " x " << w.k << " x " << w.n << " " << Name(w.dtype);
  }
};

TEST_P(GatedGemmTest, GivesTheBytesOfGemmAndSiluMul) {
  const std::vector<Case> cases = {{DType::kF32, false, {}},    {DType::kBF16, false, {}}, {DType::kQ4_1, false, {}},
                                   {DType::kQ8_0, false, {}},   {DType::kQ4_1, true, {}},  {DType::kI8, false, {}},
                                   {DType::kI8, false, {3, 20}}};
  for (const Case& c : cases) {
    for (const int64_t size : {33, 64, 192}) {
      for (const int64_t k : {32, 1600}) {
        PackedMatrix w = RandomMatrix(ops(), 2 * size, k, c.dtype, c.exact_features);
        w.int8_inputs = c.int8_inputs;
        for (const int64_t m : {0, 1, 16, 33, 75}) Check(w, m, m % 2 == 1);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllBackends, GatedGemmTest, testing::ValuesIn(AvailableBackends()),
                         [](const testing::TestParamInfo<const Backend*>& tested) {
                           return std::string(tested.param->name());
                         });

}  // namespace
}  // namespace swiftkv::kernels
