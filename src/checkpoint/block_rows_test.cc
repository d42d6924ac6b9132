#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <tuple>

#include "checkpoint/tensor_source.h"
#include "checkpoint/test_blocks.h"

namespace swiftkv {
namespace {

constexpr int64_t kRows = 8;
constexpr int64_t kColumns = 96;

float Value(const BlockRows& rows, DType type, int64_t i) {
  const float scale = rows.scales[static_cast<size_t>(i * ScalesOfBlock(type) / 32)];
  const float minimum = rows.minima.empty() ? 0 : rows.minima[static_cast<size_t>(i / 32)];
  return std::fma(static_cast<float>(rows.codes[static_cast<size_t>(i)]), scale, minimum);
}

TEST(BlockRowsTest, HoldWhatTheFileSays) {
  for (const auto& [dtype, type, codes] : {std::tuple{DType::kQ8_0, DType::kQ8_0, 256},
                                           {DType::kQ4_0, DType::kQ4_1, 16},
                                           {DType::kQ4_1, DType::kQ4_1, 16},
                                           {DType::kQ5_0, DType::kQ8_0, 32},
                                           {DType::kQ5_1, DType::kQ5_K, 32},
                                           {DType::kQ4_K, DType::kQ4_K, 16},
                                           {DType::kQ5_K, DType::kQ5_K, 32},
                                           {DType::kQ6_K, DType::kQ6_K, 64}}) {
    const int64_t columns = 3 * BlockElements(dtype);
    for (const int64_t heads : {0, 2}) {
      const std::vector<std::byte> bytes = RandomBlocks(dtype, kRows * columns);
      const StoredTensor tensor{
          .name = "w", .dtype = dtype, .shape = {kRows, columns}, .data = bytes, .permuted_heads = heads};
      std::vector<float> expected(static_cast<size_t>(6 * columns));
      ASSERT_TRUE(DecodeRows(tensor, 1, 6, expected.data()).has_value());
      BlockRows rows;
      ASSERT_TRUE(DecodeBlockRows(tensor, 1, 6, &rows).has_value());
      EXPECT_EQ(BlockRowsType(tensor), type);
      EXPECT_EQ(rows.minima.empty(), type == DType::kQ8_0 || type == DType::kQ6_K);
      const auto [least, greatest] = std::minmax_element(rows.codes.begin(), rows.codes.end());
      EXPECT_NEAR(*greatest - *least, codes - 1, codes / 64) << Name(dtype);
      for (int64_t i = 0; i < 6 * columns; ++i) {
        ASSERT_EQ(Value(rows, type, i), expected[static_cast<size_t>(i)]) << Name(dtype) << " at " << i;
      }
      EXPECT_FALSE(DecodeBlockRows(tensor, 3, 6, &rows).has_value());
    }
  }
}

TEST(BlockRowsTest, RefusesScalesThatAreNoNumbers) {
  std::vector<std::byte> bytes = RandomBlocks(DType::kQ8_0, kRows * kColumns);
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
      const float step = rows.scales[static_cast<size_t>(i / 32)];
      // The scale itself is rounded: by 2^-11 of the range.
      ASSERT_NEAR(Value(rows, type, i), values[static_cast<size_t>(i)], 0.51f * step + 1e-3f * 16 * step + 1e-6f) << i;
    }
  }
}

}  // namespace
}  // namespace swiftkv
