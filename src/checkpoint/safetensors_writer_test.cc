#include "checkpoint/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/fault_injector.h"
#include "checkpoint/test_files.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

std::vector<std::string> FilesIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

TEST(SafetensorsWriterTest, WritesOneFile) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/new/model";
  auto writer = SafetensorsWriter::Create(path, {{"a", {2, 2}}, {"b", {3}}, {"s", {}}}, {.dtype = DType::kF32});
  ASSERT_TRUE(writer) << writer.error().message;
  // Pieces need not end where tensors end.
  ASSERT_TRUE(writer->Append(std::vector<float>{1, 2, 3}));
  EXPECT_THAT(FilesIn(path), ElementsAre(HasSubstr(".tmp")));
  ASSERT_TRUE(writer->Append(std::vector<float>{4, 5, 6, 7, 8}));
  ASSERT_TRUE(writer->Finish());
  EXPECT_THAT(FilesIn(path), ElementsAre("model.safetensors"));
  auto source = OpenSafetensors(path);
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT(Values(**source, "a"), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Values(**source, "b"), ElementsAre(5, 6, 7));
  EXPECT_THAT(Values(**source, "s"), ElementsAre(8));
  EXPECT_EQ((*source)->Find("a")->shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*source)->Find("a")->data.data()) % 8, 0u);
}

TEST(SafetensorsWriterTest, RoundsToBFloat16) {
  TemporaryFolder folder;
  auto writer = SafetensorsWriter::Create(folder.path(), {{"a", {50000}}}, {});
  ASSERT_TRUE(writer);
  std::vector<float> values(50000, 1.0f);
  values[49999] = 1.01171875f;  // halfway, to even
  ASSERT_TRUE(writer->Append(values));
  ASSERT_TRUE(writer->Finish());
  auto source = OpenSafetensors(folder.path());
  ASSERT_TRUE(source);
  EXPECT_EQ((*source)->Find("a")->dtype, DType::kBF16);
  const std::vector<float> read = Values(**source, "a");
  EXPECT_EQ(read[0], 1.0f);
  EXPECT_EQ(read[49999], 1.015625f);
}

TEST(SafetensorsWriterTest, CutsShardsWhereTransformersDoes) {
  TemporaryFolder folder;
  // Limit 8 bytes: {a} alone exceeds it, {b, c} fill it, {d}.
  auto writer = SafetensorsWriter::Create(folder.path(), {{"a", {3}}, {"b", {1}}, {"c", {1}}, {"d", {1}}, {"e", {0}}},
                                          {.dtype = DType::kF32, .max_shard_bytes = 8});
  ASSERT_TRUE(writer);
  EXPECT_EQ(writer->total_bytes(), 24);
  ASSERT_TRUE(writer->Append(std::vector<float>{1, 2, 3, 4, 5, 6}));
  ASSERT_TRUE(writer->Finish());
  EXPECT_THAT(FilesIn(folder.path()),
              UnorderedElementsAre("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                   "model-00003-of-00003.safetensors", "model.safetensors.index.json"));
  const auto text = ReadFile(folder.path() + "/model.safetensors.index.json", 1000);
  const auto index = nlohmann::json::parse(*text);
  EXPECT_EQ(index["metadata"]["total_size"], 24);
  EXPECT_EQ(index["weight_map"]["c"], "model-00002-of-00003.safetensors");
  auto source = OpenSafetensors(folder.path());
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT((*source)->names(), ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_THAT(Values(**source, "d"), ElementsAre(6));
}

TEST(SafetensorsWriterTest, LeavesNothingBehindWithoutFinish) {
  TemporaryFolder folder;
  {
    auto writer = SafetensorsWriter::Create(folder.path(), {{"a", {3}}}, {});
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->Append(std::vector<float>{1, 2}));
    EXPECT_THAT(MessageOf(writer->Finish()), HasSubstr("values are missing"));
    EXPECT_THAT(MessageOf(writer->Append(std::vector<float>{3, 4})), HasSubstr("more values"));
  }
  EXPECT_THAT(FilesIn(folder.path()), IsEmpty());
}

TEST(SafetensorsWriterTest, AFailingDiskIsASentenceAndLeavesNothing) {
  TemporaryFolder folder;
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  auto* const old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  Status status;
  {
    auto writer = SafetensorsWriter::Create(folder.path(), {{"a", {10}}, {"b", {10000}}},
                                            {.dtype = DType::kF32, .max_shard_bytes = 40});
    status = writer ? writer->Append(std::vector<float>(10010)) : Status(tl::unexpected(writer.error()));
  }
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(MessageOf(status), HasSubstr("cannot write"));
  EXPECT_THAT(FilesIn(folder.path()), IsEmpty());
}

TEST(SafetensorsWriterTest, WhicheverCallFailsNothingIsLeft) {
  for (int64_t call = 0;; ++call) {
    SCOPED_TRACE(call);
    TemporaryFolder folder;
    FaultInjector faults({.failing_call = call});
    Status status;
    {
      auto writer = SafetensorsWriter::Create(folder.path(), {{"a", {10}}, {"b", {10}}, {"c", {10}}},
                                              {.dtype = DType::kF32, .max_shard_bytes = 80});
      status = writer ? writer->Append(std::vector<float>(30)) : Status(tl::unexpected(writer.error()));
      if (status) status = writer->Finish();
    }
    if (!faults.failed()) {
      EXPECT_TRUE(status);
      EXPECT_EQ(FilesIn(folder.path()).size(), 3u);
      break;
    }
    EXPECT_FALSE(status);
    EXPECT_THAT(FilesIn(folder.path()), IsEmpty());
  }
}

TEST(SafetensorsWriterTest, RefusesWhatItCannotWrite) {
  TemporaryFolder folder;
  const auto message = [&](std::vector<TensorToWrite> tensors, DType dtype = DType::kF32) {
    return MessageOf(SafetensorsWriter::Create(folder.path(), std::move(tensors), {.dtype = dtype}));
  };
  EXPECT_THAT(message({{"a", {1}}, {"a", {1}}}), HasSubstr("occurs twice"));
  EXPECT_THAT(message({{"a", {int64_t{1} << 62}}}), HasSubstr("impossible shape"));
  EXPECT_THAT(message({{"a", {int64_t{1} << 60}}}), HasSubstr("the disk has"));
  EXPECT_THAT(message({{"a", {32}}}, DType::kQ8_0), HasSubstr("BF16 or F32"));
  folder.Write("model.safetensors", "");
  EXPECT_THAT(message({{"a", {1}}}), HasSubstr("holds a model already"));
  EXPECT_THAT(MessageOf(SafetensorsWriter::Create(folder.path() + "/model.safetensors", {}, {})),
              HasSubstr("cannot create the folder"));
}

}  // namespace
}  // namespace swiftkv
