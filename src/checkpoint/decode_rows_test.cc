#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/float8.h"
#include "checkpoint/encode_values.h"
#include "checkpoint/tensor_source.h"
#include "checkpoint/test_files.h"

namespace swiftkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The golden file holds raw blocks as U8 and their values as gguf's or PyTorch's own code decodes them.
class DecodeGoldenTest : public testing::TestWithParam<DType> {};

TEST_P(DecodeGoldenTest, EqualsThePythonPackagesBitForBit) {
  const DType dtype = GetParam();
  auto source = OpenSafetensors(Golden("blocks.safetensors"));
  ASSERT_TRUE(source) << source.error().message;
  const std::string name(Name(dtype));
  const std::vector<float> expected = Values(**source, name + ".values");
  ASSERT_FALSE(expected.empty());
  const StoredTensor* raw = (*source)->Find(name);
  ASSERT_NE(raw, nullptr);
  const int64_t rows = BlockElements(dtype) > 1 ? 3 : 1;
  const int64_t columns = std::ssize(expected) / rows;
  const StoredTensor tensor{.name = name, .dtype = dtype, .shape = {rows, columns}, .data = raw->data};

  std::vector<float> values(expected.size());
  for (int64_t row = 0; row < rows; ++row) {  // one by one: also the offset of each row
    ASSERT_TRUE(DecodeRows(tensor, row, 1, values.data() + row * columns));
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(expected[i])) {
      EXPECT_TRUE(std::isnan(values[i])) << i;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected[i])) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, DecodeGoldenTest,
                         testing::Values(DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kQ8_0, DType::kQ4_0,
                                         DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K,
                                         DType::kQ6_K),
                         [](const auto& info) { return std::string(Name(info.param)); });

TEST(Float8Test, RoundsToTheNearestAndSaturates) {
  for (int code = 0; code < 256; ++code) {
    const auto bits = static_cast<uint8_t>(code);
    const float value = E4M3ToFloat(bits);
    if (std::isnan(value)) {
      EXPECT_EQ(FloatToE4M3(value) & 0x7f, 0x7f);
      continue;
    }
    EXPECT_EQ(FloatToE4M3(value), bits);
    if ((code & 0x7f) >= 0x7e) continue;
    const float next = E4M3ToFloat(static_cast<uint8_t>(code + 1));
    const float middle = (value + next) / 2;
    EXPECT_EQ(FloatToE4M3(middle), code % 2 == 0 ? code : code + 1) << value;
    EXPECT_EQ(FloatToE4M3(std::nextafter(middle, value)), code) << value;
    EXPECT_EQ(FloatToE4M3(std::nextafter(middle, next)), code + 1) << value;
  }
  EXPECT_EQ(E4M3ToFloat(FloatToE4M3(1e30f)), kMaxE4M3);
  EXPECT_EQ(E4M3ToFloat(FloatToE4M3(-std::numeric_limits<float>::infinity())), -kMaxE4M3);
}

TEST(EncodeValuesTest, GivesBackTheBitsThatWereRead) {
  std::vector<uint16_t> bits(65536);
  std::iota(bits.begin(), bits.end(), 0);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const StoredTensor tensor{.name = "w", .dtype = dtype, .shape = {65536}, .data = std::as_bytes(std::span(bits))};
    std::vector<float> values(bits.size());
    ASSERT_TRUE(DecodeRows(tensor, 0, 1, values.data()));
    std::vector<uint16_t> encoded(bits.size());
    const std::vector<std::byte> bytes = EncodeValues(values, dtype);
    ASSERT_EQ(bytes.size(), 2 * bits.size());
    std::memcpy(encoded.data(), bytes.data(), bytes.size());
    for (size_t i = 0; i < bits.size(); ++i) {
      ASSERT_TRUE(encoded[i] == bits[i] || std::isnan(values[i])) << Name(dtype) << " " << bits[i];
    }
  }
}

StoredTensor FloatTensor(const std::vector<float>& values, std::vector<int64_t> shape) {
  return {.name = "w", .dtype = DType::kF32, .shape = std::move(shape), .data = std::as_bytes(std::span(values))};
}

TEST(DecodeRowsTest, UndoesTheRowOrderOfLlamaCpp) {
  // Two heads of four rows, stored a0 b0 a1 b1.
  const std::vector<float> stored = {0, 2, 1, 3, 4, 6, 5, 7};
  std::vector<float> values(8);
  StoredTensor matrix = FloatTensor(stored, {8, 1});
  matrix.permuted_heads = 2;
  ASSERT_TRUE(DecodeRows(matrix, 0, 8, values.data()));
  EXPECT_THAT(values, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  ASSERT_TRUE(DecodeRows(matrix, 5, 2, values.data()));
  EXPECT_EQ(values[0], 5);
  EXPECT_EQ(values[1], 6);
  StoredTensor bias = FloatTensor(stored, {8});
  bias.permuted_heads = 2;
  ASSERT_TRUE(DecodeRows(bias, 0, 1, values.data()));
  EXPECT_THAT(values, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(DecodeRowsTest, AppliesScalesPerTensorPerRowAndPerGroup) {
  const std::vector<float> stored = {1, 2, 3, 4};
  const std::vector<float> scales = {10, 100, 2, 3};
  std::vector<float> values(4);
  StoredTensor tensor = FloatTensor(stored, {2, 2});
  const auto scale = [&](const std::vector<int64_t>& shape) {
    tensor.scale = std::make_shared<StoredTensor>(FloatTensor(scales, shape));
  };
  scale({1, 1});
  ASSERT_TRUE(DecodeRows(tensor, 0, 2, values.data()));
  EXPECT_THAT(values, ElementsAre(10, 20, 30, 40));
  scale({2, 1});
  ASSERT_TRUE(DecodeRows(tensor, 1, 1, values.data()));
  EXPECT_EQ(values[1], 400);
  scale({2, 2});
  ASSERT_TRUE(DecodeRows(tensor, 0, 2, values.data()));
  EXPECT_THAT(values, ElementsAre(10, 200, 6, 12));
}

TEST(DecodeRowsTest, RefusesRowsThatDoNotExistAndIntegers) {
  const std::vector<float> stored = {1, 2, 3, 4};
  std::vector<float> values(4);
  StoredTensor tensor = FloatTensor(stored, {2, 2});
  for (const auto& [begin, count] : std::vector<std::pair<int64_t, int64_t>>{{-1, 1}, {0, 3}, {3, 0}, {1, INT64_MAX}}) {
    EXPECT_THAT(MessageOf(DecodeRows(tensor, begin, count, values.data())), HasSubstr("has 2 rows"));
  }
  tensor.dtype = DType::kI32;
  EXPECT_THAT(MessageOf(DecodeRows(tensor, 0, 1, values.data())), HasSubstr("I32"));
}

}  // namespace
}  // namespace swiftkv
