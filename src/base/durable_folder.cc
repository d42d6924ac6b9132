#include "base/durable_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/file_calls.h"

namespace swiftkv {
namespace fs = std::filesystem;
namespace {

Status RemoveFile(const std::string& path) {
  if (file_calls::Unlink(path.c_str()) == 0 || errno == ENOENT) return Ok();
  return IoError("{}: cannot remove: {}", path, std::strerror(errno));
}

// Removes the folder once `remove_entry` has removed what is in it.
Status RemoveFolderAnd(const std::string& path, Status (*remove_entry)(const std::string&)) {
  std::vector<std::string> entries;
  std::error_code error;
  fs::directory_iterator entry(path, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) entries.push_back(entry->path().string());
  if (error) return IoError("{}: cannot list the folder: {}", path, error.message());
  for (const std::string& name : entries) SWIFTKV_RETURN_IF_ERROR(remove_entry(name));
  if (file_calls::RemoveFolder(path.c_str()) == 0 || errno == ENOENT) return Ok();
  return IoError("{}: cannot remove the folder: {}", path, std::strerror(errno));
}

}  // namespace

Status SyncFolderOf(const std::string& path) {
  const fs::path folder = WithoutTrailingSlash(path).parent_path();
  const int fd = file_calls::Open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    // A folder that may be written but not read can't be synced.
    if (errno == EACCES) return Ok();
    return IoError("{}: cannot open its folder: {}", path, std::strerror(errno));
  }
  const bool synced = file_calls::Sync(fd) == 0 || errno == EINVAL;  // EINVAL: a file system without the notion
  const int error = errno;
  close(fd);
  if (!synced) return IoError("{}: cannot sync its folder: {}", path, std::strerror(error));
  return Ok();
}

Status MakeFolders(const std::string& path) {
  fs::path folder;
  for (const fs::path& part : WithoutTrailingSlash(path)) {
    folder /= part;
    std::error_code error;
    if (fs::is_directory(folder, error)) continue;
    if (file_calls::MakeFolder(folder.c_str()) != 0) {
      return IoError("{}: cannot create the folder {}: {}", path, folder.string(), std::strerror(errno));
    }
    SWIFTKV_RETURN_IF_ERROR(SyncFolderOf(folder.string()));
  }
  return Ok();
}

Status RenameDurably(const std::string& from, const std::string& to) {
  if (file_calls::Rename(from.c_str(), to.c_str()) != 0) {
    return IoError("{}: cannot rename to {}: {}", from, to, std::strerror(errno));
  }
  return SyncFolderOf(to);
}

Status RemoveFolder(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::not_found) return Ok();
  if (!fs::is_directory(status)) return IoError("{}: is no folder, so it is not removed", path);
  return RemoveFolderAnd(path, RemoveFile);
}

Status RemoveAll(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::not_found) return Ok();
  return fs::is_directory(status) ? RemoveFolderAnd(path, RemoveAll) : RemoveFile(path);
}

Result<AtomicFolder> AtomicFolder::Create(const std::string& path) {
  AtomicFolder folder;
  folder.path_ = WithoutTrailingSlash(path).string();
  const std::string temporary = fmt::format("{}{}{}", folder.path_, kTemporaryMark, getpid());
  // Left by a process of the same number.
  SWIFTKV_RETURN_IF_ERROR(RemoveAll(temporary));
  if (file_calls::MakeFolder(temporary.c_str()) != 0) {
    return IoError("{}: cannot create the folder: {}", path, std::strerror(errno));
  }
  folder.temporary_ = temporary;
  return folder;
}

AtomicFolder::AtomicFolder(AtomicFolder&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::exchange(other.temporary_, {})) {}

AtomicFolder::~AtomicFolder() {
  // What can't be removed now is recognised by its name later.
  if (!temporary_.empty()) static_cast<void>(RemoveFolder(temporary_));
}

Status AtomicFolder::Commit() {
  if (file_calls::Rename(temporary_.c_str(), path_.c_str()) != 0) {
    return IoError("{}: cannot rename into place: {}", path_, std::strerror(errno));
  }
  Status synced = SyncFolderOf(path_);
  // What is not durable is not done, so that after an error there is nothing.
  if (synced || file_calls::Rename(path_.c_str(), temporary_.c_str()) != 0) temporary_.clear();
  return synced;
}

Status AtomicFolder::Replace() {
  if (file_calls::Exchange(temporary_.c_str(), path_.c_str()) != 0) {
    if (errno == ENOENT) return Commit();
    if (errno == EINVAL || errno == ENOSYS) return ReplaceByTwoRenames();
    return IoError("{}: cannot rename into place: {}", path_, std::strerror(errno));
  }
  if (Status synced = SyncFolderOf(path_); !synced) {
    // What is not durable is not done: the old folder gets its name back.
    if (file_calls::Exchange(temporary_.c_str(), path_.c_str()) != 0) temporary_.clear();
    return synced;
  }
  static_cast<void>(RemoveAll(std::exchange(temporary_, {})));
  return Ok();
}

Status AtomicFolder::ReplaceByTwoRenames() {
  const std::string old = fmt::format("{}.old-{}", path_, getpid());
  SWIFTKV_RETURN_IF_ERROR(RemoveAll(old));
  if (file_calls::Rename(path_.c_str(), old.c_str()) != 0) {
    return IoError("{}: cannot rename to {}: {}", path_, old, std::strerror(errno));
  }
  Status status = Commit();
  if (status) {
    static_cast<void>(RemoveAll(old));
  } else {
    file_calls::Rename(old.c_str(), path_.c_str());
  }
  return status;
}

}  // namespace swiftkv
