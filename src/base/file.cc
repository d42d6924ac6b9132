#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "base/durable_folder.h"
#include "base/file_calls.h"

namespace swiftkv {
namespace {

// Closes on every path out of a function.
struct FileDescriptor {
  int fd = -1;
  ~FileDescriptor() {
    if (fd >= 0) close(fd);
  }
};

tl::unexpected<Error> OpenError(const std::string& path) {
  if (errno == ENOENT || errno == ENOTDIR) return NotFound("{}: no such file", path);
  return IoError("{}: cannot open: {}", path, std::strerror(errno));
}

Result<int64_t> RegularFileSize(int fd, const std::string& path) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return IoError("{}: cannot stat: {}", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return InvalidInput("{}: not a regular file", path);
  return static_cast<int64_t>(info.st_size);
}

Status WriteAll(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = file_calls::Write(fd, bytes.data(), bytes.size());
    if (put < 0) {
      if (errno == ENOSPC) return IoError("{}: the disk is full", path);
      return IoError("{}: cannot write: {}", path, std::strerror(errno));
    }
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return Ok();
}

// Where the links at the end of `path` lead, be there a file or not. nullopt: to something that can't be replaced, only
// written to, such as a device, or an open file of this process (/dev/stdout).
Result<std::optional<std::string>> ReplaceableFile(const std::string& path) {
  constexpr int kMaxLinks = 40;  // as Linux
  struct stat info {};
  if (stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return InvalidInput("{}: a folder, not a file", path);
    if (!S_ISREG(info.st_mode)) return std::nullopt;
  }
  std::filesystem::path file = path;
  for (int links = 0; links <= kMaxLinks; ++links) {
    std::error_code no_link;
    const std::filesystem::path target = std::filesystem::read_symlink(file, no_link);
    if (no_link) return file.string();
    if (file.string().starts_with("/proc/")) return std::nullopt;
    file = file.parent_path() / target;
  }
  return IoError("{}: more than {} links", path, kMaxLinks);
}

std::span<const std::byte> BytesOf(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

}  // namespace

Result<std::shared_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not hang.
  const FileDescriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) return OpenError(path);
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t size, RegularFileSize(file.fd, path));
  std::shared_ptr<MappedFile> mapped(new MappedFile());
  mapped->path_ = path;
  if (size > 0) {
    void* data = mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (data == MAP_FAILED) return IoError("{}: cannot map {} bytes: {}", path, size, std::strerror(errno));
    mapped->data_ = static_cast<const std::byte*>(data);
    mapped->size_ = static_cast<size_t>(size);
    mapped->guard_.emplace(data, mapped->size_);
  }
  return mapped;
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

Status MappedFile::Check() const {
  if (!guard_ || !guard_->failed()) return Ok();
  return IoError("{}: cannot be read to its end of {} bytes: it was cut short, or the disk fails", path_, size_);
}

void MappedFile::Release(std::span<const std::byte> part) const {
  if (part.empty()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::filesystem::path WithoutTrailingSlash(const std::string& path) {
  const auto normal = std::filesystem::path(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  const FileDescriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) return OpenError(path);
  SWIFTKV_ASSIGN_OR_RETURN(const int64_t size, RegularFileSize(file.fd, path));
  if (size > max_bytes) return InvalidInput("{}: {} bytes, the limit is {}", path, size, max_bytes);
  std::string text(static_cast<size_t>(size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = read(file.fd, text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("{}: cannot read: {}", path, std::strerror(errno));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

Result<AtomicFile> AtomicFile::Create(const std::string& path) {
  AtomicFile file;
  file.path_ = path;
  SWIFTKV_ASSIGN_OR_RETURN(const std::optional<std::string> target, ReplaceableFile(path));
  if (target) {
    file.target_ = *target;
    file.temporary_ = fmt::format("{}{}{}", *target, kTemporaryMark, getpid());
    file.fd_ = file_calls::Open(file.temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  } else {
    // O_APPEND: where standard output is a file, behind what it holds.
    file.fd_ = file_calls::Open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  }
  if (file.fd_ < 0) return IoError("{}: cannot create: {}", path, std::strerror(errno));
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  if (!IsDirect()) file_calls::Unlink(temporary_.c_str());
}

Status AtomicFile::Append(std::span<const std::byte> bytes) { return WriteAll(fd_, bytes, path_); }

Status AtomicFile::Append(std::string_view text) { return Append(BytesOf(text)); }

Status AtomicFile::Commit() {
  if (IsDirect()) {
    close(std::exchange(fd_, -1));
    return Ok();
  }
  if (file_calls::Sync(fd_) != 0) {
    if (errno == ENOSPC) return IoError("{}: the disk is full", path_);
    return IoError("{}: cannot sync: {}", path_, std::strerror(errno));
  }
  if (file_calls::Rename(temporary_.c_str(), target_.c_str()) != 0) {
    return IoError("{}: cannot rename into place: {}", path_, std::strerror(errno));
  }
  close(std::exchange(fd_, -1));
  return SyncFolderOf(target_);
}

Status WriteFile(const std::string& path, std::string_view text) {
  SWIFTKV_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  SWIFTKV_RETURN_IF_ERROR(file.Append(text));
  return file.Commit();
}

Result<std::string> SetAside(const std::string& path) {
  std::filesystem::path previous = path;
  previous.replace_extension(".previous" + previous.extension().string());
  if (file_calls::Rename(path.c_str(), previous.c_str()) != 0) {
    return IoError("{}: cannot rename to {}: {}", path, previous.string(), std::strerror(errno));
  }
  return previous.string();
}

Result<AppendFile> AppendFile::Open(const std::string& path) {
  AppendFile file;
  file.path_ = path;
  file.fd_ = file_calls::Open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
  if (file.fd_ < 0) return IoError("{}: cannot open for writing: {}", path, std::strerror(errno));
  SWIFTKV_ASSIGN_OR_RETURN(file.size_, RegularFileSize(file.fd_, path));
  SWIFTKV_RETURN_IF_ERROR(SyncFolderOf(path));
  return file;
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), size_(other.size_), fd_(std::exchange(other.fd_, -1)) {}

AppendFile::~AppendFile() {
  if (fd_ >= 0) close(fd_);
}

Status AppendFile::Append(std::string_view text) {
  Status status = WriteAll(fd_, BytesOf(text), path_);
  if (status) {
    size_ += static_cast<int64_t>(text.size());
  } else if (file_calls::Truncate(fd_, size_) != 0) {
    return IoError("{}; nor can the part that was written be taken back", status.error().message);
  }
  return status;
}

Status AppendFile::Sync() {
  if (file_calls::Sync(fd_) != 0) return IoError("{}: cannot sync: {}", path_, std::strerror(errno));
  return Ok();
}

}  // namespace swiftkv
