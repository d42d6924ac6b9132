// Writing files and folders while system calls fail, are cut short or interrupted, and while the program dies.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>

#include "base/durable_folder.h"
#include "base/fault_injector.h"
#include "base/file.h"

namespace swiftkv {
namespace {

namespace fs = std::filesystem;

class FileFaultsTest : public testing::Test {
 protected:
  void SetUp() override {
    // In memory where the system has such a place: hundreds of syncs would wait for a disk that others use.
    const std::string parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : testing::TempDir();
    std::string pattern = fs::canonical(parent).string() + "/swiftkv_faults_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.insert(entry.path().filename());
    return names;
  }

  // Lets every call of `work` fail in each way; `check` sees what is left, and whether `work` said that it succeeded.
  void FailInTurn(const std::function<void()>& prepare, const std::function<Status()>& work,
                  const std::function<void(bool succeeded, const Faults& faults)>& check,
                  bool no_exchange = false) const {
    for (const Faults::Then then : {Faults::kGoOn, Faults::kKilled, Faults::kPowerLost}) {
      for (int64_t call = 0;; ++call) {
        SCOPED_TRACE(fmt::format("call {} fails, then {}", call, static_cast<int>(then)));
        const Faults faults{
            .failing_call = call, .error = call % 2 == 0 ? ENOSPC : EIO, .then = then, .no_exchange = no_exchange};
        prepare();
        FaultInjector injector(faults);
        const Status status = work();
        file_calls::Unlink(Path("nothing").c_str());  // so that the last death comes when all is done
        file_calls::SetObserver(nullptr);
        check(status.has_value(), faults);
        ASSERT_TRUE(injector.failed() || status) << status.error().message;
        if (!injector.failed()) break;
      }
    }
  }

  std::string folder_;
};

TEST_F(FileFaultsTest, AnAtomicFileIsOldOrNewWhateverFails) {
  const std::string path = Path("file");
  FailInTurn([&] { ASSERT_TRUE(WriteFile(path, "old")); }, [&] { return WriteFile(path, "new and longer"); },
             [&](bool succeeded, const Faults& faults) {
               const std::string text = *ReadFile(path, 100);
               EXPECT_TRUE(text == "new and longer" || (!succeeded && text == "old")) << text;
               // A call that fails leaves nothing behind, unless it is the clean-up itself; only a death does.
               if (faults.then == Faults::kGoOn) {
                 EXPECT_EQ(Names(), std::set<std::string>{"file"});
               }
             });
}

TEST_F(FileFaultsTest, AnErrorIsASentence) {
  ASSERT_TRUE(WriteFile(Path("file"), "old"));
  FaultInjector faults({.failing_call = 1, .error = ENOSPC});
  EXPECT_EQ(WriteFile(Path("file"), "new").error().message, Path("file") + ": the disk is full");
}

TEST_F(FileFaultsTest, ShortAndInterruptedWritesAreWholeInTheEnd) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += std::to_string(i);
  FaultInjector faults({.max_write = 7, .interrupt = true});
  ASSERT_TRUE(WriteFile(Path("file"), text));
  EXPECT_GT(faults.calls(), static_cast<int64_t>(text.size()) / 7);
  EXPECT_EQ(*ReadFile(Path("file"), 10000), text);
  Result<AppendFile> file = AppendFile::Open(Path("file"));
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->Append("a line\n"));
  EXPECT_EQ(*ReadFile(Path("file"), 10000), text + "a line\n");
}

TEST_F(FileFaultsTest, AnAtomicFolderIsWholeOrAbsent) {
  const std::string path = Path("folder");
  const auto work = [&]() -> Status {
    SWIFTKV_ASSIGN_OR_RETURN(AtomicFolder folder, AtomicFolder::Create(path));
    SWIFTKV_RETURN_IF_ERROR(WriteFile(folder.path() + "/a", "first"));
    SWIFTKV_RETURN_IF_ERROR(WriteFile(folder.path() + "/b", "second"));
    return folder.Commit();
  };
  const auto prepare = [&] {
    for (const std::string& name : Names()) ASSERT_TRUE(RemoveFolder(Path(name)));
  };
  FailInTurn(prepare, work, [&](bool succeeded, const Faults& faults) {
    EXPECT_TRUE(fs::exists(path) || !succeeded);
    if (fs::exists(path)) {
      EXPECT_EQ(*ReadFile(path + "/a", 100), "first");
      EXPECT_EQ(*ReadFile(path + "/b", 100), "second");
    }
    for (const std::string& name : Names()) {
      EXPECT_TRUE(name == "folder" || (faults.then != Faults::kGoOn && name.starts_with("folder.tmp-"))) << name;
    }
  });
}

TEST_F(FileFaultsTest, AFolderIsReplacedByAWholeOneOrNotAtAll) {
  const std::string path = Path("folder");
  const auto prepare = [&] {
    for (const std::string& name : Names()) ASSERT_TRUE(RemoveAll(Path(name)));
    ASSERT_TRUE(MakeFolders(path + "/inner"));
    ASSERT_TRUE(WriteFile(path + "/a", "old"));
    ASSERT_TRUE(WriteFile(path + "/inner/b", "old"));
  };
  const auto work = [&]() -> Status {
    SWIFTKV_ASSIGN_OR_RETURN(AtomicFolder folder, AtomicFolder::Create(path));
    SWIFTKV_RETURN_IF_ERROR(WriteFile(folder.path() + "/a", "new"));
    return folder.Replace();
  };
  for (const bool no_exchange : {false, true}) {
    FailInTurn(
        prepare, work,
        [&](bool succeeded, const Faults& faults) {
          const bool dies = faults.then != Faults::kGoOn;
          if (no_exchange && dies && !fs::exists(path)) {
            // Between the two renames both are there under other names.
            EXPECT_EQ(*ReadFile(fmt::format("{}.old-{}/inner/b", path, getpid()), 100), "old");
            EXPECT_EQ(*ReadFile(fmt::format("{}.tmp-{}/a", path, getpid()), 100), "new");
            return;
          }
          const std::string text = *ReadFile(path + "/a", 100);
          EXPECT_TRUE(text == "new" || (!succeeded && text == "old")) << text;
          EXPECT_EQ(fs::exists(path + "/inner/b"), text == "old");
          if (!dies && !succeeded) {
            EXPECT_EQ(text, "old");
            EXPECT_EQ(Names(), std::set<std::string>{"folder"});
          }
        },
        no_exchange);
  }
}

TEST_F(FileFaultsTest, AFolderThatNothingHasToMakeWayForIsPutInPlace) {
  AtomicFolder folder = *AtomicFolder::Create(Path("folder"));
  ASSERT_TRUE(WriteFile(folder.path() + "/a", "new"));
  ASSERT_TRUE(folder.Replace());
  EXPECT_EQ(*ReadFile(Path("folder/a"), 100), "new");
  EXPECT_EQ(Names(), std::set<std::string>{"folder"});
}

TEST_F(FileFaultsTest, AnAppendedLineIsWholeOrAbsent) {
  const std::string path = Path("log");
  const auto work = [&]() -> Status {
    SWIFTKV_ASSIGN_OR_RETURN(AppendFile file, AppendFile::Open(path));
    SWIFTKV_RETURN_IF_ERROR(file.Append("second\n"));
    SWIFTKV_RETURN_IF_ERROR(file.Sync());
    return file.Append("third\n");
  };
  FailInTurn([&] { ASSERT_TRUE(WriteFile(path, "first\n")); }, work,
             [&](bool succeeded, const Faults& faults) {
               const std::string text = *ReadFile(path, 100), all = "first\nsecond\nthird\n";
               if (faults.then == Faults::kGoOn) {
                 EXPECT_TRUE(text == "first\n" || text == "first\nsecond\n" || text == all) << text;
                 EXPECT_EQ(text == all, succeeded);
               } else {
                 EXPECT_TRUE(all.starts_with(text)) << text;  // torn at its end at most
                 EXPECT_TRUE(text.starts_with("first\nsecond\n") || !succeeded) << text;
               }
             });
}

TEST_F(FileFaultsTest, AFullDiskWhileAppendingTakesTheLineBack) {
  Result<AppendFile> file = AppendFile::Open(Path("log"));
  ASSERT_TRUE(file && file->Append("first\n"));
  {
    FaultInjector faults({.failing_call = 2, .error = ENOSPC, .max_write = 3});
    EXPECT_EQ(file->Append("a longer line\n").error().message, Path("log") + ": the disk is full");
  }
  EXPECT_EQ(*ReadFile(Path("log"), 100), "first\n");
  ASSERT_TRUE(file->Append("second\n"));
  EXPECT_EQ(*ReadFile(Path("log"), 100), "first\nsecond\n");
}

TEST_F(FileFaultsTest, FoldersAreMadeWithThoseAboveAndRemovedWithTheirFiles) {
  ASSERT_TRUE(MakeFolders(Path("a/b/c/")));
  ASSERT_TRUE(MakeFolders(Path("a/b/c")));
  ASSERT_TRUE(WriteFile(Path("a/b/c/file"), "x"));
  EXPECT_FALSE(MakeFolders(Path("a/b/c/file/d")));
  EXPECT_FALSE(RemoveFolder(Path("a/b")));  // holds a folder
  fs::create_directory_symlink(Path("a/b/c"), Path("link"));
  EXPECT_FALSE(RemoveFolder(Path("link")));
  ASSERT_TRUE(RemoveFolder(Path("a/b/c")));
  EXPECT_FALSE(fs::exists(Path("a/b/c")));
  EXPECT_TRUE(RemoveFolder(Path("a/b/c")));
  ASSERT_TRUE(WriteFile(Path("a/b/file"), "x"));
  fs::create_directory_symlink(folder_, Path("a/b/link"));
  ASSERT_TRUE(RemoveAll(Path("a")));
  EXPECT_FALSE(fs::exists(Path("a")));
  EXPECT_TRUE(RemoveAll(Path("a")));
  EXPECT_TRUE(fs::exists(folder_));
  EXPECT_FALSE(MakeFolders(Path(std::string(100000, 'x'))));
}

TEST_F(FileFaultsTest, ALossOfPowerTakesBackWhatWasNotSynced) {
  // The injector itself: a rename without the folder's sync, and data without the file's.
  ASSERT_TRUE(WriteFile(Path("file"), "old"));
  {
    FaultInjector faults({.failing_call = 2, .then = Faults::kPowerLost});
    const int fd = file_calls::Open(Path("new").c_str(), O_WRONLY | O_CREAT, 0666);
    EXPECT_EQ(file_calls::Write(fd, "new", 3), 3);
    EXPECT_EQ(file_calls::Rename(Path("new").c_str(), Path("file").c_str()), -1);
    close(fd);
  }
  EXPECT_EQ(*ReadFile(Path("new"), 100), "");
  EXPECT_EQ(*ReadFile(Path("file"), 100), "old");
  {
    FaultInjector faults({.failing_call = 1, .then = Faults::kPowerLost});
    EXPECT_EQ(file_calls::Rename(Path("new").c_str(), Path("file").c_str()), 0);
    EXPECT_EQ(file_calls::Unlink(Path("file").c_str()), -1);
  }
  EXPECT_EQ(*ReadFile(Path("file"), 100), "old");
  {
    FaultInjector faults({.failing_call = 1, .then = Faults::kPowerLost});
    EXPECT_EQ(file_calls::Exchange(Path("new").c_str(), Path("file").c_str()), 0);
    EXPECT_EQ(file_calls::Unlink(Path("file").c_str()), -1);
  }
  EXPECT_EQ(*ReadFile(Path("file"), 100), "old");
  EXPECT_EQ(Names(), (std::set<std::string>{"file", "new"}));
}

}  // namespace
}  // namespace swiftkv
