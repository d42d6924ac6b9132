#include "base/file_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

namespace swiftkv::file_calls {
namespace {

std::atomic<Observer*> g_observer = nullptr;

template <class Function>
auto Make(Call call, const Function& function) -> decltype(function(call)) {
  while (true) {
    if (Observer* const observer = g_observer.load(std::memory_order_acquire); observer != nullptr) {
      const int error = observer->Before(&call);
      if (error == EINTR) continue;
      if (error != 0) {
        errno = error;
        return -1;
      }
    }
    const auto result = function(call);
    if (result >= 0 || errno != EINTR) return result;
  }
}

}  // namespace

int Open(const char* path, int flags, mode_t mode) {
  return Make({.kind = Kind::kOpen, .path = path}, [&](const Call&) { return open(path, flags, mode); });
}

ssize_t Write(int fd, const void* data, size_t size) {
  return Make({.kind = Kind::kWrite, .fd = fd, .data = data, .size = size},
              [](const Call& call) { return write(call.fd, call.data, call.size); });
}

int Truncate(int fd, off_t size) {
  return Make({.kind = Kind::kTruncate, .fd = fd}, [&](const Call&) { return ftruncate(fd, size); });
}

int Sync(int fd) {
  return Make({.kind = Kind::kSync, .fd = fd}, [&](const Call&) { return fsync(fd); });
}

int Rename(const char* from, const char* to) {
  return Make({.kind = Kind::kRename, .path = from, .target = to}, [&](const Call&) { return rename(from, to); });
}

int Exchange(const char* one, const char* other) {
  return Make({.kind = Kind::kExchange, .path = one, .target = other},
              [&](const Call&) { return renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE); });
}

int Unlink(const char* path) {
  return Make({.kind = Kind::kUnlink, .path = path}, [&](const Call&) { return unlink(path); });
}

int MakeFolder(const char* path) {
  return Make({.kind = Kind::kMakeFolder, .path = path}, [&](const Call&) { return mkdir(path, 0777); });
}

int RemoveFolder(const char* path) {
  return Make({.kind = Kind::kRemoveFolder, .path = path}, [&](const Call&) { return rmdir(path); });
}

void SetObserver(Observer* observer) { g_observer.store(observer, std::memory_order_release); }

}  // namespace swiftkv::file_calls
