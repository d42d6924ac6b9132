#include "checkpoint/compressed_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "checkpoint/test_files.h"

namespace swiftkv {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Written by the package compressed-tensors itself: for int8 and int4 a weight, and its values as the package
// decompresses them.
TEST(CompressedTensorsTest, ReadsWhatThePackageWrote) {
  const auto source = OpenSafetensors(Golden("compressed.safetensors"));
  ASSERT_TRUE(source) << source.error().message;
  for (const auto& [name, dtype, blocks] : {std::tuple{"int8.weight", DType::kI8, DType::kQ8_K},
                                            {"int4.weight", DType::kI4, DType::kQ4_K},
                                            {"int4_group_64.weight", DType::kI4, DType::kQ4_K}}) {
    const StoredTensor* tensor = (*source)->Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->dtype, dtype);
    EXPECT_EQ(tensor->shape, (std::vector<int64_t>{6, 128}));
    EXPECT_EQ(BlockRowsType(*tensor), blocks);
    const std::vector<float> expected = Values(**source, std::string(name) + ".values");
    EXPECT_EQ(Values(**source, name), expected);
    BlockRows rows;
    ASSERT_TRUE(DecodeBlockRows(*tensor, 2, 3, &rows));
    for (size_t i = 0; i < 3 * 128; ++i) {
      const float minimum = rows.minima.empty() ? 0 : rows.minima[i / 32];
      ASSERT_EQ(std::fma(static_cast<float>(rows.codes[i]), rows.scales[i / 32], minimum), expected[2 * 128 + i]);
    }
  }
}

class WrittenTest : public testing::TestWithParam<std::tuple<CompressedFormat, DType>> {};

// The distance of the numbers that `value` is rounded to.
float Step(float value, float scale, CompressedFormat format) {
  if (format != CompressedFormat::kFp8 || scale == 0) return scale;
  // Three bits behind the first, down to 2^-9.
  return scale * std::exp2(std::max(std::floor(std::log2(std::fabs(value) / scale)), -6.0f) - 3);
}

TEST_P(WrittenTest, IsReadBackWithinHalfAStep) {
  const auto [format, dtype] = GetParam();
  constexpr int64_t kRows = 2000;  // more than one piece
  constexpr int64_t kColumns = 96;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.1f);
  std::vector<float> values(kRows * kColumns);
  for (float& value : values) value = normal(random);
  std::fill_n(values.begin(), kColumns, 0.0f);
  const StoredTensor weight{
      .name = "a.weight", .dtype = DType::kF32, .shape = {kRows, kColumns}, .data = std::as_bytes(std::span(values))};

  const TemporaryFolder folder;
  std::vector<TensorToWrite> plan = CompressedTensors(weight.name, weight.shape, format, dtype);
  plan.push_back({"b", {2}});
  auto writer = SafetensorsWriter::Create(folder.path(), std::move(plan), {.dtype = dtype, .max_shard_bytes = 100'000});
  ASSERT_TRUE(writer) << writer.error().message;
  ASSERT_TRUE(WriteCompressed(weight, format, dtype, &*writer));
  ASSERT_TRUE(writer->Append(std::vector<float>{1, 2}));
  ASSERT_TRUE(writer->Finish());

  const auto source = OpenSafetensors(folder.path());
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT(Values(**source, "b"), ElementsAre(1, 2));
  const StoredTensor* read = (*source)->Find("a.weight");
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(read->shape, weight.shape);
  EXPECT_EQ(read->scale->dtype, dtype);
  const int64_t group = kColumns / read->scale->columns();
  EXPECT_EQ(group, format == CompressedFormat::kInt4 ? kInt4Group : kColumns);
  const std::vector<float> scales = Values(**source, "a.weight_scale");
  const std::vector<float> actual = Values(**source, "a.weight");
  double error = 0;
  double steps = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const float step = Step(values[i], scales[i / static_cast<size_t>(group)], format);
    // The largest of a group may be 8.5 steps, of scales that bfloat16 rounded by up to 2^-8.
    ASSERT_LE(std::fabs(actual[i] - values[i]), (format == CompressedFormat::kInt4 ? 1.54f : 0.76f) * step) << i;
    error += std::pow(actual[i] - values[i], 2);
    steps += step * step;
  }
  EXPECT_LT(std::sqrt(error / steps), 0.31);  // of uniform errors: 1 / sqrt(12) = 0.289
}

INSTANTIATE_TEST_SUITE_P(Formats, WrittenTest,
                         testing::Combine(testing::Values(CompressedFormat::kFp8, CompressedFormat::kInt8,
                                                          CompressedFormat::kInt4),
                                          testing::Values(DType::kBF16, DType::kF32)));

TEST(CompressedTensorsTest, Fp8HasTheLayoutOfThePublishedCheckpoints) {
  const std::vector<float> values = {448, -224, 0.5f, 1.0625f, -7, 3.5f, 0, 0.007f};
  const StoredTensor weight{
      .name = "a.weight", .dtype = DType::kF32, .shape = {2, 4}, .data = std::as_bytes(std::span(values))};
  const TemporaryFolder folder;
  auto writer = SafetensorsWriter::Create(
      folder.path(), CompressedTensors(weight.name, weight.shape, CompressedFormat::kFp8, DType::kF32),
      {.dtype = DType::kF16});
  ASSERT_TRUE(writer) << writer.error().message;
  ASSERT_TRUE(WriteCompressed(weight, CompressedFormat::kFp8, DType::kF32, &*writer));
  ASSERT_TRUE(writer->Finish());
  const auto source = OpenSafetensors(folder.path());
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ((*source)->Find("a.weight")->dtype, DType::kF8E4M3);
  EXPECT_EQ((*source)->Find("a.weight_scale")->shape, (std::vector<int64_t>{2, 1}));
  EXPECT_THAT(Values(**source, "a.weight_scale"), ElementsAre(1, 7.0f / 448));
  // 1.0625 lies in the middle between 1 and 1.125; 0.007 is 0.448 scales, between 0.4375 and 0.46875.
  const float seventh = 7.0f / 448;
  EXPECT_THAT(Values(**source, "a.weight"), ElementsAre(448, -224, 0.5f, 1, -7, 3.5f, 0, 0.4375f * seventh));
}

TEST(CompressedTensorsTest, RefusesToWriteWhatIsNoNumber) {
  std::vector<float> values(64, 1.0f);
  values[40] = std::numeric_limits<float>::quiet_NaN();
  const StoredTensor weight{
      .name = "a.weight", .dtype = DType::kF32, .shape = {2, 32}, .data = std::as_bytes(std::span(values))};
  const TemporaryFolder folder;
  auto writer = SafetensorsWriter::Create(
      folder.path(), CompressedTensors(weight.name, weight.shape, CompressedFormat::kInt4, DType::kBF16), {});
  ASSERT_TRUE(writer);
  EXPECT_THAT(MessageOf(WriteCompressed(weight, CompressedFormat::kInt4, DType::kBF16, &*writer)),
              HasSubstr("a.weight: NaN or infinite"));
}

// A file of `entries`, in this order: dtype, shape and bytes of each name.
struct Entry {
  std::string name, dtype, shape, data;
};
std::string MessageOf(const std::vector<Entry>& entries) {
  std::string header;
  std::string data;
  for (const Entry& entry : entries) {
    header += header.empty() ? "{" : ",";
    header += "\"" + entry.name + "\":{\"dtype\":\"" + entry.dtype + "\",\"shape\":" + entry.shape +
              ",\"data_offsets\":[" + std::to_string(data.size());
    data += entry.data;
    header += "," + std::to_string(data.size()) + "]}";
  }
  const TemporaryFolder folder;
  return MessageOf(OpenSafetensors(folder.Write("model.safetensors", SafetensorsBytes(header + "}", data))));
}

TEST(CompressedTensorsTest, RefusesFilesThatLie) {
  const Entry int8 = {"w.weight", "I8", "[2,8]", std::string(16, '\1')};
  const Entry scale = {"w.weight_scale", "F32", "[2,1]", std::string(8, '\0')};
  EXPECT_EQ(MessageOf({int8, scale}), "no error");
  EXPECT_THAT(MessageOf({int8}), HasSubstr("there is no w.weight_scale"));
  EXPECT_THAT(MessageOf({int8, {"w.weight_scale", "F32", "[3,1]", std::string(12, '\0')}}), HasSubstr("2 rows"));
  EXPECT_THAT(MessageOf({int8, {"w.weight_scale", "F32", "[2,2]", std::string(16, '\0')}}), HasSubstr("2 rows"));
  EXPECT_THAT(MessageOf({int8, {"w.weight_scale", "F32", "[0,0]", ""}}), HasSubstr("2 rows"));
  EXPECT_THAT(MessageOf({int8, {"w.weight_scale", "I64", "[2,1]", std::string(16, '\0')}}), HasSubstr("I64"));
  for (const char* companion : {"zero_point", "g_idx", "scale_inv"}) {
    EXPECT_THAT(MessageOf({int8, scale, {"w.weight_" + std::string(companion), "I8", "[1]", "1"}}),
                HasSubstr("not supported"));
  }

  const Entry packed = {"w.weight_packed", "I32", "[2,4]", std::string(32, '\1')};
  const Entry groups = {"w.weight_scale", "F32", "[2,1]", std::string(8, '\0')};
  const auto shape = [](int64_t rows, int64_t columns) {
    return Entry{"w.weight_shape", "I64", "[2]", Bytes(rows) + Bytes(columns)};
  };
  EXPECT_EQ(MessageOf({packed, groups, shape(2, 32)}), "no error");
  EXPECT_THAT(MessageOf({packed, groups}), HasSubstr("there is no w.weight_shape"));
  EXPECT_THAT(MessageOf({packed, shape(2, 32)}), HasSubstr("there is no w.weight_scale"));
  for (const Entry& other : {shape(2, 16), shape(4, 32), shape(2, 31), shape(2, -32), shape(2, INT64_MAX)}) {
    EXPECT_THAT(MessageOf({packed, groups, other}), HasSubstr("codes of 4 bits"));
  }
  EXPECT_THAT(MessageOf({packed, groups, {"w.weight_shape", "F32", "[2]", std::string(8, '\0')}}),
              HasSubstr("two whole numbers"));
  EXPECT_THAT(MessageOf({packed, groups, {"w.weight_shape", "I64", "[1]", std::string(8, '\0')}}),
              HasSubstr("two whole numbers"));
  EXPECT_THAT(MessageOf({packed, {"w.weight_scale", "F32", "[2,5]", std::string(40, '\0')}, shape(2, 32)}),
              HasSubstr("each group of their columns"));
  EXPECT_THAT(MessageOf({{"w.weight_packed", "F32", "[2,4]", std::string(32, '\0')}, groups, shape(2, 32)}),
              HasSubstr("codes of 4 bits"));
  EXPECT_THAT(MessageOf({packed, groups, shape(2, 32), {"w.weight", "F32", "[1]", "1234"}}), HasSubstr("occurs twice"));
  EXPECT_THAT(MessageOf({{"w.weight_packed", "I32", "[0,2305843009213693951]", ""}, groups, shape(0, -8)}),
              HasSubstr("codes of 4 bits"));
}

TEST(CompressedTensorsTest, ScalesThatAreNoNumbersAreRefusedWithTheRow) {
  std::vector<uint8_t> codes(64, 1);
  std::vector<float> scales = {1, std::numeric_limits<float>::quiet_NaN()};
  StoredTensor tensor{.name = "w", .dtype = DType::kI8, .shape = {2, 32}, .data = std::as_bytes(std::span(codes))};
  tensor.scale = std::make_shared<StoredTensor>(
      StoredTensor{.name = "w_scale", .dtype = DType::kF32, .shape = {2, 1}, .data = std::as_bytes(std::span(scales))});
  BlockRows rows;
  EXPECT_TRUE(DecodeBlockRows(tensor, 0, 1, &rows));
  EXPECT_THAT(MessageOf(DecodeBlockRows(tensor, 1, 1, &rows)), HasSubstr("w: NaN or infinite"));
}

}  // namespace
}  // namespace swiftkv
