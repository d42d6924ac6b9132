// Files: reading whole, mapping, and writing so that a crash, a full disk or a kill leaves the old file or the new one.
// (Folders of several files: base/durable_folder.h.)
#ifndef SWIFTKV_BASE_FILE_H_
#define SWIFTKV_BASE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/mapping_guard.h"
#include "base/status.h"

namespace swiftkv {

// A file mapped read-only. The size is taken once, at Open; the mapping stays valid when the file is renamed, removed
// or cut short. What another process writes into the file meanwhile may show: check every size that is read.
class MappedFile {
 public:
  // Errors: kNotFound, kInvalidInput (a folder, a device), kIo.
  static Result<std::shared_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Error kIo if bytes could not be read since Open, because the file was cut short or the disk failed: they read as
  // zeros. Ask after reading.
  Status Check() const;
  // Tells the kernel that these bytes are not needed soon, so that they stop counting as resident.
  void Release(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::optional<MappingGuard> guard_;  // absent: the file is empty
};

// "out" of "models/../out/": a name without the slash at its end, so that it has a last part (but for "/").
std::filesystem::path WithoutTrailingSlash(const std::string& path);

// The whole file as text. Error kInvalidInput if it is larger than `max_bytes`.
Result<std::string> ReadFile(const std::string& path, int64_t max_bytes);

// Writes `path` through a temporary neighbour: Append..., then Commit (fsync, rename, fsync of the folder).
// Without Commit the destructor removes the temporary file and `path` is untouched.
// A link stays one: the file that it leads to is replaced. A device or a pipe (/dev/null, /dev/stdout, a FIFO) gets the
// bytes as they come.
class AtomicFile {
 public:
  // Errors: kInvalidInput (a folder), kIo.
  static Result<AtomicFile> Create(const std::string& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) = delete;
  ~AtomicFile();
  Status Append(std::span<const std::byte> bytes);
  Status Append(std::string_view text);
  Status Commit();

 private:
  AtomicFile() = default;
  bool IsDirect() const { return temporary_.empty(); }
  std::string path_;       // as given, for messages
  std::string target_;     // without links
  std::string temporary_;  // empty: the bytes go to `path_` itself
  int fd_ = -1;
};

// AtomicFile in one call.
Status WriteFile(const std::string& path, std::string_view text);

// Makes way for a new file: renames `path` to a name beside it that says so ("out/points.previous.jsonl"), in place of
// a file of that name, and returns it. Error kIo.
Result<std::string> SetAside(const std::string& path);

// A file that grows, line by line. What was appended survives the end of this process at once, a loss of power from
// Sync on.
class AppendFile {
 public:
  // Makes the file where there is none. Errors: kInvalidInput (a folder, a device), kIo.
  static Result<AppendFile> Open(const std::string& path);
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) = delete;
  ~AppendFile();
  // After an error (a full disk) the file is as it was before: no part of `text` stays.
  Status Append(std::string_view text);
  Status Sync();

 private:
  AppendFile() = default;
  std::string path_;
  int64_t size_ = 0;
  int fd_ = -1;
};

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_FILE_H_
