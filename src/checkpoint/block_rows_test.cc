#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/float16.h"
#include "checkpoint/tensor_source.h"

namespace swiftkv {
namespace {

constexpr int64_t kRows = 8;
constexpr int64_t kColumns = 96;

float Value(const BlockRows& rows, int64_t i) {
  const auto block = static_cast<size_t>(i / 32);
  const float minimum = rows.minima.empty() ? 0 : HalfToFloat(rows.minima[block]);
  return static_cast<float>(rows.codes[static_cast<size_t>(i)]) * HalfToFloat(rows.scales[block]) + minimum;
}

// Random bytes, with scales (and minima) that are small numbers.
std::vector<std::byte> RandomBlocks(DType dtype) {
  std::mt19937 random(3);
  std::vector<std::byte> bytes(static_cast<size_t>(*BytesFor(dtype, kRows * kColumns)));
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(BlockBytes(dtype))) {
    const uint16_t halves[2] = {FloatToHalf(0.01f * static_cast<float>(random() % 100)),
                                FloatToHalf(-0.1f * static_cast<float>(random() % 100))};
    std::memcpy(&bytes[block], halves, dtype == DType::kQ4_1 ? 4 : 2);
  }
  return bytes;
}

TEST(BlockRowsTest, HoldWhatTheFileSays) {
  for (const DType dtype : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    for (const int64_t heads : {0, 2}) {
      const std::vector<std::byte> bytes = RandomBlocks(dtype);
      const StoredTensor tensor{
          .name = "w", .dtype = dtype, .shape = {kRows, kColumns}, .data = bytes, .permuted_heads = heads};
      std::vector<float> expected(6 * kColumns);
      ASSERT_TRUE(DecodeRows(tensor, 1, 6, expected.data()).has_value());
      BlockRows rows;
      ASSERT_TRUE(DecodeBlockRows(tensor, 1, 6, &rows).has_value());
      EXPECT_EQ(rows.minima.empty(), BlockRowsType(tensor) == DType::kQ8_0);
      for (int64_t i = 0; i < 6 * kColumns; ++i) ASSERT_EQ(Value(rows, i), expected[static_cast<size_t>(i)]);
      EXPECT_FALSE(DecodeBlockRows(tensor, 3, 6, &rows).has_value());
    }
  }
}

TEST(BlockRowsTest, RefusesScalesThatAreNoNumbers) {
  std::vector<std::byte> bytes = RandomBlocks(DType::kQ8_0);
  const uint16_t infinite = 0x7c00;
  std::memcpy(&bytes[34 * 4], &infinite, 2);
  const StoredTensor tensor{.name = "w", .dtype = DType::kQ8_0, .shape = {kRows, kColumns}, .data = bytes};
  BlockRows rows;
  EXPECT_TRUE(DecodeBlockRows(tensor, 0, 1, &rows).has_value());
  EXPECT_FALSE(DecodeBlockRows(tensor, 1, 1, &rows).has_value());
}

TEST(BlockRowsTest, QuantizationIsWithinHalfAStep) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0.1f, 1.0f);
  std::vector<float> values(kRows * kColumns);
  for (float& value : values) value = normal(random);
  for (int64_t i = 0; i < 32; ++i) values[static_cast<size_t>(i)] = 0;
  for (int64_t i = 32; i < 64; ++i) values[static_cast<size_t>(i)] = 2.5f;
  for (const DType type : {DType::kQ8_0, DType::kQ4_1}) {
    BlockRows rows;
    QuantizeRows(values.data(), kRows, kColumns, type, &rows);
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      const float step = HalfToFloat(rows.scales[static_cast<size_t>(i / 32)]);
      // The scale itself is rounded: by 2^-11 of the range.
      ASSERT_NEAR(Value(rows, i), values[static_cast<size_t>(i)], 0.51f * step + 1e-3f * 16 * step + 1e-6f) << i;
    }
  }
}

}  // namespace
}  // namespace swiftkv
