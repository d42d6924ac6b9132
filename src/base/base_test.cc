#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <limits>
#include <numeric>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/bfloat16.h"
#include "base/dtype.h"
#include "base/file.h"
#include "base/parallel.h"

namespace swiftkv {
namespace {

std::string TestPath(const std::string& name) {
  const std::string folder = testing::TempDir() + "swiftkv_base_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  return folder + "/" + name;
}

TEST(BFloat16Test, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(ToBFloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(ToBFloat16(1.00390625f).bits, 0x3f80);  // halfway, even below
  EXPECT_EQ(ToBFloat16(1.01171875f).bits, 0x3f82);  // halfway, even above
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(ToFloat(ToBFloat16(-std::numeric_limits<float>::infinity())), -std::numeric_limits<float>::infinity());
}

TEST(DTypeTest, BytesAreCheckedForOverflowAndWholeBlocks) {
  EXPECT_EQ(BytesFor(DType::kQ4_K, 512), 288);
  EXPECT_EQ(BytesFor(DType::kQ4_K, 500), std::nullopt);
  EXPECT_EQ(BytesFor(DType::kF32, int64_t{1} << 62), std::nullopt);
  EXPECT_EQ(BytesFor(DType::kF32, -1), std::nullopt);
}

TEST(AlignedBufferTest, HugePagesKeepTheContents) {
  std::vector<AlignedBuffer> buffers;  // neighbours that share huge pages
  for (int b = 0; b < 8; ++b) {
    auto buffer = AlignedBuffer::Allocate(700 << 10, "test");
    ASSERT_TRUE(buffer.has_value());
    std::fill_n(buffer->as<char>(), buffer->bytes(), static_cast<char>('a' + b));
    buffer->UseHugePages();
    buffers.push_back(std::move(*buffer));
  }
  buffers.erase(buffers.begin() + 3);
  for (const AlignedBuffer& buffer : buffers) {
    const char* bytes = buffer.as<char>();
    EXPECT_EQ(std::count(bytes, bytes + buffer.bytes(), bytes[0]), buffer.bytes());
  }
  AlignedBuffer().UseHugePages();
}

TEST(AlignedBufferTest, IsZeroedAlignedAndRefusesTheImpossible) {
  auto buffer = AlignedBuffer::Allocate(1000, "test");
  ASSERT_TRUE(buffer.has_value());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
  EXPECT_EQ(buffer->as<int>()[0], 0);
  EXPECT_FALSE(AlignedBuffer::Allocate(int64_t{1} << 60, "test").has_value());
  EXPECT_FALSE(AlignedBuffer::Allocate(-1, "test").has_value());
}

TEST(AtomicFileTest, LeavesTheOldFileUntilCommit) {
  const std::string path = TestPath("atomic");
  ASSERT_TRUE(WriteFile(path, "old").has_value());
  {
    auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.has_value());
    ASSERT_TRUE(file->Append("new").has_value());
    EXPECT_EQ(*ReadFile(path, 100), "old");
  }
  EXPECT_EQ(*ReadFile(path, 100), "old");
  ASSERT_TRUE(WriteFile(path, "new").has_value());
  EXPECT_EQ(*ReadFile(path, 100), "new");
  EXPECT_FALSE(ReadFile(path, 2).has_value());
}

TEST(AtomicFileTest, AFullDiskIsASentence) {
  auto file = AtomicFile::Create("/dev/full.d/x");
  EXPECT_FALSE(file.has_value());
}

TEST(MappedFileTest, RefusesFoldersFifosAndMissingFiles) {
  EXPECT_EQ(MappedFile::Open("/nonexistent").error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(MappedFile::Open("/tmp").has_value());
  const std::string fifo = TestPath("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_FALSE(MappedFile::Open(fifo).has_value());
  ASSERT_TRUE(WriteFile(TestPath("empty"), "").has_value());
  EXPECT_TRUE((*MappedFile::Open(TestPath("empty")))->bytes().empty());
}

TEST(MappedFileTest, AFileThatIsCutShortReadsAsZerosAndSaysSo) {
  const std::string path = TestPath("cut");
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  ASSERT_TRUE(WriteFile(path, std::string(8 * page + 1, 'x')));
  const auto file = *MappedFile::Open(path);
  const auto other = *MappedFile::Open(path);
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(2 * page)), 0);
  EXPECT_EQ(file->bytes()[2 * page - 1], std::byte{'x'});
  EXPECT_TRUE(file->Check());
  std::vector<int64_t> zeros(4);  // from several threads at once
  const int before = Threads();
  SetThreads(4);
  ParallelFor(4, [&](int64_t task) {
    const auto part = file->bytes().subspan(2 * page);
    zeros[static_cast<size_t>(task)] = std::count(part.begin(), part.end(), std::byte{0});
  });
  SetThreads(before);
  EXPECT_THAT(zeros, testing::Each(6 * static_cast<int64_t>(page) + 1));
  EXPECT_EQ(file->bytes()[2 * page - 1], std::byte{'x'});
  const Status status = file->Check();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_THAT(status.error().message, testing::StartsWith(path + ": cannot be read to its end of "));
  EXPECT_TRUE(other->Check()) << "nothing was read there";
}

TEST(MappedFileTest, ABusErrorOfAnotherKindEndsTheProcess) {
  ASSERT_TRUE(WriteFile(TestPath("other"), "x"));
  const auto file = MappedFile::Open(TestPath("other"));
  EXPECT_DEATH(kill(getpid(), SIGBUS), "");
}

TEST(ParallelForTest, VisitsEveryIndexOnceAtAnyThreadCount) {
  const int before = Threads();
  for (const int threads : {1, 2, 5}) {
    SetThreads(threads);
    std::vector<int> seen(1000);
    ParallelFor(1000, [&](int64_t i) { seen[static_cast<size_t>(i)]++; });
    EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), 0), 1000);
  }
  SetThreads(before);
}

}  // namespace
}  // namespace swiftkv
