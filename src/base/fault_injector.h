// Tests only: makes the system calls of base/file_calls.h fail, as SQLite's tests do, while it lives.
//
//   for (int64_t call = 0;; ++call) {
//     FaultInjector faults({.failing_call = call, .error = ENOSPC});
//     const Status status = WriteFile(path, "new");
//     if (!faults.failed()) break;    // every call has had its turn
//     ...                             // here `path` holds the old text or the new one
//   }
//
// With `then` other than kGoOn the program "dies" at that call: it and all later calls fail, so that what a destructor
// would clean up stays, as after a kill -9. A write that it dies in has written its first half. kPowerLost also takes
// back what was never synced: data in files, and renames and exchanges whose folder was not synced.
#ifndef SWIFTKV_BASE_FAULT_INJECTOR_H_
#define SWIFTKV_BASE_FAULT_INJECTOR_H_

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "base/file_calls.h"

namespace swiftkv {

struct Faults {
  enum Then { kGoOn, kKilled, kPowerLost };
  int64_t failing_call = -1;  // counted from 0; -1: none
  int error = EIO;
  Then then = kGoOn;
  size_t max_write = std::numeric_limits<size_t>::max();  // of one call, in bytes: short writes
  bool interrupt = false;                                 // a signal interrupts every call once
  bool no_exchange = false;                               // a file system that can't exchange names
};

class FaultInjector : public file_calls::Observer {
 public:
  explicit FaultInjector(const Faults& faults) : faults_(faults) { file_calls::SetObserver(this); }
  ~FaultInjector() override {
    file_calls::SetObserver(nullptr);
    for (const Renamed& rename : renames_) ForgetReplaced(rename);
  }
  FaultInjector(const FaultInjector&) = delete;
  FaultInjector& operator=(const FaultInjector&) = delete;

  int64_t calls() const { return calls_; }
  bool failed() const { return faults_.failing_call >= 0 && calls_ > faults_.failing_call; }

  int Before(file_calls::Call* call) override {
    if (faults_.interrupt && !interrupted_) {
      interrupted_ = true;
      return EINTR;
    }
    interrupted_ = false;
    const int64_t number = calls_++;
    call->size = std::min(call->size, faults_.max_write);
    if (faults_.no_exchange && call->kind == file_calls::Kind::kExchange) return EINVAL;
    if (number == faults_.failing_call) {
      if (faults_.then != Faults::kGoOn) Die(*call);
      return faults_.error;
    }
    if (failed() && faults_.then != Faults::kGoOn) return faults_.error;
    if (faults_.then == Faults::kPowerLost) Watch(*call);
    return 0;
  }

 private:
  struct Renamed {
    std::string from;
    std::string to;
    std::string replaced;    // a second name of the file that `to` was before; empty if it was none
    bool exchanged = false;  // `from` has the other's name
  };

  static std::string PathOf(int fd) {
    std::array<char, 4096> path = {};
    const ssize_t size = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path.data(), path.size());
    return {path.data(), static_cast<size_t>(std::max<ssize_t>(size, 0))};
  }

  static void ForgetReplaced(const Renamed& rename) {
    if (!rename.replaced.empty()) unlink(rename.replaced.c_str());
  }

  // Remembers what a loss of power would take back.
  void Watch(const file_calls::Call& call) {
    struct stat info = {};
    if (call.kind == file_calls::Kind::kWrite || call.kind == file_calls::Kind::kTruncate) {
      if (fstat(call.fd, &info) == 0) synced_size_.emplace(PathOf(call.fd), info.st_size);
    } else if (call.kind == file_calls::Kind::kSync) {
      const std::string path = PathOf(call.fd);
      synced_size_.erase(path);
      std::erase_if(renames_, [&](const Renamed& rename) {
        const bool synced = std::filesystem::path(rename.to).parent_path() == path;
        if (synced) ForgetReplaced(rename);
        return synced;
      });
    } else if (call.kind == file_calls::Kind::kRename) {
      Renamed rename{.from = call.path, .to = call.target, .replaced = ""};
      if (lstat(call.target, &info) == 0 && S_ISREG(info.st_mode)) {
        rename.replaced = rename.to + ".replaced";
        if (link(call.target, rename.replaced.c_str()) != 0) rename.replaced.clear();
      }
      renames_.push_back(std::move(rename));
      MoveSizes(call.path, call.target);
    } else if (call.kind == file_calls::Kind::kExchange) {
      renames_.push_back({.from = call.path, .to = call.target, .replaced = "", .exchanged = true});
      const std::string between = std::string(call.path) + ".exchanged";
      MoveSizes(call.path, between);
      MoveSizes(call.target, call.path);
      MoveSizes(between, call.target);
    }
  }

  void MoveSizes(const std::string& from, const std::string& to) {
    std::map<std::string, int64_t> moved;
    for (const auto& [path, size] : synced_size_) {
      const bool inside = path == from || path.starts_with(from + "/");
      moved.emplace(inside ? to + path.substr(from.size()) : path, size);
    }
    synced_size_ = std::move(moved);
  }

  void Die(const file_calls::Call& call) {
    if (call.kind == file_calls::Kind::kWrite) {
      if (faults_.then == Faults::kPowerLost) Watch(call);
      [[maybe_unused]] const ssize_t ignored = write(call.fd, call.data, call.size / 2);
    }
    if (faults_.then != Faults::kPowerLost) return;
    for (const auto& [path, size] : synced_size_) {
      [[maybe_unused]] const int ignored = truncate(path.c_str(), size);
    }
    for (auto rename = renames_.rbegin(); rename != renames_.rend(); ++rename) {
      if (rename->exchanged) {
        renameat2(AT_FDCWD, rename->from.c_str(), AT_FDCWD, rename->to.c_str(), RENAME_EXCHANGE);
        continue;
      }
      std::rename(rename->to.c_str(), rename->from.c_str());
      if (!rename->replaced.empty()) std::rename(rename->replaced.c_str(), rename->to.c_str());
    }
    renames_.clear();
  }

  Faults faults_;
  int64_t calls_ = 0;
  bool interrupted_ = false;
  std::map<std::string, int64_t> synced_size_;  // of files with data that was not synced
  std::vector<Renamed> renames_;                // whose folder was not synced, oldest first
};

}  // namespace swiftkv

#endif  // SWIFTKV_BASE_FAULT_INJECTOR_H_
