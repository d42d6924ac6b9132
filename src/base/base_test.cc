#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <limits>
#include <numeric>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/bfloat16.h"
#include "base/distinct_names.h"
#include "base/dtype.h"
#include "base/file.h"
#include "base/parallel.h"
#include "base/printable.h"

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

TEST(AtomicFileTest, ALinkStaysOne) {
  namespace fs = std::filesystem;
  fs::create_directories(TestPath("elsewhere"));
  const std::string target = TestPath("elsewhere/target");
  ASSERT_TRUE(WriteFile(target, "old"));
  fs::create_symlink("elsewhere/target", TestPath("link"));
  fs::create_symlink("link", TestPath("second_link"));
  ASSERT_TRUE(WriteFile(TestPath("second_link"), "new"));
  EXPECT_TRUE(fs::is_symlink(TestPath("second_link")));
  EXPECT_TRUE(fs::is_symlink(TestPath("link")));
  EXPECT_FALSE(fs::is_symlink(target));
  EXPECT_EQ(*ReadFile(target, 100), "new");
  fs::remove(target);
  ASSERT_TRUE(WriteFile(TestPath("link"), "again"));
  EXPECT_EQ(*ReadFile(target, 100), "again");
  fs::create_symlink("circle", TestPath("circle"));
  EXPECT_FALSE(WriteFile(TestPath("circle"), "x"));
  EXPECT_EQ(WriteFile(TestPath("elsewhere"), "x").error().code, ErrorCode::kInvalidInput);
}

TEST(AtomicFileTest, DevicesAndPipesAreWrittenTo) {
  namespace fs = std::filesystem;
  const std::string fifo = TestPath("atomic_fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const int reader = open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  ASSERT_TRUE(WriteFile(fifo, "text"));
  EXPECT_TRUE(fs::is_fifo(fifo));
  char text[8] = {};
  EXPECT_EQ(read(reader, text, sizeof text), 4);
  EXPECT_STREQ(text, "text");
  close(reader);
  // Through a link, so that no device is at risk where the test fails.
  fs::create_symlink("/dev/null", TestPath("null"));
  ASSERT_TRUE(WriteFile(TestPath("null"), "text"));
  EXPECT_TRUE(fs::is_character_file(TestPath("null")));
  EXPECT_TRUE(fs::is_symlink(TestPath("null")));
  // An open file that is redirected to, such as /dev/stdout: behind what it holds.
  const std::string redirected = TestPath("redirected");
  ASSERT_TRUE(WriteFile(redirected, "before\n"));
  const int fd = open(redirected.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_TRUE(WriteFile("/proc/self/fd/" + std::to_string(fd), "after\n"));
  close(fd);
  EXPECT_EQ(*ReadFile(redirected, 100), "before\nafter\n");
}

TEST(PathTest, NamesHaveTheFoldersThatTellThemApart) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(DistinctNames({"a/t.txt", "b/t.txt", "b/u.txt"}), Names({"a/t.txt", "b/t.txt", "u.txt"}));
  EXPECT_EQ(DistinctNames({"x/a/t.txt", "/y/a/t.txt", "t.txt"}), Names({"x/a/t.txt", "y/a/t.txt", "t.txt"}));
  EXPECT_EQ(DistinctNames({"a/t.txt", "a//./t.txt"}), Names({"t.txt", "t.txt"}));  // one file
  EXPECT_EQ(DistinctNames({"/t.txt", "t.txt"}), Names({"t.txt", "t.txt"}));        // no folder tells them apart
  EXPECT_EQ(DistinctNames({}), Names());
}

TEST(PrintableTest, AMessageKeepsItsLettersAndLosesWhatATerminalActsOn) {
  EXPECT_EQ(WithoutControls("wörter \t€\n"), "wörter \t€\n");
  EXPECT_EQ(WithoutControls("\x1b[31mred\x7f\r"), "?[31mred??");
  EXPECT_EQ(WithoutControls("\xc2\x9b[2J\xc2\xa0"), "?[2J\xc2\xa0");
  EXPECT_EQ(WithoutControls("ends with \xc2"), "ends with \xc2");
  EXPECT_EQ(LogValue("the model \"a\\b\"\nétc"), "\"the model \\\"a\\\\b\\\" étc\"");
}

TEST(PathTest, WithoutTrailingSlashHasALastPart) {
  EXPECT_EQ(WithoutTrailingSlash("models/out"), "models/out");
  EXPECT_EQ(WithoutTrailingSlash("models//out//"), "models/out");
  EXPECT_EQ(WithoutTrailingSlash("models/../out/."), "out");
  EXPECT_EQ(WithoutTrailingSlash("/"), "/");
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

// Numbers of threads for the test's time.
class WithThreads {
 public:
  explicit WithThreads(int threads) : before_(Threads()) { SetThreads(threads); }
  ~WithThreads() { SetThreads(before_); }

 private:
  int before_;
};

int64_t SumInParallel(int64_t count) {
  std::atomic<int64_t> sum = 0;
  ParallelFor(count, [&](int64_t i) { sum += i; });
  return sum;
}

TEST(ParallelForTest, ManyShortJobsInARow) {
  const WithThreads threads(4);
  for (int64_t job = 0; job < 20'000; ++job) ASSERT_EQ(SumInParallel(job % 7), (job % 7) * (job % 7 - 1) / 2);
}

TEST(ParallelForTest, WorkersThatFellAsleepComeBack) {
  const WithThreads threads(3);
  for (int pause = 0; pause < 20; ++pause) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<int> together = 0;
    // Ends only if three threads are in their bodies at the same time.
    ParallelFor(3, [&](int64_t) {
      ++together;
      while (together < 3) std::this_thread::yield();
    });
  }
}

TEST(ParallelForTest, NestedCallsAreDoneByTheThreadThatMakesThem) {
  const WithThreads threads(4);
  std::vector<int64_t> sums(50);
  std::atomic<int> elsewhere = 0;
  ParallelFor(50, [&](int64_t i) {
    const auto self = std::this_thread::get_id();
    ParallelFor(i, [&](int64_t j) {
      elsewhere += self != std::this_thread::get_id();
      sums[static_cast<size_t>(i)] += j;
    });
  });
  EXPECT_EQ(elsewhere, 0);
  for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(sums[static_cast<size_t>(i)], i * (i - 1) / 2);
}

TEST(ParallelForTest, CallsFromSeveralThreads) {
  const WithThreads threads(3);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([] {
      for (int job = 0; job < 500; ++job) EXPECT_EQ(SumInParallel(100), 4950);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(ParallelForTest, WorksInAChildProcess) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  GTEST_SKIP() << "the thread sanitizer does not let a child process of several threads start more";
#endif
#endif
  const WithThreads threads(3);
  EXPECT_EQ(SumInParallel(100), 4950);
  const pid_t child = fork();
  if (child == 0) _exit(SumInParallel(100) == 4950 ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

volatile pid_t g_signalled = 0;

TEST(ParallelForTest, WorkersLeaveSignalsToTheOthers) {
  const WithThreads threads(4);
  std::signal(SIGUSR1, [](int) { g_signalled = static_cast<pid_t>(syscall(SYS_gettid)); });
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(SumInParallel(100), 4950);
    g_signalled = 0;
    kill(getpid(), SIGUSR1);
    while (g_signalled == 0) std::this_thread::yield();
    EXPECT_EQ(g_signalled, getpid()) << "the first thread";
  }
  std::signal(SIGUSR1, SIG_DFL);
}

}  // namespace
}  // namespace swiftkv
